"""Faint parts: what a density field shows and its level set lacks.

One level does not suit a whole object. Of a leg that pictures place a little differently the field keeps a thin sponge, dark enough
to be seen from everywhere and yet mostly below the level that fits the seat. Such parts are found by looking: they lie where nearly
all views show something, and many views show it beside everything that the level set has. [choice]
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from dreampolish.fields.lattice import lattice_along_rays, lattice_points
from dreampolish.fields.smoothing import large_parts
from dreampolish.scene.cameras import Cameras, pixels_of_points

_CUBE = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class ThinPartsSizes:
    """What counts as a faint part; the settings `neus.thin_parts`, whose reasons docs/choices.md gives.

    picture_share: pixels of a side of the views, per lattice point of a side. hole: widest holes in a view's opacity that are closed,
    pixels. least_opacity: from which a view shows something, 0..1. halo: least width of the soft edge around the level set's outline,
    pixels; it reaches a pixel beyond the border_quantile of the border's distances. missed_share: least share of the views that show
    a faint part beside the level set. density_blur: standard deviation, lattice steps. least_density: share of the level, after that
    blur, below which nothing is raised. reach: radius of the ball whose inaccessible gaps close where something is shown, lattice
    steps. least_part: side of the cube whose volume a part must have, world units.
    """

    picture_share: float
    hole: int
    least_opacity: float
    halo: float
    border_quantile: float
    missed_share: float
    density_blur: float
    least_density: float
    reach: float
    least_part: float


@torch.no_grad()
def with_faint_parts(
    densities: Float[Tensor, "r r r"],
    solid: Bool[np.ndarray, "r r r"],
    level: float,
    half_size: float,
    cameras: Cameras,
    step_size: float,
    agreement: float,
    sizes: ThinPartsSizes,
) -> Bool[np.ndarray, "r r r"]:
    """A solid with the faint parts of the field that it was cut from.

    densities: on `lattice_points`, as the renderer sees them. solid: what of them is above the level. cameras: views from all around.
    step_size: between samples along a ray, world units. agreement: share of the views that must show a point; 0: none is added.
    """
    if agreement == 0 or not solid.any():
        return solid
    body = ndimage.binary_opening(solid, _CUBE)
    there = ndimage.gaussian_filter(densities.cpu().numpy(), sizes.density_blur) > sizes.least_density * level
    seen, missed = _shares(
        asked=~body & there,
        densities=densities,
        body=body,
        half_size=half_size,
        cameras=cameras.at_size(max(1, round(sizes.picture_share * len(solid)))),
        step_size=step_size,
        sizes=sizes,
    )
    shown = seen >= agreement
    step = 2 * half_size / (len(solid) - 1)
    faint = large_parts(shown & (missed >= sizes.missed_share), step, sizes.least_part)
    if not faint.any():
        return solid
    # A lattice step more, for a sponge's own border is uncertain and what is thin breaks later on.
    faint = ndimage.binary_dilation(faint, _CUBE, mask=shown)
    near = ndimage.distance_transform_edt(~faint) <= sizes.reach
    return solid | faint | (_closed(body | faint, sizes.reach) & near & shown)


def _closed(solid: Bool[np.ndarray, "r r r"], radius: float) -> Bool[np.ndarray, "r r r"]:
    """A solid and all that balls of a radius, in lattice steps, cannot reach from outside of it."""
    free = ndimage.distance_transform_edt(~solid) > radius
    if not free.any():
        return solid
    return ndimage.distance_transform_edt(~free) > radius


def _with_halo(
    outline: Bool[np.ndarray, "h w"], something: Bool[np.ndarray, "h w"], sizes: ThinPartsSizes
) -> Bool[np.ndarray, "h w"]:
    """An outline with the soft edge that belongs to it."""
    distance = ndimage.distance_transform_edt(~outline)
    border = distance[something & ~ndimage.binary_erosion(something)]
    return distance <= max(sizes.halo, float(np.quantile(border, sizes.border_quantile)) + 1 if len(border) else 0.0)


def _shares(
    asked: Bool[np.ndarray, "r r r"],
    densities: Tensor,
    body: Bool[np.ndarray, "r r r"],
    half_size: float,
    cameras: Cameras,
    step_size: float,
    sizes: ThinPartsSizes,
) -> tuple[Float[np.ndarray, "r r r"], Float[np.ndarray, "r r r"]]:
    """Of every asked lattice point, 0 elsewhere: the shares of views that show something there, and that do so beside the body."""
    points = lattice_points(len(body), half_size, densities.device)
    shell = points[torch.from_numpy((body & ~ndimage.binary_erosion(body)).ravel()).to(points.device)]
    where = torch.from_numpy(asked.ravel().nonzero()[0]).to(points.device)
    points = points[where]
    seen, missed = torch.zeros(len(where), device=points.device), torch.zeros(len(where), device=points.device)
    for index in range(len(cameras)):
        camera = cameras[[index]].to(points.device)
        _, (along,) = lattice_along_rays([densities], half_size, camera, step_size)
        opacity = (1 - (-along.sum(dim=1) * step_size).exp()).view(camera.size, camera.size).cpu().numpy()
        outline = np.zeros(opacity.shape, dtype=bool)
        outline[tuple(axis.cpu().numpy() for axis in pixels_of_points(shell, camera))] = True
        something = ndimage.grey_closing(opacity, size=sizes.hole) > sizes.least_opacity
        outline = _with_halo(ndimage.binary_dilation(outline, np.ones((3, 3), dtype=bool)), something, sizes)
        pixels = pixels_of_points(points, camera)
        seen += torch.from_numpy(something).to(points.device)[pixels]
        missed += torch.from_numpy(something & ~outline).to(points.device)[pixels]
    shares = np.zeros((2, asked.size), dtype=np.float32)
    shares[:, where.cpu().numpy()] = (torch.stack([seen, missed]) / len(cameras)).cpu().numpy()
    return shares[0].reshape(asked.shape), shares[1].reshape(asked.shape)
