"""Distances between surfaces, by points sampled on them. Lengths in world units, angles in degrees."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

from dreampolish.mesh.topology import face_areas, face_normals
from dreampolish.renderers.embree import embree_scene

_OWN_FACE = 5e-4
"""World units before a point within which what an eye sees is taken for the point itself."""


@dataclass(frozen=True)
class SurfaceSamples:
    """Points of a surface and the unit normals of their faces, world frame."""

    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]

    def only(self, chosen: Bool[Tensor, " n"]) -> "SurfaceSamples":
        """Those that are chosen."""
        return SurfaceSamples(self.points[chosen], self.normals[chosen])


@dataclass(frozen=True)
class SurfaceDistance:
    """How far a surface is from the true one.

    chamfer: mean of the two mean nearest distances (not squared), world units. f_score, precision, recall: shares 0..1 within
    `threshold`, world units (Knapitsch et al. 2017).
    """

    chamfer: float
    f_score: float
    precision: float
    recall: float
    threshold: float


def sample_surface(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], n_points: int, generator: torch.Generator
) -> SurfaceSamples:
    """Points uniform by area, stratified over the faces in their order. Raises ValueError if the surface has no area."""
    areas = face_areas(vertices.detach(), faces).double()
    if len(faces) == 0 or float(areas.sum()) <= 0:
        raise ValueError("a surface without area cannot be sampled")
    device = vertices.device
    draws = torch.rand(3, n_points, generator=generator, device=generator.device).to(device)
    strata = (torch.arange(n_points, device=device) + draws[0].double()) / n_points
    cumulative = areas.cumsum(0)
    face = torch.searchsorted(cumulative, strata * cumulative[-1]).clamp(max=len(faces) - 1)
    # Uniform in a triangle (Osada et al. 2002, Eq. 1).
    root, other = draws[1].sqrt(), draws[2]
    weights = torch.stack([1 - root, root * (1 - other), root * other], dim=-1)
    corner = vertices.detach()[faces[face]]
    return SurfaceSamples((weights[..., None] * corner).sum(1), face_normals(vertices.detach(), faces[face]))


def seen_from(
    points: Float[Tensor, "n 3"], vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], eyes: Float[Tensor, "e 3"]
) -> Bool[Tensor, " n"]:
    """Which points of a mesh's surface at least one eye sees; all in world units, eyes outside of the mesh. By embree, on the CPU."""
    scene, where = embree_scene(vertices, faces), points.detach().cpu().numpy()
    seen = np.zeros(len(where), dtype=bool)
    for eye in eyes.cpu().numpy():
        hidden = np.flatnonzero(~seen)
        away = where[hidden] - eye
        distance = np.linalg.norm(away, axis=1)
        eyes_here = np.broadcast_to(eye, away.shape)
        hits, rays, _ = scene.intersects_location(eyes_here, away / distance[:, None], multiple_hits=False)
        first = np.full(len(hidden), np.inf)
        first[rays] = np.linalg.norm(hits - eye, axis=1)
        seen[hidden] = first > distance - _OWN_FACE
    return torch.from_numpy(seen).to(points.device)


def _nearest(from_points: Float[Tensor, "n 3"], to_points: Float[Tensor, "m 3"]) -> Float[Tensor, " n"]:
    """Distance to the nearest of `to_points` for each of `from_points`."""
    distance, _ = cKDTree(to_points.detach().cpu().numpy()).query(from_points.detach().cpu().numpy())
    return torch.as_tensor(distance, dtype=torch.float32)


def surface_distance(predicted: SurfaceSamples, true: SurfaceSamples, threshold_share: float) -> SurfaceDistance:
    """All figures at once; the threshold is `threshold_share` of the diagonal of the true points' box.

    Densities bound what can be seen: two samplings of n points of one surface of area A lie about 0.5 sqrt(A / n) apart.
    """
    threshold = threshold_share * float((true.points.amax(0) - true.points.amin(0)).norm())
    forth, back = _nearest(predicted.points, true.points), _nearest(true.points, predicted.points)
    precision, recall = float((forth <= threshold).double().mean()), float((back <= threshold).double().mean())
    return SurfaceDistance(
        chamfer=float((forth.mean() + back.mean()) / 2),
        f_score=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        precision=precision,
        recall=recall,
        threshold=threshold,
    )


def roughness_deg(samples: SurfaceSamples, reach: float) -> float:
    """Mean angle between a point's normal and the mean normal of the points around it that face its way, degrees. [choice]

    reach: world units, how far around. Flat is 0; edges, thin parts and bumps narrower than `reach` raise it, so that it is to be
    compared with the true surface's. Distances between surfaces do not see bumps: a surface that scatters around the place where the
    right one is has points near to more of it than a smooth one. Raises ValueError without points.
    """
    if not len(samples.points):
        raise ValueError("the roughness of no points is unknown")
    points, normals = samples.points.detach().cpu().numpy(), samples.normals.detach().cpu().double().numpy()
    pairs = cKDTree(points).query_pairs(reach, output_type="ndarray")
    first, second = pairs[(normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(1) > 0].T
    around = normals.copy()
    for here, there in ((first, second), (second, first)):
        for axis in range(3):
            around[:, axis] += np.bincount(here, normals[there, axis], minlength=len(points))
    crossed, along = np.linalg.norm(np.cross(normals, around), axis=1), (normals * around).sum(1)
    return float(np.degrees(np.arctan2(crossed, along)).mean())
