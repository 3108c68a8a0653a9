"""Objects of the data engine: files read, painted meshes that look right, words that say what was measured."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dreampolish.data import procedural
from dreampolish.data.procedural import ManifestEntry, ProceduralObject
from dreampolish.data.raycasting import RayCaster, _wrapped_texels
from dreampolish.scene.cameras import orbit_cameras

RED, WHITE = (0.9, 0.1, 0.1), (1.0, 1.0, 1.0)
ENTRY = ManifestEntry(
    file="BookcaseFactory_0003.npz",
    generator="BookcaseFactory",
    seed=3,
    words=("bookcase", "bookshelf"),
    front_deg=90.0,
    extent_m=(0.8, 0.3, 2.0),
    color="white",
    material="wooden",
    proportion="tall",
    triangles=12,
    seconds=4.5,
    use=True,
    reason="",
)


def box(width_x: float, width_y: float, height: float, top: tuple[float, ...], front_y: tuple[float, ...]) -> ProceduralObject:
    """A white box with a top (+z) and a +y side in colours of their own; 12 faces."""
    corners = (
        np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * np.array([width_x, width_y, height]) / 2
    )
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))])
    colors = np.ones((12, 3, 3))
    colors[6:8], colors[10:12] = front_y, top
    return ProceduralObject(corners.astype(np.float32), faces, colors.astype(np.float32))


def write(path: Path, item: ProceduralObject) -> Path:
    """The item as the engine's worker writes it."""
    size = float(np.linalg.norm(np.ptp(item.vertices, axis=0)))
    np.savez_compressed(
        path,
        vertices=np.rint(item.vertices / size * 65534).astype(np.int16),
        size=np.float32(size),
        faces=item.faces.astype(np.uint16),
        colors=np.round(item.corner_colors * 255).astype(np.uint8),
    )
    return path


def test_load_object_gives_metres_and_leaves_out_faces_without_area(tmp_path):
    item = box(1.0, 2.0, 3.0, RED, WHITE)
    faces = np.concatenate([item.faces, [[0, 0, 1]]])
    broken = ProceduralObject(item.vertices, faces, np.concatenate([item.corner_colors, item.corner_colors[:1]]))

    loaded = procedural.load_object(write(tmp_path / "box.npz", broken))

    np.testing.assert_allclose(loaded.vertices, item.vertices, atol=1e-4)
    np.testing.assert_array_equal(loaded.faces, item.faces)
    np.testing.assert_allclose(loaded.corner_colors, item.corner_colors, atol=0.5 / 255)


def test_load_object_refuses_an_object_without_any_area(tmp_path):
    flat = ProceduralObject(np.eye(3, dtype=np.float32), np.array([[0, 0, 1]]), np.zeros((1, 3, 3), np.float32))
    with pytest.raises(ValueError, match="no face has an area"):
        procedural.load_object(write(tmp_path / "flat.npz", flat))


def test_face_areas_of_a_box_sum_to_its_surface():
    item = box(1.0, 2.0, 3.0, RED, WHITE)
    assert procedural.face_areas(item.vertices, item.faces).sum() == pytest.approx(2 * (1 * 2 + 2 * 3 + 1 * 3))


def test_color_atlas_blends_corner_colors_linearly():
    rng = np.random.default_rng(0)
    colors = 0.35 + 0.3 * rng.random((7, 3, 3))
    weights = rng.dirichlet((1, 1, 1), size=7)

    texture, uvs = procedural.color_atlas(colors)

    points = (uvs * weights[..., None]).sum(axis=1)
    expected = (colors * weights[..., None]).sum(axis=1)
    np.testing.assert_allclose(_wrapped_texels(texture, points)[:, :3], expected, atol=1.5 / 255)


def test_painted_mesh_is_centred_with_radius_06():
    mesh = procedural.painted_mesh(box(1.0, 2.0, 3.0, RED, WHITE), 30.0)
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(0.6, abs=1e-6)
    np.testing.assert_allclose((mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2, 0, atol=1e-6)


@pytest.mark.parametrize(("front_deg", "azimuth_deg", "expected"), [(90.0, 0.0, RED), (90.0, 180.0, WHITE), (0.0, 90.0, RED)])
def test_the_front_of_a_painted_mesh_is_seen_from_azimuth_zero(front_deg, azimuth_deg, expected):
    caster = RayCaster(procedural.painted_mesh(box(1.0, 1.0, 1.0, WHITE, RED), front_deg))
    camera = orbit_cameras(torch.tensor([azimuth_deg]), torch.tensor([0.0]), torch.tensor([20.0]), 17)

    seen = caster.render(camera, 0, 1)

    assert seen.coverage[8, 8] == 255
    np.testing.assert_allclose(seen.albedo[:, 8, 8] / 255, expected, atol=1.5 / 255)


def test_extent_names_width_across_the_front():
    np.testing.assert_allclose(procedural.extent_of(box(1.0, 2.0, 3.0, RED, WHITE), 0.0), (2, 1, 3), atol=1e-5)
    np.testing.assert_allclose(procedural.extent_of(box(1.0, 2.0, 3.0, RED, WHITE), 90.0), (1, 2, 3), atol=1e-5)


def test_main_color_is_that_of_the_largest_surface():
    cube = box(1.0, 1.0, 1.0, WHITE, WHITE)
    colors = cube.corner_colors.copy()
    colors[:8] = RED
    two_thirds_red = replace(cube, corner_colors=colors)
    assert procedural.main_color(cube, 1.0) == "white"
    assert procedural.main_color(two_thirds_red, 0.65) == "red"
    assert procedural.main_color(two_thirds_red, 0.7) is None


def test_brightness_of_black_is_zero_and_of_red_its_red():
    cube = box(1.0, 1.0, 1.0, RED, RED)
    assert procedural.brightness(replace(cube, corner_colors=np.zeros((12, 3, 3)))) == 0
    assert procedural.brightness(replace(cube, corner_colors=np.full((12, 3, 3), RED))) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("extent", "word"),
    [
        ((1.0, 1.0, 1.0), None),
        ((1.0, 1.0, 2.0), "tall"),
        ((1.0, 1.0, 0.5), "low"),
        ((2.0, 1.0, 1.0), "wide"),
        ((0.5, 1.0, 1.0), "narrow"),
        ((1.0, 2.0, 1.0), "deep"),
        ((3.0, 3.0, 3.0), None),
    ],
)
def test_proportion_word_compares_with_the_kind_whatever_the_size(extent, word):
    typical = (0.8, 0.3, 2.0)
    scaled = tuple(length * usual for length, usual in zip(extent, typical, strict=True))
    assert procedural.proportion_word(scaled, typical, 1.2) == word


def test_caption_tells_all_that_was_measured():
    assert procedural.caption(ENTRY) == "a tall white wooden bookcase"
    assert procedural.caption(replace(ENTRY, proportion=None, color=None, material=None)) == "a bookcase"
    assert procedural.caption(replace(ENTRY, proportion=None, color="orange")) == "an orange wooden bookcase"
