"""From a coarse surface to the fine one it was made from: where each of its points lies there."""

import numpy as np
import torch
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from dreampolish.mesh.topology import face_normals, vertex_normals

_BACKSTEP = 1e-5
"""World units by which a ray starts behind its point, so that it meets a surface that passes through the point."""


class FineSurface:
    """A mesh to be projected on, with its search trees; on the CPU, whatever the mesh's device."""

    def __init__(self, vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> None:
        self._vertices, self._faces = vertices.detach().cpu(), faces.cpu()
        self._normals = vertex_normals(self._vertices, self._faces)
        self._face_normals = face_normals(self._vertices, self._faces)
        self._scene = rtcore_scene.EmbreeScene()
        TriangleMesh(self._scene, np.ascontiguousarray(self._vertices[self._faces].numpy(), dtype=np.float32))
        self._tree = cKDTree(self._vertices.numpy())

    def project(
        self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], reach: float
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
        """The nearest place of the fine surface along each point's normal, ahead or behind, and the smooth unit normal there.

        Only surfaces that face the same way and lie within `reach` world units count. Where a ray meets none, the nearest vertex does
        if it fulfils the same; else the point and its normal are returned as they are. Not differentiable.
        """
        device = points.device
        start, along = points.detach().cpu(), normals.detach().cpu()
        ahead, behind = self._cast(start, along, along, reach), self._cast(start, -along, along, reach)
        use_ahead = ahead[0] <= behind[0]
        distance = torch.where(use_ahead, ahead[0], behind[0])
        place = torch.where(use_ahead[:, None], ahead[1], behind[1])
        fine = torch.where(use_ahead[:, None], ahead[2], behind[2])
        missed = torch.isinf(distance).nonzero()[:, 0]
        if len(missed):
            place[missed], fine[missed] = self._nearest_vertices(start[missed], along[missed], reach)
        return place.to(device), fine.to(device)

    def _cast(self, points: Tensor, directions: Tensor, normals: Tensor, reach: float) -> tuple[Tensor, Tensor, Tensor]:
        """Distance (n,), infinite where nothing counts, place (n, 3) and smooth normal (n, 3) of the first hits."""
        origins = np.ascontiguousarray((points - _BACKSTEP * directions).numpy(), dtype=np.float32)
        found = self._scene.run(origins, np.ascontiguousarray(directions.numpy(), dtype=np.float32), output=True)
        face = torch.from_numpy(np.asarray(found["primID"], dtype=np.int64))
        distance = torch.from_numpy(np.asarray(found["tfar"], dtype=np.float32)) - _BACKSTEP
        known = face.clamp(min=0)
        counts = (face >= 0) & (distance <= reach) & ((self._face_normals[known] * normals).sum(-1) > 0)
        u, v = (torch.from_numpy(np.asarray(found[key], dtype=np.float32))[:, None] for key in ("u", "v"))
        corner = self._faces[known]
        mixed = [
            values[corner[:, 0]] * (1 - u - v) + values[corner[:, 1]] * u + values[corner[:, 2]] * v
            for values in (self._vertices, self._normals)
        ]
        distance = torch.where(counts, distance.abs(), torch.full_like(distance, torch.inf))
        return distance, mixed[0], torch.nn.functional.normalize(mixed[1], dim=-1)

    def _nearest_vertices(self, points: Tensor, normals: Tensor, reach: float) -> tuple[Tensor, Tensor]:
        distance, nearest = (torch.from_numpy(np.asarray(values)) for values in self._tree.query(points.numpy()))
        fine = self._normals[nearest]
        counts = ((distance <= reach) & ((fine * normals).sum(-1) > 0))[:, None]
        return torch.where(counts, self._vertices[nearest], points), torch.where(counts, fine, normals)
