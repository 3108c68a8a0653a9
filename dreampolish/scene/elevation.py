"""The elevation that a picture of an upright object is seen from, by its normals alone.

Most things that people make stand on level ground: their surfaces are level or upright. Seen from the elevation e, "up" is
(0, cos e, sin e) in the camera's frame; level surfaces have that normal, upright ones are at right angles to it. The elevation under which
most of the object's normals agree with one of the two is the estimate (the Manhattan-world idea, Coughlan and Yuille 1999, one axis known).
"""

import torch
from jaxtyping import Float
from torch import Tensor

STEP_DEG = 0.5
"""Between the elevations that are tried."""


def upright_score(
    normals_camera: Float[Tensor, "n 3"], elevation_deg: Float[Tensor, " e"], width_deg: float
) -> Float[Tensor, " e"]:
    """For each elevation the mean agreement, 0..1, of unit normals with level or upright surfaces. width_deg: standard deviation of the
    agreement, degrees."""
    angle = torch.deg2rad(elevation_deg)
    up = torch.stack([torch.zeros_like(angle), angle.cos(), angle.sin()], dim=1)
    cosine = (normals_camera @ up.T).clamp(-1, 1)
    off_level, off_upright = torch.rad2deg(torch.acos(cosine)), torch.rad2deg(torch.asin(cosine.abs()))
    nearest = torch.minimum(off_level, off_upright)
    return torch.exp(-((nearest / width_deg) ** 2) / 2).mean(dim=0)


def estimated_elevation(
    normals_camera: Float[Tensor, "h w 3"], mask: Float[Tensor, "h w"], within_deg: tuple[float, float], width_deg: float
) -> tuple[float, float]:
    """(elevation in degrees, its score 0..1) of the object's normals (X right, Y up, Z to the viewer).

    mask: coverage 0..1; pixels more than nine tenths inside count. within_deg: the elevations that are thought possible. ValueError where
    no pixel counts.
    """
    inside = normals_camera[mask > 0.9]
    if not len(inside):
        raise ValueError("no pixel of the object is wholly inside its mask, so nothing says from where it is seen")
    low, high = within_deg
    tried = torch.arange(low, high + STEP_DEG / 2, STEP_DEG)
    scores = upright_score(torch.nn.functional.normalize(inside.float().cpu(), dim=-1), tried, width_deg)
    best = int(scores.argmax())
    return float(tried[best]), float(scores[best])
