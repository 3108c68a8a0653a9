"""The rasteriser against ray casting, closed forms and finite differences."""

import math

import pytest
import torch
import trimesh
from torch import Tensor

from dreampolish.mesh.topology import face_adjacency
from dreampolish.renderers.antialias import antialias
from dreampolish.renderers.embree import embree_scene, rasterize_frozen
from dreampolish.renderers.mesh import MeshRender, coverage, render_mesh
from dreampolish.renderers.rasterizer import interpolate, rasterize
from dreampolish.scene.cameras import Cameras, distance_from_fov, orbit_cameras, rays_from_cameras, turntable_cameras


def _sphere(subdivisions: int, radius: float, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return torch.tensor(mesh.vertices, dtype=dtype), torch.tensor(mesh.faces, dtype=torch.int64)


def _torus() -> tuple[Tensor, Tensor]:
    mesh = trimesh.creation.torus(0.4, 0.15, major_sections=60, minor_sections=30)
    return torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces, dtype=torch.int64)


def _front(size: int, fov: float, dtype: torch.dtype) -> Cameras:
    zero = torch.zeros(1, dtype=dtype)
    return orbit_cameras(zero, zero, zero + fov, size)


def _front_quad(half: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A square in the plane x = 0 that faces the front camera, counter-clockwise seen from +x."""
    corners = torch.tensor([[0, -half, -half], [0, half, -half], [0, half, half], [0, -half, half]], dtype=dtype)
    return corners, torch.tensor([[0, 1, 2], [0, 2, 3]])


def _silhouette_radius(radius: float, cameras: Cameras) -> float:
    """Pixels, of a sphere at the origin: its tangent cone cut by the picture's plane."""
    half_angle = math.asin(radius / float(distance_from_fov(cameras.fov_deg)[0]))
    return math.tan(half_angle) / math.tan(math.radians(float(cameras.fov_deg[0])) / 2) * cameras.size / 2


@pytest.mark.parametrize("cull", [True, False])
def test_faces_and_depth_equal_ray_casting(cull: bool) -> None:
    vertices, faces = _torus()
    cameras = turntable_cameras(3, 25.0, 40.0, 96)
    ours = rasterize(vertices, faces, cameras, cull)
    embree = rasterize_frozen(vertices, faces, cameras, embree_scene(vertices, faces))
    assert ours.mask.float().mean() > 0.15
    assert (ours.face_index != embree.face_index).float().mean() < 2e-4
    same = ours.face_index == embree.face_index
    assert torch.allclose(ours.depth[same], embree.depth[same])
    # Where two faces meet, either may be named, but the depth agrees.
    both = ours.mask & embree.mask
    assert (ours.depth - embree.depth)[both].abs().max() < 1e-3


def test_points_lie_on_the_pixels_rays_at_the_depth() -> None:
    vertices, faces = _torus()
    cameras = turntable_cameras(2, 10.0, 60.0, 48)
    fragments = rasterize(vertices, faces, cameras, True)
    points = interpolate(fragments, faces, vertices)
    origins, directions = rays_from_cameras(cameras)
    axis = -cameras.world_from_camera[:, None, None, :3, 2]
    along = fragments.depth / (directions * axis).sum(-1)
    assert (points - origins - along[..., None] * directions)[fragments.mask].abs().max() < 1e-5


def test_two_triangles_leave_no_gap_and_the_nearer_wins() -> None:
    far, faces = _front_quad(0.4, torch.float32)
    near = far * 0.5 + torch.tensor([0.2, 0.0, 0.0])
    fragments = rasterize(torch.cat([far, near]), torch.cat([faces, faces + 4]), _front(64, 20.0, torch.float32), True)
    rows = fragments.mask[0].any(1)
    assert fragments.mask[0][rows][:, fragments.mask[0].any(0)].all()
    assert (fragments.face_index[0, 28:36, 28:36] >= 2).all()
    assert fragments.face_index[0, 32, 14] < 2


def test_back_faces_are_seen_only_without_culling_and_faces_behind_never() -> None:
    vertices, faces = _front_quad(0.4, torch.float32)
    cameras = _front(32, 20.0, torch.float32)
    turned = faces.flip(-1)
    assert not rasterize(vertices, turned, cameras, True).mask.any()
    assert rasterize(vertices, turned, cameras, False).mask.any()
    assert not rasterize(vertices + torch.tensor([10.0, 0, 0]), faces, cameras, False).mask.any()


def test_depth_and_attributes_have_the_finite_differences_gradient() -> None:
    vertices, faces = _sphere(1, 0.5, torch.float64)
    cameras = _front(12, 50.0, torch.float64)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(1, 12, 12, 4, generator=generator, dtype=torch.float64)
    attributes = torch.randn(len(vertices), 3, generator=generator, dtype=torch.float64)

    def measured(moved: Tensor) -> Tensor:
        fragments = rasterize(moved, faces, cameras, True)
        seen = torch.cat([interpolate(fragments, faces, attributes), fragments.depth[..., None]], dim=-1)
        return (seen * weights).sum()

    leaf = vertices.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(measured(leaf), leaf)
    step, checked = 1e-7, 0
    for index in torch.randperm(vertices.numel(), generator=generator)[:40].tolist():
        change = torch.zeros(vertices.numel(), dtype=torch.float64)
        change[index] = step
        change = change.reshape(-1, 3)
        ids = [rasterize(vertices + s * change, faces, cameras, True).face_index for s in (1, -1)]
        if torch.equal(ids[0], ids[1]):
            slope = (measured(vertices + change) - measured(vertices - change)) / (2 * step)
            assert abs(slope - gradient.reshape(-1)[index]) < 1e-5 * max(1.0, abs(float(slope)))
            checked += 1
    assert checked > 30


@pytest.mark.parametrize(("subdivisions", "size"), [(3, 96), (5, 48)])
def test_coverage_of_a_sphere_and_its_gradient_have_the_closed_form(subdivisions: int, size: int) -> None:
    vertices, faces = _sphere(subdivisions, 0.5)
    cameras = _front(size, 30.0, torch.float32)
    scale = torch.tensor(1.0, requires_grad=True)
    moved = vertices * scale
    total = coverage(rasterize(moved, faces, cameras, True), moved, faces, cameras, face_adjacency(faces)).sum()
    area = math.pi * _silhouette_radius(0.5, cameras) ** 2
    slope = math.pi * (_silhouette_radius(0.501, cameras) ** 2 - _silhouette_radius(0.499, cameras) ** 2) / 0.004
    (gradient,) = torch.autograd.grad(total, scale)
    # The inscribed polyhedron is a little smaller than the sphere.
    assert total.item() == pytest.approx(area, rel=0.012)
    assert float(gradient) == pytest.approx(slope, rel=0.03)


@pytest.mark.parametrize("angle_deg", [0.0, 20.0, 45.0, 70.0])
def test_coverage_of_a_turned_quad_moves_with_its_scale(angle_deg: float) -> None:
    corners, faces = _front_quad(0.35, torch.float64)
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    turn = torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float64)
    cameras = _front(80, 20.0, torch.float64)
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    moved = corners @ turn.T * scale
    mask = coverage(rasterize(moved, faces, cameras, True), moved, faces, cameras, face_adjacency(faces))
    side = 0.7 / (2 * 0.670) * 80
    (gradient,) = torch.autograd.grad(mask.sum(), scale)
    assert mask.sum().item() == pytest.approx(side**2, rel=0.01)
    assert float(gradient) == pytest.approx(2 * side**2, rel=0.03)
    assert mask.min() >= 0
    assert mask.max() <= 1


def test_weighted_coverage_has_the_finite_differences_gradient() -> None:
    vertices, faces = _sphere(2, 0.45, torch.float64)
    cameras, adjacency = _front(24, 30.0, torch.float64), face_adjacency(faces)
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(1, 24, 24, generator=generator, dtype=torch.float64)

    def measured(shift: Tensor) -> Tensor:
        moved = vertices + shift
        return (coverage(rasterize(moved, faces, cameras, True), moved, faces, cameras, adjacency) * weights).sum()

    for axis in (1, 2):
        unit = torch.zeros(3, dtype=torch.float64)
        unit[axis] = 1
        shift = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(measured(shift), shift)
        slope = (measured(1e-6 * unit) - measured(-1e-6 * unit)) / 2e-6
        assert float(gradient[axis]) == pytest.approx(float(slope), rel=1e-4)


def test_silhouettes_in_front_of_other_surfaces_blend_and_inner_edges_do_not() -> None:
    far, faces = _front_quad(0.6, torch.float64)
    near = far * 0.5 + torch.tensor([0.1, 0.013, 0.007], dtype=torch.float64)
    vertices, both = torch.cat([far, near]), torch.cat([faces, faces + 4])
    cameras = _front(64, 20.0, torch.float64)
    fragments = rasterize(vertices, both, cameras, True)
    red_on_blue = torch.where(fragments.face_index[..., None] >= 2, torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).double()
    blended = antialias(red_on_blue, fragments, vertices, both, cameras, face_adjacency(both))
    inner = blended[0, 6:-6, 6:-6]
    assert torch.allclose(inner.sum(-1), torch.ones_like(inner[..., 0]))
    side = 0.6 / (1.34 / 64) * (3.8 / 3.7)
    assert float(inner[..., 0].sum()) == pytest.approx(side**2, rel=0.005)
    changed = (blended - red_on_blue)[0].abs().amax(-1) > 1e-9
    assert not changed[24:40, 24:40].any()


def test_render_mesh_shows_colours_normals_and_white_background() -> None:
    vertices, faces = _sphere(5, 0.5)
    cameras = turntable_cameras(2, 20.0, 20.0, 40)
    picture = render_mesh(vertices, faces, cameras, lambda points, normals: points + 0.5, 2, True, True, face_adjacency(faces))
    solid = picture.alpha == 1
    assert torch.equal(picture.rgb[0, 0, 0], torch.ones(3))
    assert (picture.rgb - picture.points_world - 0.5)[solid].abs().max() < 1e-4
    assert (picture.normals_world - picture.points_world / 0.5)[solid].abs().max() < 0.02
    assert picture.normals_camera[:, 20, 20, 2].min() > 0.99
    assert picture.depth[0, 20, 20] == pytest.approx(3.8 - 0.5, abs=2e-3)
    assert (picture.normals_world[picture.alpha == 0] == 0).all()


def _small_ball_before_a_large_one() -> tuple[Tensor, Tensor]:
    large, faces = _sphere(2, 0.45, torch.float64)
    small = 0.4 * large + torch.tensor([0.6, 0.05, 0.07], dtype=torch.float64)
    return torch.cat([large, small]), torch.cat([faces, faces + len(large)])


def _patterned(points: Tensor, normals: Tensor) -> Tensor:
    return torch.sigmoid(5 * points + 2 * normals.flip(-1))


@pytest.mark.parametrize(("supersample", "smooth", "carried"), [(1, True, False), (1, False, False), (2, True, True)])
def test_every_rendered_pixel_has_the_finite_differences_gradient(supersample: int, smooth: bool, carried: bool) -> None:
    vertices, faces = _small_ball_before_a_large_one()
    cameras, adjacency = _front(20, 30.0, torch.float64), face_adjacency(faces)
    way = torch.randn(vertices.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def rendered(step: Tensor) -> MeshRender:
        painted_at = vertices - step * way.flip(0) if carried else None
        return render_mesh(vertices + step * way, faces, cameras, _patterned, supersample, smooth, True, adjacency, painted_at)

    def pictures(step: Tensor) -> Tensor:
        seen = rendered(step)
        rest = [seen.alpha[..., None], seen.depth[..., None]]
        return torch.cat([seen.rgb, seen.normals_world, seen.normals_camera, seen.points_world, *rest], dim=-1)

    still, step = torch.zeros((), dtype=torch.float64), 1e-7
    before, now, after = (rendered(still + s) for s in (-step, 0, step))
    assert torch.equal(before.fragments.face_index, after.fragments.face_index)
    _, slopes = torch.autograd.functional.jvp(pictures, still, torch.ones_like(still))
    differences = (pictures(still + step) - pictures(still - step)) / (2 * step)
    torch.testing.assert_close(slopes, differences, rtol=1e-5, atol=1e-6)
    edge = (now.alpha > 0) & (now.alpha < 1)
    for place in (edge, now.alpha == 1):
        assert int((slopes[place][:, :3].abs().amax(-1) > 0.1).sum()) > 20  # the colours really change there
    assert int((slopes[edge][:, -2].abs() > 0.1).sum()) > 20


@pytest.mark.parametrize("supersample", [1, 2])
def test_blended_colours_have_the_finite_differences_gradient_in_the_fields_output(supersample: int) -> None:
    vertices, faces = _small_ball_before_a_large_one()
    cameras, adjacency = _front(12, 30.0, torch.float64), face_adjacency(faces)
    covered = int(rasterize(vertices, faces, cameras.at_size(12 * supersample), True).mask.sum())
    colors = torch.rand(covered, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def pictures(said: Tensor) -> Tensor:
        return render_mesh(vertices, faces, cameras, lambda points, normals: said, supersample, True, True, adjacency).rgb

    assert torch.autograd.gradcheck(pictures, (colors.requires_grad_(),), fast_mode=True)


def test_only_covered_pixels_are_coloured() -> None:
    vertices, faces = _sphere(3, 0.3)
    seen: list[int] = []

    def color_of(points: Tensor, normals: Tensor) -> Tensor:
        seen.append(len(points))
        return torch.zeros_like(points)

    picture = render_mesh(vertices, faces, _front(32, 20.0, torch.float32), color_of, 1, False, True, face_adjacency(faces))
    assert seen == [int(picture.fragments.mask.sum())]


def test_hidden_silhouettes_do_not_blend() -> None:
    """A tilted fine sheet hides a quad's edges: between the sheet's own faces nothing may be mixed."""
    grid = torch.linspace(-0.62, 0.62, 41, dtype=torch.float64)
    across, up = torch.meshgrid(grid, grid, indexing="ij")
    sheet = torch.stack([0.4 + 0.3 * across + 0.2 * up, across, up], dim=-1).reshape(-1, 3)
    corner = (torch.arange(40)[:, None] * 41 + torch.arange(40)).reshape(-1)
    sheet_faces = torch.cat(
        [torch.stack([corner, corner + 41, corner + 42], -1), torch.stack([corner, corner + 42, corner + 1], -1)]
    )
    quad, quad_faces = _front_quad(0.31, torch.float64)
    vertices = torch.cat([sheet, quad + torch.tensor([-0.3, 0.01, 0.01], dtype=torch.float64)])
    faces = torch.cat([sheet_faces, quad_faces + len(sheet)])
    cameras = _front(48, 20.0, torch.float64)
    fragments = rasterize(vertices, faces, cameras, False)
    colors = torch.rand(1, 48, 48, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blended = antialias(colors, fragments, vertices, faces, cameras, face_adjacency(faces))
    assert fragments.mask[0, 10:38, 10:38].all()
    assert torch.equal(blended[0, 10:38, 10:38], colors[0, 10:38, 10:38])


def test_faces_without_area_are_not_seen() -> None:
    vertices = torch.tensor([[0.0, -0.4, 0.0], [0.0, 0.4, 0.0], [0.0, 0.1, 0.0]], requires_grad=True)
    fragments = rasterize(vertices, torch.tensor([[0, 1, 2]]), _front(5, 20.0, torch.float32), False)
    assert not fragments.mask.any()
