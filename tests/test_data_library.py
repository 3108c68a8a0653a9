"""Reading libraries and models: frames, sizes, paints."""

from pathlib import Path

import numpy as np
import pytest
from tests.tiny_library import write_tiny_library

from dreampolish.data.domain import in_domain
from dreampolish.data.library import BOUNDING_RADIUS, load_model, read_catalog
from dreampolish.data.wavefront import parse_mtl, parse_obj


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_library(tmp_path)


def test_catalog_keeps_names_sizes_and_unicode(folder: Path) -> None:
    entries = read_catalog(folder)
    assert [entry.name for entry in entries] == ["Red box", "Blue crate", "Café table", "Glass door"]
    assert entries[0].size_m == (1.0, 0.5, 2.0)
    assert entries[0].tags == ("Test", "Box")
    assert entries[2].rotation == (0, 0, 1, 0, 1, 0, -1, 0, 0)


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
    green = [place for place, color in enumerate(mesh.colors) if color[1] == 1][0]
    corners = mesh.vertices[mesh.faces[mesh.face_paints == green]]
    assert (corners[..., 0] > 0).all()
    np.testing.assert_allclose(mesh.corner_normals[mesh.face_paints == green], np.broadcast_to([1, 0, 0], (2, 3, 3)), atol=1e-6)


def test_catalogue_rotation_turns_the_model(folder: Path) -> None:
    mesh = load_model(read_catalog(folder)[2], folder, 0.01)  # x' = z: the model's front (+z) goes to +x, our +y
    green = [place for place, color in enumerate(mesh.colors) if color[1] == 1][0]
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
