"""An unfinished result, looked at: only while somebody does, at a bounded cost, and without a trace in the result."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor

from dreampolish.fields.hash_grid import GridSizes
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField
from dreampolish.renderers.scenes import SdfScene
from dreampolish.scene.cameras import SCENE_HALF_SIZE, Cameras, turntable_cameras
from stages.results import live as looking
from stages.results.live import N_VIEWS, SIZE, Looking, Unfinished, glb_of_surface, unfinished_distance
from stages.runtime.tracking.live import LiveStage, live_folder, look

TETRAHEDRON = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
OUTWARD = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


class Drawn:
    """An unfinished result that counts how often it is looked at; a shade for every view."""

    def __init__(self, empty: bool = False) -> None:
        self.views, self.meshes, self.empty = 0, 0, empty

    def render(self, cameras: Cameras) -> Tensor:
        assert not torch.is_grad_enabled()
        self.views += 1
        return (cameras.azimuth_deg / 360).view(-1, 1, 1, 1).expand(-1, cameras.size, cameras.size, 3)

    def mesh(self) -> tuple[Tensor, Tensor, Tensor]:
        self.meshes += 1
        if self.empty:
            raise ValueError("the field has no surface")
        return TETRAHEDRON, OUTWARD, torch.full((4, 3), 0.5)


def test_nothing_is_drawn_for_nobody(store: Path) -> None:
    drawn = Drawn()
    watch = Looking(LiveStage(store, "run1", "nerf"), Unfinished(drawn.render, drawn.mesh), torch.device("cpu"))
    for _ in range(5):
        watch.after_step()
    assert (drawn.views, drawn.meshes) == (0, 0)


def test_a_look_takes_its_share_of_the_time_at_most(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 100.0}
    monkeypatch.setattr(looking.time, "monotonic", lambda: clock["now"])
    drawn = Drawn()

    def slow() -> tuple[Tensor, Tensor, Tensor]:
        clock["now"] += 2.0
        return drawn.mesh()

    watch = Looking(LiveStage(store, "run1", "nerf"), Unfinished(drawn.render, slow), torch.device("cpu"))
    look(store, "run1")
    watch.after_step()
    assert (drawn.views, drawn.meshes) == (N_VIEWS, 1)
    clock["now"] += 39.0
    watch.after_step()
    assert drawn.meshes == 1, "2 s are a twentieth of 40 s"
    clock["now"] += 1.5
    watch.after_step()
    assert drawn.meshes == 2
    with Image.open(live_folder(store, "run1") / "nerf-views.png") as strip:
        assert strip.size == (N_VIEWS * SIZE, SIZE)
        shades = [strip.getpixel((SIZE * view + 5, 5))[0] for view in range(N_VIEWS)]  # type: ignore[index]
    assert shades == [round(255 * view / N_VIEWS) for view in range(N_VIEWS)]


def test_a_result_without_a_surface_shows_its_views(store: Path) -> None:
    drawn = Drawn(empty=True)
    watch = Looking(LiveStage(store, "run1", "nerf"), Unfinished(drawn.render, drawn.mesh), torch.device("cpu"))
    look(store, "run1")
    watch.after_step()
    assert [path.name for path in live_folder(store, "run1").glob("nerf-*")] == ["nerf-views.png"]


def test_the_glb_is_y_up_faces_outward_and_has_linear_colours() -> None:
    content = glb_of_surface(TETRAHEDRON, OUTWARD, torch.full((4, 3), 0.5))
    scene = trimesh.load(io.BytesIO(content), file_type="glb")
    (mesh,) = scene.geometry.values()  # type: ignore[union-attr]
    assert mesh.volume == pytest.approx(1 / 6), "a turned face would change or negate it"
    # World +z is up, +x the front; in glTF +Y and +Z.
    expected = TETRAHEDRON.numpy()[:, [1, 2, 0]]
    assert {tuple(vertex) for vertex in mesh.vertices} == {tuple(vertex) for vertex in expected}
    assert np.asarray(mesh.visual.vertex_colors)[0].tolist() == [55, 55, 55, 255]  # ((0.5 + 0.055) / 1.055)^2.4 = 0.2140
    assert b'"NORMAL"' in content


def test_a_sphere_is_seen_as_one_and_no_number_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    field = SdfField(
        grid_sizes=GridSizes(n_levels=2, n_features=2, base_resolution=4, growth=2.0, table_size=1024, half_size=0.65),
        hidden_width=8,
        sphere_radius=0.4,
        initial_inverse_std=200.0,
        generator=generator,
    )
    occupancy = OccupancyGrid(16, SCENE_HALF_SIZE, torch.device("cpu"))
    scene = SdfScene(field=field, occupancy=occupancy, step_size=0.02, shell_parts=1, generator=generator)
    scene.update_occupancy()
    before = generator.get_state()
    unfinished = unfinished_distance(scene)
    with torch.no_grad():
        vertices, faces, colors = unfinished.mesh()
        front = unfinished.render(turntable_cameras(1, 15.0, 20.0, 32))
    radii = vertices.norm(dim=1)
    assert float(radii.min()) > 0.37 and float(radii.max()) < 0.43
    assert trimesh.Trimesh(vertices.numpy(), faces.numpy()).volume == pytest.approx(4 / 3 * np.pi * 0.4**3, rel=0.1)
    assert colors.shape == vertices.shape and float(colors.min()) >= 0 and float(colors.max()) <= 1
    assert torch.equal(front[0, 0, 0], torch.ones(3)) and not torch.equal(front[0, 16, 16], torch.ones(3))
    assert torch.equal(generator.get_state(), before)
