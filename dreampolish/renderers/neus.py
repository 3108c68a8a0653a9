"""Rendering of a signed distance field (source: NeuS, arXiv:2106.10689): opacity comes from where the SDF changes sign.

Notation: f signed distance, s = `inverse_std`, Phi the logistic function, cos the cosine between a ray and the SDF's gradient.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from nerfacc import render_weight_from_alpha
from torch import Tensor, nn

from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField
from dreampolish.renderers.samples import RaySamples, sample_rays, split_samples
from dreampolish.renderers.volume import SampleRecord, VolumeRender, composite
from dreampolish.scene.cameras import Cameras, rays_from_cameras

_LEAST_ALPHA = 0.002
"""Opacity above which an interval counts. [choice]"""


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

    f at the ends is extrapolated from the middle along the ray by the cosine. cosine_anneal: from 0 (surfaces that face away
    count too, which helps at first) to 1 (exact). Computed as 1 - exp of a difference of log-sigmoids, which needs no epsilon.
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
    occupancy.update(
        value_of=lambda points: (field.sdf(points).abs() < reach).float(),
        threshold=0.5,
        decay=0.0,
        fraction=1.0,
        generator=generator,
    )


def _slopes_between(samples: RaySamples, sdf: Tensor) -> Tensor:
    """Slope of f along the ray at each sample, from its neighbour in touch; -1 for a sample without one."""
    step = samples.t_ends - samples.t_starts
    touching = (samples.ray_indices[1:] == samples.ray_indices[:-1]) & (
        samples.t_starts[1:] - samples.t_ends[:-1] < 0.5 * step[1:]
    )
    rise = torch.where(touching, (sdf[1:] - sdf[:-1]) / step[1:], torch.full_like(sdf[1:], -torch.inf))
    lone = sdf.new_full((1,), -torch.inf)
    after, before = torch.cat([rise, lone]), torch.cat([lone, rise])
    slope = torch.where(after.isinf(), before, after)
    return torch.where(slope.isinf(), -torch.ones_like(slope), slope)


def visible_shell(samples: RaySamples, field: SdfField, min_transmittance: float, cosine_anneal: float) -> RaySamples:
    """The samples that light reaches and whose opacity counts or whose interval a surface may cross, judged without
    a graph and no sharper than the steps can tell. A part thinner than a step shows in no slope between samples, only in the distance.
    """
    with torch.no_grad():
        lengths = samples.t_ends - samples.t_starts
        sdf = field.sdf(samples.points)
        sharpness = torch.minimum(field.inverse_std, 2 / lengths.mean())
        alphas = alphas_from_sdf(
            sdf=sdf, cosines=_slopes_between(samples, sdf), lengths=lengths, inverse_std=sharpness, cosine_anneal=cosine_anneal
        )
        _, transmittance = render_weight_from_alpha(samples.dense(alphas))
        return samples.keep(
            (samples.packed(transmittance) > min_transmittance) & ((alphas > _LEAST_ALPHA) | (sdf.abs() < lengths / 2))
        )


def render_sdf(
    field: SdfField,
    occupancy: OccupancyGrid,
    cameras: Cameras,
    step_size: float,
    parts: int,
    min_transmittance: float,
    cosine_anneal: float,
    background: Float[Tensor, "3"],
    generator: torch.Generator | None,
) -> NeusRender:
    """Pictures of an SDF through every camera, with normals.

    step_size: world units, of the even steps through the occupied cells. parts: the steps that light reaches are cut into so
    many; 0 skips that choice and renders the even steps themselves. min_transmittance: where rays end. cosine_anneal: see
    `alphas_from_sdf`. generator: stratified sampling; None gives the same picture every time.
    """
    origins, directions = (rays.reshape(-1, 3) for rays in rays_from_cameras(cameras))
    samples = sample_rays(origins=origins, directions=directions, occupancy=occupancy, step_size=step_size, generator=generator)
    if parts > 0 and len(samples.slots):
        samples = split_samples(visible_shell(samples, field, min_transmittance, cosine_anneal), parts, origins, directions)
    sdf, gradients, colors = field.with_gradient(samples.points)
    along = directions[samples.ray_indices]
    normals = nn.functional.normalize(gradients, dim=-1)
    cosines = (gradients * along).sum(dim=-1)  # slopes of f, as in NeuS's own code: exact for any field
    alphas = alphas_from_sdf(
        sdf=sdf,
        cosines=cosines,
        lengths=samples.t_ends - samples.t_starts,
        inverse_std=field.inverse_std,
        cosine_anneal=cosine_anneal,
    )
    record = SampleRecord(samples, weights_from_alphas(samples, alphas), along, normals)
    picture = composite(
        cameras=cameras,
        directions=directions,
        record=record,
        t=(samples.t_starts + samples.t_ends) / 2,
        colors=colors,
        background=background,
    )
    return NeusRender(picture, sdf, gradients)
