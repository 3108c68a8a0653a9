"""Packs, the z-buffer and sets against the project's own ray caster, light and shading."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dreampolish.data.library import PaintedMesh
from dreampolish.data.raycasting import RayCaster
from dreampolish.scene.cameras import orbit_cameras
from dreampolish.scene.lighting import Lighting, lighting_in_camera
from dreampolish.scene.shading import on_white, recolor, shade
from dreampolish.training.multiview.condense import condense, sample_colored, split_edges
from dreampolish.training.multiview.pack import (
    VERTEX_UNIT,
    CondensedMesh,
    ObjectInfo,
    PackInfo,
    TrainingPack,
    packed_mesh,
    read_pack,
    write_pack,
)
from dreampolish.training.multiview.raster import Scene, rendered, vertex_normals
from dreampolish.training.multiview.sets import painted_pictures


def box_mesh() -> CondensedMesh:
    box = trimesh.creation.box((0.5, 0.7, 0.4))
    faces = np.asarray(box.faces)
    colors = np.linspace(0.1, 0.9, len(faces))[:, None, None] * np.array([1.0, 0.5, 0.3]) * np.ones((1, 3, 1))
    samples = sample_colored(np.asarray(box.vertices), faces, colors, 4000, np.random.default_rng(0))
    return condense(np.asarray(box.vertices), faces, samples, 100, 400)


def small_pack() -> TrainingPack:
    options = ((0, 1), (1,), ())
    one = ObjectInfo("box", "library", "train", "box", 2, (0.5, 0.4, 0.3), 0.8, 0.01, options)
    info = PackInfo((one, one), ("red", "wooden"), (((0.8, 0.1, 0.1),), ((0.6, 0.4, 0.2),)), ("", "a box"))
    states = np.arange(5 * 4, dtype=np.int8).reshape(5, 4)
    return TrainingPack(info, (packed_mesh(box_mesh()),) * 2, states, np.array([2, 3]), np.ones(4, np.float32))


def test_a_pack_comes_back_as_it_was_written(tmp_path: Path) -> None:
    pack = small_pack()
    write_pack(tmp_path / "pack.npz", pack)
    again = read_pack(tmp_path / "pack.npz")
    assert again.info == pack.info
    for one, other in zip(again.meshes, pack.meshes, strict=True):
        for name in ("vertices", "faces", "corners", "palette"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(again.states, pack.states)


def test_packing_keeps_places_and_colours() -> None:
    mesh = box_mesh()
    packed = packed_mesh(mesh)
    np.testing.assert_allclose(packed.vertices[packed.faces] * VERTEX_UNIT, mesh.vertices[mesh.faces], atol=VERTEX_UNIT)
    shades = packed.palette[packed.corners]
    np.testing.assert_allclose(shades[..., :3] / 255, mesh.corner_colors, atol=0.05)
    np.testing.assert_array_equal(shades[..., 3] > 0, mesh.corner_paint)


def test_splitting_edges_keeps_the_area_and_leaves_no_open_edge() -> None:
    box = trimesh.creation.box((1, 1, 1))
    faces, n = np.asarray(box.faces, np.int64), len(box.vertices)
    starts, ends = faces.reshape(-1), faces[:, [1, 2, 0]].reshape(-1)
    keys = np.unique(np.minimum(starts, ends) * n + np.maximum(starts, ends))
    points, split = split_edges(np.asarray(box.vertices), faces, keys[::2])
    found = trimesh.Trimesh(points, split, process=False)
    assert found.area == pytest.approx(6)
    assert found.is_watertight


def test_the_z_buffer_agrees_with_the_ray_caster() -> None:
    mesh = box_mesh()
    faces = torch.from_numpy(mesh.faces).int()[None]
    vertices = torch.from_numpy(mesh.vertices)[None]
    colors = torch.full((1, faces.shape[1], 3, 4), 128, dtype=torch.uint8)
    azimuth, elevation = torch.tensor([[30.0, 200.0]]), torch.tensor([[20.0, -5.0]])
    wood = torch.tensor([[1.0, 0.0, 0.0, 0.1]])
    found = rendered(Scene(vertices, vertex_normals(vertices, faces), faces, colors, wood, azimuth, elevation), 64, 2)
    triangles = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    painted = PaintedMesh(
        mesh.vertices, mesh.faces, np.repeat(triangles.face_normals[:, None], 3, axis=1).astype(np.float32),
        np.zeros((len(mesh.faces), 3, 2), np.float32), np.zeros(len(mesh.faces), np.int64),
        np.full((1, 3), 128 / 255, np.float32), np.ones(1, np.float32), (None,),
    )  # fmt: skip
    caster = RayCaster(painted)
    for view in range(2):
        true = caster.render(
            orbit_cameras(azimuth[0, view : view + 1], elevation[0, view : view + 1], torch.tensor([20.0]), 64), 0, 2
        )
        assert np.abs(found[view, 6].numpy().astype(int) - true.coverage).mean() < 0.3
        inside = true.coverage == 255
        assert np.abs((found[view, 3:6].numpy()[:, inside] - 128.0) - true.normals[:, inside]).mean() < 1
        assert np.abs(found[view, :3].numpy()[:, inside].astype(int) - 128).max() <= 1


def test_painting_is_that_of_the_stored_views() -> None:
    generator = torch.Generator().manual_seed(0)
    buffers = torch.randint(256, (2, 1, 9, 8, 8), generator=generator).to(torch.uint8)
    target, luminance, contrast = torch.rand(2, 3, generator=generator), torch.tensor([0.4, 0.6]), torch.tensor([0.5, 0.9])
    camera = orbit_cameras(torch.tensor([40.0, 130.0]), torch.tensor([10.0, 30.0]), torch.full((2,), 20.0), 8)
    toward = torch.nn.functional.normalize(torch.randn(2, 2, 3, generator=generator), dim=-1)
    light = Lighting(torch.tensor([[0.0, 0, 1]] * 2), toward, torch.tensor([[0.5, 0.1, 0.3, 0.3]] * 2))
    seen = lighting_in_camera(light, camera.world_from_camera)
    found = painted_pictures(
        buffers,
        torch.ones(2),
        torch.zeros(2),
        target,
        luminance,
        contrast,
        seen.up[:, None],
        seen.toward[:, None],
        seen.strengths,
    )
    values = buffers[:, 0].float()
    albedo = recolor(values[:, :3] / 255, values[:, 7:8] / 255, target, luminance, contrast).clamp(0, 0.94)
    expected = on_white(albedo * shade((values[:, 3:6] - 128) / 127, seen), values[:, 6:7] / 255)
    torch.testing.assert_close(found[:, 0], expected, atol=1e-5, rtol=1e-5)
