"""From a mesh, closed or not, to signed distances on a lattice.

Inside is where the generalised winding number lies above one half (Jacobson et al., "Robust Inside-Outside Segmentation using Generalized
Winding Numbers", 2013): holes, overlapping parts and doubled faces do no harm. Faces with the inside on both sides bound nothing and are
left out. Faces with air on both sides are a sheet, which gets a thickness. [choice]
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from skimage.measure import marching_cubes
from torch import Tensor

from dreampolish.fields.density_to_sdf import EmptyFieldError, SignedDistanceGrid
from dreampolish.fields.lattice import lattice_points, sample_lattice
from dreampolish.kernels.mesh_distance import MeshDistance
from dreampolish.mesh.topology import face_areas, face_normals
from dreampolish.mesh.winding import wound_alike

INSIDE = 0.5
"""Winding number above which a point is inside."""

SIDE_STEP = 1e-3
"""World units from a face at which its two sides are asked."""

FAR = 10.0
"""World units that stand for a distance to nothing."""

COARSE = 33
"""Points of a side of the lattice that is asked everywhere. [choice]"""

POINTS_AT_ONCE = 1 << 20
"""Points evaluated at once, for the memory's sake; results do not depend on it."""


@dataclass(frozen=True)
class FaceKinds:
    """Which faces bound the inside, which are sheets; the others lie within. Both (F,)."""

    boundary: Bool[Tensor, " f"]
    sheet: Bool[Tensor, " f"]


def face_kinds(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> FaceKinds:
    """What lies on both sides of each face. Faces without area are neither."""
    normals, middles = face_normals(vertices, faces), vertices[faces].mean(1)
    distance = MeshDistance(vertices, faces)
    front, back = (distance.nearest(middles + side * SIDE_STEP * normals, math.inf, INSIDE)[2] for side in (1.0, -1.0))
    flat = face_areas(vertices, faces) < 1e-12
    return FaceKinds(boundary=(front != back) & ~flat, sheet=~front & ~back & ~flat)


def sdf_from_mesh(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], resolution: int, half_size: float, sheet_thickness: float
) -> SignedDistanceGrid:
    """Signed distances to a mesh at a lattice's points.

    resolution: lattice points of a side. sheet_thickness: of sheets, world units. Raises EmptyFieldError where nothing is inside.
    """
    wound = wound_alike(vertices, faces)
    kinds = face_kinds(vertices, wound)
    solid, sheets = _solid(vertices, wound, kinds.boundary), _Surface(vertices, wound[kinds.sheet])
    spacing = 2 * half_size / (resolution - 1)

    def signed(points: Tensor) -> Tensor:
        return torch.minimum(solid(points), sheets.distance(points) - sheet_thickness / 2)

    values = _on_lattice(signed, resolution, half_size, vertices.device)
    if not float(values.min()) < 0 < float(values.max()):
        raise EmptyFieldError(
            "the mesh encloses nothing that the lattice can hold: thicken it, or raise neus.conversion_resolution"
        )
    # Across a hole the sign changes where no face is near.
    inside = values < 0
    across = [ndimage.distance_transform_edt(side.cpu().numpy()) * spacing + spacing for side in (~inside, inside)]
    nearest = torch.from_numpy(across[0] * ~inside.cpu().numpy() + across[1] * inside.cpu().numpy()).to(values)
    values = torch.where(inside, -torch.minimum(-values, nearest), torch.minimum(values, nearest))
    surface = marching_cubes(values.cpu().numpy(), 0.0, spacing=(spacing,) * 3)[0] - half_size
    return SignedDistanceGrid(values, torch.from_numpy(surface.copy()).float().to(values.device), 0.0, half_size)


def _on_lattice(signed: Callable[[Tensor], Tensor], resolution: int, half_size: float, device: torch.device) -> Tensor:
    """Signed distances on a lattice (R, R, R): asked near the surface, and elsewhere interpolated on a coarser lattice."""
    spacing = 2 * half_size / (COARSE - 1)
    coarse = torch.cat([signed(part) for part in lattice_points(COARSE, half_size, device).split(POINTS_AT_ONCE)])
    coarse = coarse.view((COARSE,) * 3)
    points = lattice_points(resolution, half_size, device)
    values = sample_lattice(coarse, points, half_size)
    mixed = sample_lattice(coarse.sign(), points, half_size).abs() < 1 - 1e-4
    near = ((values.abs() < spacing) | mixed).nonzero()[:, 0]
    for part in near.split(POINTS_AT_ONCE):
        values[part] = signed(points[part])
    return values.view((resolution,) * 3)


def _solid(vertices: Tensor, faces: Tensor, boundary: Tensor) -> Callable[[Tensor], Tensor]:
    """Signed distances of points to what faces enclose. boundary: the faces that bound it."""
    whole, skin = MeshDistance(vertices, faces), _Surface(vertices, faces[boundary])

    def signed(points: Tensor) -> Tensor:
        distance = skin.distance(points)
        return torch.where(whole.nearest(points, math.inf, INSIDE)[2], -distance, distance)

    return signed


class _Surface:
    """Faces, or none, to which distances are asked."""

    def __init__(self, vertices: Tensor, faces: Tensor) -> None:
        self._mesh = MeshDistance(vertices, faces) if len(faces) else None

    def distance(self, points: Tensor) -> Tensor:
        """World units; FAR from no face at all."""
        if self._mesh is None:
            return torch.full_like(points[:, 0], FAR)
        return (self._mesh.nearest(points, math.inf, INSIDE)[0] - points).norm(dim=-1)


def by_torch(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], points: Float[Tensor, "p 3"]
) -> tuple[Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Distances and winding numbers of points, every point against every face: the twin of the kernel.

    The winding number is the sum of the faces' signed solid angles over 4 pi (Van Oosterom and Strackee, 1983).
    """
    corner = vertices[faces][None] - points[:, None, None]
    length = corner.norm(dim=-1)
    a, b, c = corner.unbind(2)
    triple = (a * torch.linalg.cross(b, c)).sum(-1)
    mixed = (
        length.prod(-1) + (a * b).sum(-1) * length[..., 2] + (b * c).sum(-1) * length[..., 0] + (c * a).sum(-1) * length[..., 1]
    )
    winding = torch.atan2(triple, mixed).sum(-1) / (2 * math.pi)
    return _distances_by_torch(vertices[faces], points), winding


def _distances_by_torch(triangles: Float[Tensor, "f 3 3"], points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
    """To the nearest triangle: to its plane where the foot lies within, else to its nearest edge."""
    a = triangles[None, :, 0]
    normal = torch.linalg.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])[None]
    offset = points[:, None] - a
    height = (offset * normal).sum(-1) / normal.norm(dim=-1).clamp_min(1e-20)
    within = torch.ones_like(height, dtype=torch.bool)
    edge = torch.full_like(height, math.inf)
    for corner in range(3):
        start, along = triangles[None, :, corner], (triangles[:, (corner + 1) % 3] - triangles[:, corner])[None]
        out = points[:, None] - start
        within &= (torch.linalg.cross(along.expand_as(out), out) * normal).sum(-1) >= 0
        share = ((out * along).sum(-1) / along.square().sum(-1).clamp_min(1e-20)).clamp(0, 1)
        edge = torch.minimum(edge, (out - share[..., None] * along).norm(dim=-1))
    return torch.where(within, height.abs(), edge).amin(1)
