"""Rendering of a signed distance field (source: NeuS, arXiv:2106.10689): opacity comes from where the SDF changes sign.

Notation: f signed distance, s = `inverse_std`, Phi the logistic function, cos the cosine between a ray and the SDF's gradient.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from nerfacc import render_weight_from_alpha
from torch import Tensor, nn

from dreampolish.cameras import Cameras, rays_from_cameras
from dreampolish.fields.sdf import SdfField
from dreampolish.renderers.sampling import OccupancyGrid, RaySamples, importance_samples, sample_rays
from dreampolish.renderers.volume import SampleRecord, VolumeRender, composite


@dataclass(frozen=True)
class NeusRender:
    """Pictures, and the SDF and its gradient (not normalised) at the samples behind them, for the eikonal term."""

    picture: VolumeRender
    sdf: Float[Tensor, " n"]
    gradients: Float[Tensor, "n 3"]


def alphas_from_sdf(
    sdf: Float[Tensor, " n"],
    cosines: Float[Tensor, " n"],
    lengths: Float[Tensor, " n"],
    inverse_std: Float[Tensor, ""],
    cosine_anneal: float,
) -> Float[Tensor, " n"]:
    """Opacity of intervals, max((Phi(s f_start) - Phi(s f_end)) / Phi(s f_start), 0) (source: NeuS, Eq. 13).

    f at the ends is extrapolated from the middle along the ray by the cosine. cosine_anneal: from 0 (surfaces that face away count too, which
    helps at first) to 1 (exact). Computed as 1 - exp of a difference of log-sigmoids, which needs no epsilon.
    """
    softened = nn.functional.relu(0.5 - 0.5 * cosines) * (1 - cosine_anneal)
    falling = -(softened + nn.functional.relu(-cosines) * cosine_anneal)
    change = falling * lengths / 2
    log_start = nn.functional.logsigmoid((sdf - change) * inverse_std)
    log_end = nn.functional.logsigmoid((sdf + change) * inverse_std)
    return -torch.expm1(log_end - log_start)


def weights_from_alphas(samples: RaySamples, alphas: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Each sample's weight T alpha, by nerfacc's dense function."""
    if not len(alphas):
        return alphas
    weights, _ = render_weight_from_alpha(samples.dense(alphas))
    return samples.packed(weights)


def update_surface_occupancy(occupancy: OccupancyGrid, field: SdfField, margin: float, generator: torch.Generator) -> None:
    """Mark the cells with |sdf| < margin + one cell's diagonal, from one evaluation in each cell. margin: world units."""
    reach = margin + 2 * occupancy.half_size / occupancy.resolution * 3**0.5
    occupancy.update(lambda points: (field.sdf(points).abs() < reach).float(), 0.5, 0.0, 1.0, generator)


def _concentrate(
    field: SdfField, samples: RaySamples, origins: Tensor, directions: Tensor, n_samples: int, generator: torch.Generator | None
) -> RaySamples:
    """Importance samples at the field's present sharpness, as if every surface faced the ray."""
    with torch.no_grad():
        lengths = samples.t_ends - samples.t_starts
        sharpness = torch.minimum(
            field.inverse_std, 1 / lengths.mean()
        )  # blunter than a step, so that no surface falls between
        alphas = alphas_from_sdf(field.sdf(samples.points), -torch.ones_like(lengths), lengths, sharpness, 1.0)
        weights = weights_from_alphas(samples, alphas)
    return importance_samples(samples, weights, origins, directions, n_samples, generator)


def render_sdf(
    field: SdfField,
    occupancy: OccupancyGrid,
    cameras: Cameras,
    step_size: float,
    n_importance: int,
    cosine_anneal: float,
    background: Float[Tensor, "3"],
    generator: torch.Generator | None,
) -> NeusRender:
    """Pictures of an SDF through every camera, with normals.

    step_size: world units, of the even steps through the occupied cells. n_importance: samples a ray gets from the weights found there; 0
    renders the even steps themselves. cosine_anneal: see `alphas_from_sdf`. generator: stratified sampling; None gives the same picture every time.
    """
    origins, directions = (rays.reshape(-1, 3) for rays in rays_from_cameras(cameras))
    samples = sample_rays(origins, directions, occupancy, step_size, generator)
    if n_importance > 0 and len(samples.slots):
        samples = _concentrate(field, samples, origins, directions, n_importance, generator)
    sdf, gradients, colors = field.with_gradient(samples.points)
    along = directions[samples.ray_indices]
    normals = nn.functional.normalize(gradients, dim=-1)
    cosines = (gradients * along).sum(dim=-1)  # slopes of f, as in NeuS's own code: exact for any field
    alphas = alphas_from_sdf(sdf, cosines, samples.t_ends - samples.t_starts, field.inverse_std, cosine_anneal)
    record = SampleRecord(samples.points, weights_from_alphas(samples, alphas), along, samples.ray_indices, normals)
    picture = composite(cameras, directions, record, (samples.t_starts + samples.t_ends) / 2, colors, background)
    return NeusRender(picture, sdf, gradients)
