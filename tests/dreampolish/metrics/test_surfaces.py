"""Surface metrics against brute force and closed forms."""

import math

import pytest
import torch
import trimesh
from torch import Tensor

from dreampolish.metrics.surfaces import (
    SurfaceSamples,
    roughness_deg,
    sample_surface,
    seen_from,
    surface_distance,
)


def _sphere(radius: float) -> tuple[Tensor, Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    return torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces, dtype=torch.int64)


def test_samples_lie_on_the_surface_uniformly_by_area() -> None:
    box = trimesh.creation.box(extents=(1.0, 2.0, 3.0))
    vertices, faces = torch.tensor(box.vertices, dtype=torch.float32), torch.tensor(box.faces, dtype=torch.int64)
    samples = sample_surface(vertices, faces, 20_000, torch.Generator().manual_seed(1))
    wall = (samples.points.abs() - torch.tensor([0.5, 1.0, 1.5])).abs() < 1e-5
    assert wall.any(-1).all()
    shares = wall.double().mean(0)
    assert shares.tolist() == pytest.approx([6 / 11, 3 / 11, 2 / 11], abs=2e-3)
    assert samples.points.mean(0).abs().max() < 0.02
    upward = samples.points[:, 2] > 1.49999
    assert torch.allclose(samples.normals[upward], torch.tensor([0.0, 0, 1]))


def test_same_generator_same_points_and_no_area_is_refused() -> None:
    vertices, faces = _sphere(0.5)
    first, second = (sample_surface(vertices, faces, 50, torch.Generator().manual_seed(3)).points for _ in range(2))
    assert torch.equal(first, second)
    with pytest.raises(ValueError, match="without area"):
        sample_surface(vertices * 0, faces, 50, torch.Generator())


def test_chamfer_and_f_score_equal_brute_force() -> None:
    generator = torch.Generator().manual_seed(2)
    first, second = torch.rand(300, 3, generator=generator), torch.rand(200, 3, generator=generator)
    table, share = torch.cdist(first, second), 0.08 / float((second.amax(0) - second.amin(0)).norm())
    found = surface_distance(SurfaceSamples(first, first), SurfaceSamples(second, second), share)
    assert found.chamfer == pytest.approx((table.amin(1).mean() + table.amin(0).mean()).item() / 2, rel=1e-5)
    precision, recall = (table.amin(1) <= 0.08).double().mean().item(), (table.amin(0) <= 0.08).double().mean().item()
    assert 0.1 < precision < 0.9
    assert found.f_score == pytest.approx(2 * precision * recall / (precision + recall))
    assert (found.precision, found.recall) == pytest.approx((precision, recall))


def test_concentric_spheres_have_their_closed_forms() -> None:
    small, large = (sample_surface(*_sphere(r), 20_000, torch.Generator().manual_seed(4)) for r in (0.5, 0.55))
    apart = surface_distance(small, large, 0.02)
    assert apart.chamfer == pytest.approx(0.05, rel=0.02)
    assert apart.threshold == pytest.approx(0.02 * 1.1 * math.sqrt(3), rel=0.01)
    assert apart.f_score == 0
    assert surface_distance(small, large, 0.04).f_score == 1


def test_half_a_sphere_has_full_precision_and_half_the_recall() -> None:
    vertices, faces = _sphere(0.5)
    upper = faces[(vertices[faces][:, :, 2].mean(1) > 0)]
    true = sample_surface(vertices, faces, 20_000, torch.Generator().manual_seed(5))
    half = surface_distance(sample_surface(vertices, upper, 20_000, torch.Generator().manual_seed(6)), true, 0.02)
    assert half.precision > 0.999
    # A strip of the threshold's height beyond the rim is still near: its area share is threshold / (2 r).
    assert half.recall == pytest.approx(0.5 + half.threshold, abs=0.01)


def test_what_lies_inside_or_behind_is_not_seen() -> None:
    outer, inner = _sphere(0.5), _sphere(0.3)
    vertices = torch.cat([outer[0], inner[0]])
    faces = torch.cat([outer[1], inner[1] + len(outer[0])])
    samples = sample_surface(vertices, faces, 5000, torch.Generator().manual_seed(7))
    outside = samples.points.norm(dim=-1) > 0.4
    eye = torch.tensor([[3.0, 0.0, 0.0]])
    seen = seen_from(samples.points, vertices, faces, eye)
    # An eye at distance d sees the cap x > r^2 / d of a sphere of radius r.
    cap = outside & (samples.points[:, 0] > 0.25 / 3)
    assert float((seen == cap).double().mean()) > 0.98
    around = torch.cat([eye, -eye, eye.roll(1, 1), -eye.roll(1, 1), eye.roll(2, 1), -eye.roll(2, 1)])
    everything = seen_from(samples.points, vertices, faces, around)
    assert not bool(everything[~outside].any())
    assert float(everything[outside].double().mean()) > 0.98
    assert len(samples.only(everything).points) == int(everything.sum())
    # Eyes that come after everything has been seen have nothing to do.
    again = seen_from(samples.points[outside], *outer, around.repeat(2, 1))
    assert float(again.double().mean()) > 0.98


def test_the_far_side_of_a_thin_wall_is_hidden() -> None:
    square = torch.tensor([[0.0, -1, -1], [0, 1, -1], [0, 1, 1], [0, -1, 1]])
    vertices = torch.cat([square, square - torch.tensor([0.001, 0, 0])])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 6, 5], [4, 7, 6]])
    points = torch.tensor([[0.0, 0.2, 0.1], [-0.001, 0.2, 0.1]])
    assert seen_from(points, vertices, faces, torch.tensor([[3.0, 0.0, 0.0]])).tolist() == [True, False]


def test_roughness_is_none_on_a_plane_and_half_the_fold_of_a_pleated_one() -> None:
    generator = torch.Generator().manual_seed(5)
    points = torch.cat([torch.rand(20_000, 2, generator=generator), torch.zeros(20_000, 1)], dim=1)
    flat = SurfaceSamples(points, torch.tensor([0.0, 0, 1]).expand(20_000, 3))
    assert roughness_deg(flat, 0.02) < 1e-3
    slope = torch.where((points[:, 0] / 0.002).floor() % 2 == 0, 1.0, -1.0) * math.sin(math.radians(20))
    pleated = torch.stack([slope, torch.zeros(20_000), torch.full((20_000,), math.cos(math.radians(20)))], dim=1)
    # Pleats far narrower than the reach cancel out: what is left is each normal's own angle to the plane.
    assert roughness_deg(SurfaceSamples(points, pleated), 0.02) == pytest.approx(20, abs=2.5)


def test_the_two_sides_of_a_thin_sheet_do_not_roughen_each_other() -> None:
    points = torch.rand(5000, 3, generator=torch.Generator().manual_seed(6)) * torch.tensor([1.0, 1.0, 0.0])
    sides = torch.where(torch.arange(5000) % 2 == 0, 1.0, -1.0)
    sheet = SurfaceSamples(points, torch.stack([torch.zeros(5000), torch.zeros(5000), sides], dim=1))
    assert roughness_deg(sheet, 0.02) < 1e-3
    with pytest.raises(ValueError, match="no points"):
        roughness_deg(sheet.only(torch.zeros(5000, dtype=torch.bool)), 0.02)
