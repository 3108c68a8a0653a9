"""What polishing holds on to."""

import torch
import trimesh
from torch import Tensor

from dreampolish.cameras import turntable_cameras
from stages.meshes import Mesh, mesh_from_parts
from stages.polish import silhouette_change

CAMERAS = turntable_cameras(3, 15.0, 20.0, 48)


def ball() -> Mesh:
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=0.4)
    return mesh_from_parts(torch.tensor(sphere.vertices).float(), torch.tensor(sphere.faces))


def alpha_of(mesh: Mesh) -> Tensor:
    return mesh.render(CAMERAS, lambda points, normals: torch.zeros_like(points), 1, True).alpha


def test_a_silhouette_is_the_renders_mask() -> None:
    mesh = ball()
    assert torch.equal(mesh.silhouette(CAMERAS), alpha_of(mesh))


def test_a_mesh_that_shrank_is_pulled_back_and_one_that_swelled_too() -> None:
    start = ball()
    assert float(silhouette_change(alpha_of(start), start, CAMERAS)) == 0
    for scale in (0.95, 1.05):
        size = torch.tensor(scale, requires_grad=True)
        loss = silhouette_change(alpha_of(start.moved(start.vertices * size)), start, CAMERAS)
        assert float(loss) > 0
        (pull,) = torch.autograd.grad(loss, size)
        assert (float(pull) < 0) == (scale < 1)
