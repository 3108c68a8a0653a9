"""Several pictures of one object: at one scale, with poses that may be turned to agree, and how far they contradict each other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreampolish.scene.cameras import orbit_cameras
from dreampolish.scene.framing import box_of, common_windows
from dreampolish.scene.silhouettes import UNIT, Fit, FitSizes, contradiction, fitted


@dataclass(frozen=True)
class Posed:
    """A picture cut out, where it was taken from, degrees, and its camera-frame normals where these are known."""

    rgba: Float[Tensor, "h w 4"]
    azimuth_deg: float
    elevation_deg: float
    normals: Float[Tensor, "h w 3"] | None = None

    def with_picture(self, rgba: Float[Tensor, "h w 4"]) -> "Posed":
        """Another picture from the same place."""
        return replace(self, rgba=rgba)

    @property
    def pose(self) -> str:
        """In words, as a user gives it."""
        return f"{self.azimuth_deg:.4g},{self.elevation_deg:.4g}"


def framed_together(pictures: Sequence[Posed], size: int, fov_deg: float, sizes: FitSizes) -> list[Posed]:
    """Pictures in the canonical frame, one object at one scale: first by their boxes, then so that their outlines agree."""
    windows = common_windows(
        [box_of(each.rgba[..., 3]) for each in pictures],
        [each.azimuth_deg for each in pictures],
        [each.elevation_deg for each in pictures],
    )
    framed = [each.with_picture(window.of(each.rgba, size)) for each, window in zip(pictures, windows, strict=True)]
    frames = _fit(framed, fov_deg, sizes, turned=False, framed=True).frames
    found = zip(pictures, windows, frames.scale.tolist(), frames.shift.tolist(), strict=True)
    return [
        each.with_picture(window.moved(scale, (right, down)).of(each.rgba, size))
        for each, window, scale, (right, down) in found
    ]


def turned_to_agree(pictures: Sequence[Posed], fov_deg: float, sizes: FitSizes) -> list[Posed]:
    """Pictures with the poses under which their outlines agree best; the first one's stays."""
    fit = _fit(pictures, fov_deg, sizes, turned=True, framed=False)
    angles = zip(fit.azimuth_deg.tolist(), fit.elevation_deg.tolist(), strict=True)
    return [
        replace(each, azimuth_deg=azimuth, elevation_deg=elevation)
        for each, (azimuth, elevation) in zip(pictures, angles, strict=True)
    ]


def contradictions(pictures: Sequence[Posed], fov_deg: float, tolerance: float) -> list[float]:
    """Of each picture's outline, the share that no shape explains which fits all the others.

    tolerance: pixels of a picture of at most UNIT a side.
    """
    size = len(pictures[0].rgba)
    cameras = orbit_cameras(*_poses(pictures), torch.full((len(pictures),), fov_deg), size)
    return contradiction(_masks(pictures), cameras, tolerance * max(size / UNIT, 1.0)).tolist()


def _fit(pictures: Sequence[Posed], fov_deg: float, sizes: FitSizes, *, turned: bool, framed: bool) -> Fit:
    azimuth, elevation = _poses(pictures)
    return fitted(
        masks=_masks(pictures),
        azimuth_deg=azimuth,
        elevation_deg=elevation,
        fov_deg=fov_deg,
        sizes=sizes,
        turned=turned,
        framed=framed,
    )


def _poses(pictures: Sequence[Posed]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    return torch.tensor([each.azimuth_deg for each in pictures]), torch.tensor([each.elevation_deg for each in pictures])


def _masks(pictures: Sequence[Posed]) -> Bool[Tensor, "n s s"]:
    return torch.stack([each.rgba[..., 3] > 0.5 for each in pictures])
