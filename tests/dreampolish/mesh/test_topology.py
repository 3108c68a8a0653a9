"""Topology, normals, smoothness terms against closed forms and trimesh."""

import math

import pytest
import torch
import trimesh
from torch import Tensor

from dreampolish.mesh import topology as mesh_topology


def _tensors(mesh: trimesh.Trimesh) -> tuple[Tensor, Tensor]:
    return torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces, dtype=torch.int64)


def test_counts_of_sphere_torus_and_open_surface() -> None:
    _, sphere = _tensors(trimesh.creation.icosphere(subdivisions=2))
    figures = mesh_topology.topology(sphere)
    assert (figures.euler, figures.n_components, figures.watertight) == (2, 1, True)
    _, torus = _tensors(trimesh.creation.torus(1.0, 0.3))
    assert mesh_topology.topology(torus).euler == 0
    both = mesh_topology.topology(torch.cat([sphere, torus + int(sphere.max()) + 1]))
    assert (both.n_components, both.euler) == (2, 2)
    opened = mesh_topology.topology(sphere[1:])
    assert (opened.n_border_edges, opened.watertight, opened.euler) == (3, False, 1)


def test_components_are_numbered_by_their_first_vertex() -> None:
    faces = torch.tensor([[7, 8, 9], [0, 1, 2], [2, 3, 4], [9, 10, 11]])
    assert mesh_topology.component_of_face(faces).tolist() == [1, 0, 0, 1]
    assert mesh_topology.component_of_face(torch.zeros(0, 3, dtype=torch.int64)).tolist() == []


def test_nonmanifold_edges_are_counted_and_have_no_neighbour() -> None:
    fan = torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]])
    figures = mesh_topology.topology(fan)
    assert (figures.n_nonmanifold_edges, figures.n_border_edges, figures.watertight) == (1, 6, False)
    assert (mesh_topology.face_adjacency(fan) == -1).all()


def test_adjacency_equals_trimesh() -> None:
    mesh = trimesh.creation.torus(1.0, 0.3)
    _, faces = _tensors(mesh)
    adjacency = mesh_topology.face_adjacency(faces)
    ours = {tuple(sorted((face, int(n)))) for face, row in enumerate(adjacency) for n in row}
    assert ours == {tuple(sorted(pair)) for pair in mesh.face_adjacency.tolist()}
    shared = [set(faces[0].tolist()) & set(faces[int(adjacency[0, i])].tolist()) for i in range(3)]
    assert all(int(faces[0, i]) not in shared[i] and len(shared[i]) == 2 for i in range(3))


def test_crumbs_go_and_the_rest_stays_as_it_was() -> None:
    big, small = trimesh.creation.icosphere(subdivisions=2), trimesh.creation.icosphere(subdivisions=1, radius=0.05)
    small.apply_translation([3, 0, 0])
    vertices, faces = _tensors(trimesh.util.concatenate([small, big]))
    kept_vertices, kept_faces = mesh_topology.without_crumbs(vertices, faces, 0.01)
    assert torch.equal(kept_vertices[kept_faces], vertices[faces[len(small.faces) :]])
    assert len(kept_vertices) == len(big.vertices)
    assert len(mesh_topology.without_crumbs(vertices, faces, 0.001)[1]) == len(faces)


def test_welding_closes_a_triangle_soup() -> None:
    vertices, faces = _tensors(trimesh.creation.icosphere(subdivisions=2))
    soup = vertices[faces].reshape(-1, 3)
    welded_vertices, welded_faces = mesh_topology.welded(soup, torch.arange(len(soup)).reshape(-1, 3), 1e-5)
    assert len(welded_vertices) == len(vertices)
    assert mesh_topology.topology(welded_faces).watertight


def test_normals_and_areas_have_closed_forms() -> None:
    vertices, faces = _tensors(trimesh.creation.icosphere(subdivisions=4, radius=0.5))
    assert (mesh_topology.vertex_normals(vertices, faces) - vertices / 0.5).norm(dim=-1).max() < 0.02
    centroids = vertices[faces].mean(1)
    assert (mesh_topology.face_normals(vertices, faces) * centroids).sum(-1).min() > 0
    assert mesh_topology.face_areas(vertices, faces).sum().item() == pytest.approx(math.pi, rel=0.005)
    flat = torch.zeros(3, 3, requires_grad=True)
    mesh_topology.vertex_normals(flat, torch.tensor([[0, 1, 2]])).sum().backward()
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()


def test_normal_consistency_is_zero_on_a_plane_and_closed_form_on_a_hinge() -> None:
    faces = torch.tensor([[0, 1, 2], [1, 0, 3]])
    adjacency = mesh_topology.face_adjacency(faces)
    for angle in (0.0, 0.7, 2.0):
        vertices = torch.tensor([[0, 0, 0], [0, 1, 0], [-1, 0.5, 0], [math.cos(angle), 0.5, math.sin(angle)]])
        loss = mesh_topology.normal_consistency_loss(vertices, faces, adjacency)
        assert loss.item() == pytest.approx(1 - math.cos(angle), abs=1e-6)


def test_normal_variation_grows_with_the_turn_and_not_with_its_square() -> None:
    faces = torch.tensor([[0, 1, 2], [1, 0, 3]])
    adjacency = mesh_topology.face_adjacency(faces)
    found = {}
    for angle in (0.0, 0.7, 1.4):
        vertices = torch.tensor([[0, 0, 0], [0, 1, 0], [-1, 0.5, 0], [math.cos(angle), 0.5, math.sin(angle)]])
        found[angle] = mesh_topology.normal_variation_loss(vertices, faces, adjacency).item()
        expected = math.hypot(2 * math.sin(angle / 2), 0.1) - 0.1
        assert found[angle] == pytest.approx(expected, abs=1e-6)
    assert found[1.4] < 2.1 * found[0.7], "one sharp edge costs about as much as two of half its turn"
    assert mesh_topology.normal_variation_loss(vertices, faces[:1], adjacency[:1].clamp(max=-1)).item() == 0


@pytest.mark.parametrize("term", ["consistency", "variation", "laplacian", "vertex_normals"])
def test_gradients_equal_finite_differences(term: str) -> None:
    start, faces = _tensors(trimesh.creation.icosphere(subdivisions=1))
    generator = torch.Generator().manual_seed(0)
    vertices = start.double() + 0.05 * torch.randn(start.shape, generator=generator, dtype=torch.float64)
    adjacency = mesh_topology.face_adjacency(faces)

    def measured(moved: Tensor) -> Tensor:
        match term:
            case "consistency":
                return mesh_topology.normal_consistency_loss(moved, faces, adjacency)
            case "variation":
                return mesh_topology.normal_variation_loss(moved, faces, adjacency)
            case "laplacian":
                return mesh_topology.laplacian_loss(moved, faces)
            case _:
                return mesh_topology.vertex_normals(moved, faces).sin().sum()

    assert torch.autograd.gradcheck(measured, vertices.requires_grad_())


def test_laplacian_has_its_closed_form_on_an_icosahedron_and_a_flat_ring() -> None:
    vertices, faces = _tensors(trimesh.creation.icosphere(subdivisions=0, radius=2.0))
    # An icosahedron vertex: its five neighbours' mean lies at height 1 / sqrt(5) of the radius.
    expected = (2 * (1 - 1 / math.sqrt(5))) ** 2
    assert mesh_topology.laplacian_loss(vertices, faces).item() == pytest.approx(expected, rel=1e-5)
    ring = torch.tensor([[math.cos(k * math.pi / 3), math.sin(k * math.pi / 3), 0] for k in range(6)] + [[0.0, 0, 0]])
    fan = torch.tensor([[k, (k + 1) % 6, 6] for k in range(6)])
    # On the border the two spokes count double: offset 1 - 2 cos 60 deg / 4 for six of seven vertices, none for the middle.
    assert mesh_topology.laplacian_loss(ring, fan).item() == pytest.approx(0.75**2 * 6 / 7, rel=1e-5)
