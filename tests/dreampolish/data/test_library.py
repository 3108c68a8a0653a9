"""From a library to batches: frames, sizes and paints of models, renders in rounds, and the pictures made of them.

The library is made up: a box with a green front, the same box in another colour, one that the catalogue turns, and a door.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from dreampolish.data.batches import MILD_STRETCH, RenderedViews
from dreampolish.data.domain import in_domain
from dreampolish.data.library import BOUNDING_RADIUS, load_model, parse_mtl, parse_obj, read_catalog, stretched
from dreampolish.data.renders import FRONT_VIEWS, STRETCHED_VIEWS, RenderPlan, render_all, training_cameras

CUBE = """mtllib cube.mtl
v -1 -1 -1\nv 1 -1 -1\nv 1 1 -1\nv -1 1 -1\nv -1 -1 1\nv 1 -1 1\nv 1 1 1\nv -1 1 1
usemtl front
f 5 6 7 8
usemtl body
f 1 4 3 2\nf 1 2 6 5\nf 2 3 7 6\nf 3 4 8 7\nf 4 1 5 8
"""

PROPERTIES = """id=Tiny
name#1=Red box
id#1=Tiny#red
tags#1=Test, Box
category#1=Living room
model#1=/tiny/red/cube.obj
width#1=100
depth#1=50
height#1=200
creator#1=Nobody
id#2=Tiny#blue
name#2=Blue crate
tags#2=
category#2=Living room
model#2=/tiny/blue/cube.obj
width#2=100
depth#2=50
height#2=200
creator#2=Nobody
id#3=Tiny#turned
name#3=Caf\\u00e9 table
tags#3=
category#3=Kitchen
model#3=/tiny/red/cube.obj
modelRotation#3=0 0 1 0 1 0 -1 0 0
width#3=100
depth#3=100
height#3=100
creator#3=Nobody
id#4=Tiny#door
name#4=Glass door
tags#4=
category#4=Doors and windows
model#4=/tiny/red/cube.obj
width#4=100
depth#4=100
height#4=100
creator#4=Nobody
"""


def write_tiny_library(folder: Path) -> Path:
    """Write Tiny.sh3f into `folder` and answer the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / "Tiny.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", PROPERTIES.encode("latin-1"))
        for name, body in (("red", "0.8 0.1 0.1"), ("blue", "0.1 0.1 0.8")):
            archive.writestr(f"tiny/{name}/cube.obj", CUBE)
            archive.writestr(f"tiny/{name}/cube.mtl", f"newmtl front\nKd 0 1 0\nnewmtl body\nKd {body}\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_library(tmp_path)


def test_catalog_keeps_names_sizes_and_unicode(folder: Path) -> None:
    entries = read_catalog(folder)
    assert [entry.name for entry in entries] == ["Red box", "Blue crate", "Café table", "Glass door"]
    assert entries[0].size_m == (1.0, 0.5, 2.0)
    assert entries[0].tags == ("Test", "Box")
    assert entries[2].rotation == (0.0, 0.0, 1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0)


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="sweethome3d-furniture"):
        read_catalog(tmp_path)


def test_doors_are_outside_the_domain(folder: Path) -> None:
    assert [in_domain(entry) for entry in read_catalog(folder)] == [True, True, True, False]


def test_model_is_normalised_with_catalogue_proportions(folder: Path) -> None:
    mesh = load_model(read_catalog(folder)[0], folder, 0.01)
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(BOUNDING_RADIUS, rel=1e-5)
    extent = mesh.vertices.max(axis=0) - mesh.vertices.min(axis=0)  # world: x depth, y width, z height
    np.testing.assert_allclose(extent / extent[2], [0.25, 0.5, 1.0], rtol=1e-5)
    np.testing.assert_allclose(mesh.vertices.max(axis=0), -mesh.vertices.min(axis=0), atol=1e-6)


def test_front_faces_plus_x(folder: Path) -> None:
    mesh = load_model(read_catalog(folder)[0], folder, 0.01)
    green = next(place for place, color in enumerate(mesh.colors) if color[1] == 1)
    corners = mesh.vertices[mesh.faces[mesh.face_paints == green]]
    assert (corners[..., 0] > 0).all()
    np.testing.assert_allclose(mesh.corner_normals[mesh.face_paints == green], np.broadcast_to([1, 0, 0], (2, 3, 3)), atol=1e-6)


def test_catalogue_rotation_turns_the_model(folder: Path) -> None:
    mesh = load_model(read_catalog(folder)[2], folder, 0.01)  # x' = z: the model's front (+z) goes to +x, our +y
    green = next(place for place, color in enumerate(mesh.colors) if color[1] == 1)
    assert (mesh.vertices[mesh.faces[mesh.face_paints == green]][..., 1] > 0).all()


def test_obj_reads_negative_indices_and_fans_polygons() -> None:
    mesh = parse_obj("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvn 0 0 1\nf -4/1/1 -3/1/1 -2/1/1 -1/1/1\n")
    assert mesh.corners[:, :, 0].tolist() == [[0, 1, 2], [0, 2, 3]]
    assert mesh.corners[0, 0].tolist() == [0, 0, 0]


def test_obj_without_faces_is_refused() -> None:
    with pytest.raises(ValueError, match="no face"):
        parse_obj("v 0 0 0\n")


def test_mtl_defaults_and_clamps() -> None:
    materials = parse_mtl("newmtl a\nKd 1.5 0.5 0\nd 0.25\nnewmtl b\nmap_Kd wood grain.jpg\n")
    assert materials["a"].diffuse == (1.0, 0.5, 0.0)
    assert materials["a"].opacity == 0.25
    assert materials["b"].texture == "wood grain.jpg"
    assert materials["b"].opacity == 1.0


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> RenderedViews:
    folder = tmp_path_factory.mktemp("renders")
    libraries = write_tiny_library(folder / "libraries")
    render_all(libraries, folder / "renders", RenderPlan(size=32, supersampling=2, views_per_round=(6, 4), stretched_rounds=2))
    split = folder / "split.json"
    split.write_text(json.dumps({"train": ["Tiny#red", "Tiny#blue"], "validation": [], "held_out": ["Tiny#turned"]}))
    return RenderedViews(folder / "renders", split, "train")


def test_every_round_holds_every_object(views: RenderedViews) -> None:
    each = 6 + 4 + FRONT_VIEWS + 2 * STRETCHED_VIEWS
    assert len(views.view_objects) == 2 * each
    assert np.bincount(views.view_objects).tolist() == [each, each]
    assert views.azimuth_deg[:2].tolist() == [0, 0]  # fronts first


def test_front_view_shows_the_front(views: RenderedViews) -> None:
    front = views.load(np.array([0]))
    assert front.albedo[0, :, 16, 16].tolist() == pytest.approx([0, 1, 0], abs=0.01)
    assert front.normals[0, 2, 16, 16] > 0.9


def test_rendering_again_changes_nothing(views: RenderedViews, tmp_path: Path) -> None:
    libraries = write_tiny_library(tmp_path / "libraries")
    render_all(
        libraries, tmp_path / "renders", RenderPlan(size=32, supersampling=2, views_per_round=(6, 4), stretched_rounds=2)
    )
    again = np.load(tmp_path / "renders" / "round_1" / "buffers.npy")
    kept = [row for row, name in enumerate(json.loads((tmp_path / "renders/round_1/index.json").read_text())["objects"])]
    first = np.load(views._renders / "round_1" / "buffers.npy")
    np.testing.assert_array_equal(again[kept], first[kept])


def test_positions_lie_on_the_object(views: RenderedViews) -> None:
    chosen = np.arange(8)
    found = views.load(chosen)
    points = views.positions_world(chosen, found.cameras)
    radius = points.norm(dim=1)[found.coverage[:, 0] == 1]
    assert radius.max() < 0.61
    assert points.abs()[:, 0][found.coverage[:, 0] == 1].max() < 0.14  # depth 50 of height 200: x within 0.6 * 0.25 / |..|


def test_text_batch(views: RenderedViews) -> None:
    images, captions = views.text_batch(16, torch.Generator().manual_seed(0))
    assert images.shape == (16, 3, 32, 32)
    assert images.min() >= 0
    assert images.max() <= 1
    assert all("box" in caption or "crate" in caption for caption in captions)
    again, same = views.text_batch(16, torch.Generator().manual_seed(0))
    torch.testing.assert_close(images, again)
    assert captions == same


def test_view_batch_pose_is_a_unit_angle(views: RenderedViews) -> None:
    reference, target, pose = views.view_batch(8, torch.Generator().manual_seed(1))
    assert reference.shape == target.shape == (8, 3, 32, 32)
    torch.testing.assert_close(pose[:, 1] ** 2 + pose[:, 2] ** 2, torch.ones(8))
    assert (pose[:, 3] == 0).all()
    same = (pose[:, 2] > 1 - 1e-6) & (pose[:, 0].abs() < 1e-6)
    torch.testing.assert_close(reference[same], target[same])


def test_normal_batch_is_unit_and_faces_the_viewer_on_the_background(views: RenderedViews) -> None:
    images, normals, mask = views.normal_batch(8, torch.Generator().manual_seed(2))
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(8, 32, 32), atol=1e-4, rtol=0)
    outside = mask[:, 0] == 0
    assert (normals.permute(0, 2, 3, 1)[outside] == torch.tensor([0.0, 0.0, 1.0])).all()
    assert images.shape == normals.shape
    assert 0.02 < mask.mean() < 0.6


def test_training_cameras_have_the_stated_ranges() -> None:
    cameras = training_cameras(500, True, 32, torch.Generator().manual_seed(0))
    assert cameras.azimuth_deg[0] == 0
    assert 0 <= cameras.elevation_deg[0] <= 20
    assert cameras.elevation_deg.min() >= -10
    assert 45 < cameras.elevation_deg.max() <= 70
    narrow = (cameras.fov_deg == 20).float().mean()
    assert 0.5 < narrow < 0.7
    assert cameras.fov_deg.max() > 55


def test_views_copied_to_a_device_are_those_of_the_files(views: RenderedViews) -> None:
    chosen = np.array([3, 40, 0, 57])
    from_files = views.load(chosen)
    points = views.positions_world(chosen, from_files.cameras)
    copied = RenderedViews(views._renders, views._renders.parent / "split.json", "train")
    copied._on_device = copied._copy_to_device()
    again = copied.load(chosen)
    torch.testing.assert_close(again.albedo, from_files.albedo)
    torch.testing.assert_close(again.normals, from_files.normals)
    torch.testing.assert_close(again.paint, from_files.paint)
    torch.testing.assert_close(copied.positions_world(chosen, again.cameras), points)


def test_looking_again_takes_in_nothing_but_new_rounds(tmp_path: Path) -> None:
    libraries = write_tiny_library(tmp_path / "libraries")
    renders, split = tmp_path / "renders", tmp_path / "split.json"
    split.write_text(json.dumps({"train": ["Tiny#red", "Tiny#blue"], "validation": [], "held_out": ["Tiny#turned"]}))
    render_all(libraries, renders, RenderPlan(size=16, supersampling=1, views_per_round=(2,), stretched_rounds=0))
    views = RenderedViews(renders, split, "train")
    before = views._buffers
    assert views.refresh() == 2 * (2 + FRONT_VIEWS)
    assert views._buffers is before
    render_all(libraries, renders, RenderPlan(size=16, supersampling=1, views_per_round=(2,), stretched_rounds=1))
    assert views.refresh() == 2 * (2 + FRONT_VIEWS + STRETCHED_VIEWS)


def test_stretched_objects_are_for_training_alone(views: RenderedViews) -> None:
    held_out = RenderedViews(views._renders, views._renders.parent / "split.json", "held_out")
    assert len(held_out.view_objects) == 6 + 4 + FRONT_VIEWS
    assert (held_out.stretch == 0).all()
    assert (views.stretch > 0).sum() == 2 * 2 * STRETCHED_VIEWS


def test_a_pair_shows_one_shape(views: RenderedViews) -> None:
    draws = torch.rand(300, 5, generator=torch.Generator().manual_seed(4)).tolist()
    pairs = np.array([views._draw_pair(draw) for draw in draws])
    assert (views.view_objects[pairs[:, 0]] == views.view_objects[pairs[:, 1]]).all()
    assert (views.stretch[pairs[:, 0]] == views.stretch[pairs[:, 1]]).all()
    assert len(set(views.stretch[pairs[:, 0]].tolist())) == 1 + 2 * 2


def test_captions_get_no_strongly_stretched_objects(views: RenderedViews) -> None:
    drawn = views._draw_text_views(500, torch.Generator().manual_seed(5))
    assert views.stretch[drawn].max() < MILD_STRETCH
    assert views.stretch.max() > MILD_STRETCH


def test_a_stretched_mesh_keeps_its_radius_and_upright_normals(tmp_path: Path) -> None:
    libraries = write_tiny_library(tmp_path)
    entry = next(e for e in read_catalog(libraries) if e.identifier == "Tiny#red")
    mesh = load_model(entry, libraries, 0.01)
    taller = stretched(mesh, (1.0, 1.0, 1.5))
    before, after = np.ptp(mesh.vertices, axis=0), np.ptp(taller.vertices, axis=0)
    np.testing.assert_allclose(after / before / (after[0] / before[0]), [1, 1, 1.5], rtol=1e-5)
    assert np.linalg.norm(taller.vertices, axis=1).max() == pytest.approx(0.6)
    np.testing.assert_allclose(np.linalg.norm(taller.corner_normals, axis=-1), 1, atol=1e-6)
    sides = taller.vertices[taller.faces]
    flat = np.cross(sides[:, 1] - sides[:, 0], sides[:, 2] - sides[:, 0])
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    assert np.abs((taller.corner_normals * flat[:, None]).sum(axis=-1)).min() > 0.99  # a box's normals stay its faces'


def test_missing_renders_are_named(tmp_path: Path) -> None:
    (tmp_path / "objects.json").write_text("[]")
    (tmp_path / "split.json").write_text('{"train": [], "validation": [], "held_out": []}')
    with pytest.raises(FileNotFoundError, match="dreampolish.data.renders"):
        RenderedViews(tmp_path, tmp_path / "split.json", "train")
