"""Bodies for a printer: closed forms of volume, walls and base; what is not one body is refused or made anew."""

import math

import numpy as np
import pytest
import torch
import trimesh

pytest.importorskip("manifold3d")

from dreampolish.assets.solids.printing import Body, Kind, PrintError, body_of_mesh, certificate, told, walls, written


def parts_of(*meshes: trimesh.Trimesh) -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.util.concatenate(list(meshes))
    return torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces)


def solid(body: Body) -> trimesh.Trimesh:
    return trimesh.Trimesh(body.vertices, body.faces, process=False)


@pytest.mark.parametrize("kind", ["stl", "3mf"])
def test_a_box_is_printed_at_its_size_and_certified(kind: Kind) -> None:
    if kind == "3mf":
        pytest.importorskip("lxml")
    body = body_of_mesh(*parts_of(trimesh.creation.box((0.2, 0.1, 0.4))), longest_side_mm=80.0, flat_base_mm=0.0)
    found = certificate(written(body, kind, "box"), kind, body, 0.8)
    assert found.box_mm == (40.0, 20.0, 80.0)
    assert found.volume_cm3 == pytest.approx(64.0, rel=1e-5)
    assert found.base_mm2 == pytest.approx(800.0, rel=1e-5)
    assert found.thinnest_mm == pytest.approx(20.0, rel=1e-3)
    assert (found.sound, found.bodies, found.remade, found.thin_share) == (True, 1, False, 0.0)
    assert solid(body).bounds[0].tolist() == pytest.approx([-20, -10, 0])


def test_overlapping_parts_become_one_body_and_cavities_solid() -> None:
    box, other = trimesh.creation.box((1, 1, 1)), trimesh.creation.box((1, 1, 1))
    other.apply_translation([0.5, 0, 0])
    cavity = trimesh.creation.box((0.2, 0.2, 0.2))
    cavity.invert()
    body = body_of_mesh(*parts_of(box, other, cavity), longest_side_mm=15.0, flat_base_mm=0.0)
    assert solid(body).is_volume
    assert solid(body).volume == pytest.approx(15 * 10 * 10, rel=1e-4)


def test_an_open_mesh_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreampolish.assets.solids.printing.RESOLUTION", 64)
    ball = trimesh.creation.icosphere(subdivisions=4)
    vertices, faces = parts_of(ball)
    lidless = faces[vertices[faces].mean(1)[:, 2] < 0.95]
    body = body_of_mesh(vertices, lidless, longest_side_mm=100.0, flat_base_mm=0.0)
    assert body.remade and solid(body).is_volume
    assert solid(body).volume == pytest.approx(4 / 3 * math.pi * 50**3, rel=0.03)
    found = certificate(written(body, "stl", "ball"), "stl", body, 0.8)
    assert found.sound and any("made anew" in line for line in told(found))


def test_a_flat_base_is_cut() -> None:
    body = body_of_mesh(*parts_of(trimesh.creation.icosphere(subdivisions=4)), longest_side_mm=100.0, flat_base_mm=5.0)
    found = certificate(written(body, "stl", "ball"), "stl", body, 0.8)
    assert found.base_mm2 == pytest.approx(math.pi * (50**2 - 45**2), rel=0.03)
    assert found.box_mm[2] == pytest.approx(95.0, rel=1e-2)


def test_bodies_apart_are_refused_and_crumbs_dropped() -> None:
    box = trimesh.creation.box((1, 1, 1))
    other = trimesh.creation.box((1, 1, 1), transform=trimesh.transformations.translation_matrix([3, 0, 0]))
    with pytest.raises(PrintError, match=r"2 bodies that do not touch \(50%, 50%"):
        body_of_mesh(*parts_of(box, other), longest_side_mm=50.0, flat_base_mm=0.0)
    crumb = trimesh.creation.box((0.05, 0.05, 0.05), transform=trimesh.transformations.translation_matrix([0.9, 0, 0]))
    body = body_of_mesh(*parts_of(box, crumb), longest_side_mm=50.0, flat_base_mm=0.0)
    assert body.dropped == 1
    assert solid(body).extents == pytest.approx([50.0, 50.0, 50.0])


def test_nothing_to_print_is_refused() -> None:
    with pytest.raises(PrintError, match="nothing is left"):
        body_of_mesh(*parts_of(trimesh.creation.box((1, 1, 1))), longest_side_mm=10.0, flat_base_mm=20.0)


def test_the_thinnest_wall_of_a_tube_is_its_wall() -> None:
    tube = trimesh.creation.annulus(r_min=9.0, r_max=10.0, height=30.0, sections=64)
    thinnest, share = walls(tube, 2.0)
    assert thinnest == pytest.approx(1.0, abs=0.06)
    round_area = 2 * math.pi * (9 + 10) * 30
    assert share == pytest.approx(round_area / (round_area + 2 * math.pi * (10**2 - 9**2)), abs=0.02)
    assert walls(tube, 0.5)[1] == 0
    assert np.isfinite(walls(trimesh.creation.cone(5.0, 10.0), 0.5)).all()
