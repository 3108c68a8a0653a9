"""Distances to a mesh, and on which side a point lies by the mesh's winding number. Twin in plain torch: `by_torch` in
`dreampolish/assets/solids/mesh_to_sdf.py`.

Source of the winding number on a tree: Barill et al., "Fast Winding Numbers for Soups and Clouds", 2018, as Warp has it.
"""

from typing import no_type_check

import torch
import warp as wp
from torch import Tensor

from dreampolish.kernels.runtime import MODULE, launch, prepare, wp_device

ACCURACY = 3.0
"""How many radii away a part of the mesh counts as one dipole; Warp's default is 2."""


@wp.kernel(module=MODULE, enable_backward=False)
@no_type_check
def _query(
    points: wp.array2d(dtype=wp.float32),
    mesh: wp.uint64,
    reach: wp.float32,
    accuracy: wp.float32,
    threshold: wp.float32,
    found: wp.array2d(dtype=wp.float32),
    faces: wp.array(dtype=wp.int64),
    first: wp.int32,
):
    """found (P, 4): nearest place and sign. faces (P): the face that it lies on, -1 where none is within reach."""
    _, index = wp.tid()
    point = wp.vec3(points[index, 0], points[index, 1], points[index, 2])
    nearest = wp.mesh_query_point_sign_winding_number(
        id=mesh, point=point, max_dist=reach, accuracy=accuracy, threshold=threshold
    )
    faces[index] = wp.int64(-1)
    found[index, 3] = nearest.sign
    if nearest.result:
        place = wp.mesh_eval_position(mesh, nearest.face, nearest.u, nearest.v)
        faces[index] = wp.int64(nearest.face)
        found[index, 0] = place[0]
        found[index, 1] = place[1]
        found[index, 2] = place[2]


class MeshDistance:
    """A mesh with its search tree. vertices (V, 3) float32, faces (F, 3), at least one."""

    def __init__(self, vertices: Tensor, faces: Tensor) -> None:
        self._device = vertices.device
        prepare(self._device)
        on = wp_device(self._device)
        # Kept: the tree reads both.
        self._points = wp.from_torch(vertices.detach().contiguous().clone(), dtype=wp.vec3)
        self._corners = wp.from_torch(faces.to(torch.int32).contiguous().reshape(-1).clone(), dtype=wp.int32)
        with wp.ScopedDevice(on):
            self._mesh = wp.Mesh(points=self._points, indices=self._corners, support_winding_number=True)

    def nearest(self, points: Tensor, reach: float, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
        """Places (P, 3) of the mesh nearest to points (P, 3), the faces (P) they lie on, and whether each point is inside (P), bool.

        Inside: the winding number lies above `threshold`. The face is -1, and the place means nothing, where none is within `reach`.
        """
        given = points.detach().float().contiguous()
        found, faces = given.new_zeros(len(given), 4), torch.zeros(len(given), dtype=torch.int64, device=self._device)
        launch(_query, len(given), (given, self._mesh.id, reach, ACCURACY, threshold, found, faces))
        return found[:, :3], faces, found[:, 3] < 0
