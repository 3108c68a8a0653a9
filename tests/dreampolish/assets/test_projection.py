"""Baking from a dense mesh onto a decimated one: projection, the normal map's orientation, the atlas's gutters."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from dreampolish.assets.asset import Asset
from dreampolish.assets.bake import bake, bake_normal_map, texels_of
from dreampolish.assets.projection import FineSurface
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.assets.unwrap import Unwrapped, unwrap
from dreampolish.assets.writing.glb import write_glb
from dreampolish.mesh.decimate import decimated
from dreampolish.mesh.tangents import tangents_from_uv
from dreampolish.mesh.topology import component_of_face, face_adjacency
from dreampolish.metrics.pictures import psnr
from dreampolish.renderers.mesh import render_mesh
from dreampolish.scene.cameras import turntable_cameras
from flows.benchmark.assets.browser import browser_path, render_in_browser


def _bumpy_ball() -> tuple[Tensor, Tensor]:
    """A ball of radius 0.5 with shallow bumps that a thousand triangles cannot hold."""
    ball = trimesh.creation.icosphere(subdivisions=5, radius=0.5)
    vertices = torch.tensor(ball.vertices, dtype=torch.float32)
    height = 0.006 * torch.sin(40 * vertices[:, 0]) * torch.sin(40 * vertices[:, 1]) * torch.sin(40 * vertices[:, 2])
    return vertices * (1 + 2 * height[:, None]), torch.tensor(ball.faces, dtype=torch.int64)


@pytest.fixture(scope="module")
def dense() -> tuple[Tensor, Tensor]:
    return _bumpy_ball()


@pytest.fixture(scope="module")
def coarse(dense: tuple[Tensor, Tensor]) -> Unwrapped:
    return unwrap(*decimated(*dense, 1000), 256, 4)


def test_points_beside_a_ball_land_on_it_and_far_ones_stay() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    fine = FineSurface(torch.tensor(ball.vertices, dtype=torch.float32), torch.tensor(ball.faces))
    normals = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    for radius in (0.47, 0.5, 0.53):
        places, found = fine.project(normals * radius, normals, 0.05)
        assert (places.norm(dim=-1) - 0.5).abs().max() < 2e-3
        assert (found * normals).sum(-1).min() > math.cos(math.radians(2))
    places, found = fine.project(normals * 0.7, normals, 0.05)
    assert torch.equal(places, normals * 0.7)
    assert torch.equal(found, normals)
    # A surface that faces the other way is none to land on.
    assert torch.equal(fine.project(normals * 0.49, -normals, 0.05)[0], normals * 0.49)


def gutter(mesh: Unwrapped, covered_face: Tensor) -> float:
    """The least number of empty texels in a row between two charts of a texture; infinite for a single chart.

    covered_face: the face under each texel's centre, -1 where none. Measured to about one texel.
    """
    chart = component_of_face(mesh.faces)
    label = torch.where(covered_face >= 0, chart[covered_face.clamp(min=0)], -1).cpu().numpy()
    distance, nearest = distance_transform_edt(label < 0, return_indices=True)
    owner = label[nearest[0], nearest[1]]
    gaps = [np.inf]
    for axis in (0, 1):
        one, other = (np.take(owner, range(start, owner.shape[axis] - 1 + start), axis) for start in (0, 1))
        near, far = (np.take(distance, range(start, owner.shape[axis] - 1 + start), axis) for start in (0, 1))
        gaps.append((near + far - 1)[one != other].min(initial=np.inf))
    return max(float(min(gaps)), 0.0)


@pytest.mark.parametrize(("size", "padding"), [(128, 2), (256, 4), (256, 8)])
def test_charts_keep_the_gutter_that_was_asked_for(dense: tuple[Tensor, Tensor], size: int, padding: int) -> None:
    cut = unwrap(*decimated(*dense, 400), size, padding)
    bare = texels_of(cut, size, 0)
    covered_face = torch.full((size, size), -1)
    covered_face[bare.row, bare.column] = bare.face
    assert gutter(cut, covered_face) >= padding
    # Texels are square: lengths on the surface and in the atlas have one ratio in both axes.
    corner, place = cut.vertices[cut.faces], cut.uv[cut.faces]
    area = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]).norm(dim=-1)
    edge = place[:, 1:] - place[:, :1]
    in_atlas = (edge[:, 0, 0] * edge[:, 1, 1] - edge[:, 0, 1] * edge[:, 1, 0]).abs()
    ratio = (in_atlas / area).sqrt()
    assert ratio.quantile(0.95) / ratio.quantile(0.05) < 1.6


def _baked(dense: tuple[Tensor, Tensor], coarse: Unwrapped) -> Asset:
    fine, texels = FineSurface(*dense), texels_of(coarse, 256, 4)
    tangents = tangents_from_uv(coarse.vertices, coarse.normals, coarse.uv, coarse.faces)
    normal_map = bake_normal_map(lambda p, n: fine.project(p, n, 0.03)[1], coarse, texels, tangents)
    grey = bake(lambda points, normals: torch.full_like(points, 0.5), coarse, texels)
    mesh = TexturedMesh(
        coarse.vertices, coarse.normals, coarse.uv, coarse.faces, (grey,), torch.zeros(len(coarse.faces), dtype=torch.int64)
    )
    return Asset(mesh, coarse.source, normal_map, 0.9, 0.0, "ball", {})


def test_the_normal_map_holds_the_dense_normals(dense: tuple[Tensor, Tensor], coarse: Unwrapped) -> None:
    asset = _baked(dense, coarse)
    assert asset.normal_map is not None
    texels = texels_of(coarse, 256, 0)
    local = asset.normal_map[texels.row, texels.column] * 2 - 1
    normal = torch.nn.functional.normalize(texels.interpolate(coarse.faces, coarse.normals), dim=-1)
    tangents = tangents_from_uv(coarse.vertices, coarse.normals, coarse.uv, coarse.faces)
    side = texels.interpolate(coarse.faces, tangents)
    along = torch.nn.functional.normalize(side[:, :3] - (side[:, :3] * normal).sum(-1, keepdim=True) * normal, dim=-1)
    decoded = local[:, :1] * along + local[:, 1:2] * torch.linalg.cross(normal, along) * side[:, 3:] + local[:, 2:] * normal
    points = texels.interpolate(coarse.faces, coarse.vertices)
    truth = FineSurface(*dense).project(points, normal, 0.03)[1]

    def median_angle(found: Tensor) -> float:
        return math.degrees(float((found * truth).sum(-1).clamp(-1, 1).acos().median()))

    assert median_angle(decoded) < 0.5
    assert median_angle(normal) > 3  # what the map is there for


@pytest.mark.skipif(browser_path() is None, reason="needs Chromium")
def test_another_renderer_sees_the_dense_normals_and_the_colours(
    dense: tuple[Tensor, Tensor], coarse: Unwrapped, tmp_path: Path
) -> None:
    asset, path, cameras = _baked(dense, coarse), tmp_path / "ball.glb", turntable_cameras(4, 15.0, 20.0, 96)
    truth = render_mesh(*dense, cameras, lambda p, n: torch.full_like(p, 0.5), 4, True, True, face_adjacency(dense[1]))
    inside = (truth.alpha > 0.999)[..., None]
    wanted = torch.where(inside, (truth.normals_camera + 1) / 2, 1.0)
    agreement = {}
    for name, normal_map in (("mapped", asset.normal_map), ("plain", None)):
        write_glb(path, Asset(asset.mesh, asset.source, normal_map, 0.9, 0.0, "ball", {}), None)
        shown, complaints = render_in_browser(path, cameras, 1.0, "normals")
        assert complaints == []
        agreement[name] = float(psnr(torch.where(inside, shown, 1.0), wanted).mean())
    assert agreement["mapped"] > agreement["plain"] + 6
    assert agreement["mapped"] > 32
    colors = render_in_browser(path, cameras, 1.0, "colors")[0]
    assert psnr(colors, truth.rgb).min() > 32
