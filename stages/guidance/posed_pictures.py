"""Several pictures of one object: at one scale, with poses that may be refined, and how far their outlines contradict each other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dreampolish.scene.cameras import orbit_cameras
from dreampolish.scene.framing import box_of, common_windows
from dreampolish.scene.silhouettes import UNIT, Fit, FitSizes, contradiction, fitted
from schemas.config.reference import ReferenceConfig
from stages.guidance.reference_view import REFERENCE_FOV_DEG


@dataclass(frozen=True)
class Posed:
    """A picture cut out, where it was taken from, and its camera-frame normals where these are known."""

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


def framed_together(pictures: Sequence[Posed], config: ReferenceConfig) -> list[Posed]:
    """Pictures in the canonical frame, one object at one scale: first by their boxes, then so that their outlines agree."""
    windows = common_windows(
        [box_of(each.rgba[..., 3]) for each in pictures],
        [each.azimuth_deg for each in pictures],
        [each.elevation_deg for each in pictures],
    )
    framed = [each.with_picture(window.of(each.rgba, config.size)) for each, window in zip(pictures, windows, strict=True)]
    fit = _fit(framed, config, turned=False, framed=True)
    shifts = fit.frames.shift.tolist()
    windows = [
        window.moved(scale, (shift[0], shift[1]))
        for window, scale, shift in zip(windows, fit.frames.scale.tolist(), shifts, strict=True)
    ]
    return [each.with_picture(window.of(each.rgba, config.size)) for each, window in zip(pictures, windows, strict=True)]


def agreed(pictures: Sequence[Posed], config: ReferenceConfig) -> tuple[list[Posed], list[str]]:
    """Pictures whose poses make the outlines agree best, and what to say of it; the first one's stays."""
    fit = _fit(pictures, config, turned=True, framed=False)
    angles = zip(fit.azimuth_deg.tolist(), fit.elevation_deg.tolist(), strict=True)
    found = [replace(each, azimuth_deg=a, elevation_deg=e) for each, (a, e) in zip(pictures, angles, strict=True)]
    changes = [f"{old.pose} to {new.pose}" for old, new in zip(pictures, found, strict=True) if old.pose != new.pose]
    return found, [f"poses refined: {'; '.join(changes)}" if changes else "no other poses fit the outlines better"]


def contradictions(pictures: Sequence[Posed], config: ReferenceConfig) -> tuple[float, list[str]]:
    """The largest share of a picture's outline that no shape explains which fits all the others, and a note where it is large."""
    cameras = orbit_cameras(*_poses(pictures), torch.full((len(pictures),), REFERENCE_FOV_DEG), config.size)
    tolerance = config.poses.tolerance * max(config.size / UNIT, 1.0)
    shares = contradiction(_masks(pictures), cameras, tolerance).tolist()
    worst = max(range(len(shares)), key=shares.__getitem__)
    if shares[worst] <= config.poses.most_contradiction:
        return shares[worst], []
    return shares[worst], [
        f"the pictures contradict each other: no shape explains {shares[worst]:.0%} of the outline from {pictures[worst].pose}; "
        "look at their poses, or let --refine-poses do so"
    ]


def _fit(pictures: Sequence[Posed], config: ReferenceConfig, *, turned: bool, framed: bool) -> Fit:
    settings = config.poses
    sizes = FitSizes(
        steps=settings.fit_steps,
        rate=settings.fit_rate,
        outline=settings.fit_pixels,
        turn_deg=settings.most_turn_deg,
        move=settings.most_move,
        pull=settings.pull,
    )
    azimuth, elevation = _poses(pictures)
    return fitted(
        masks=_masks(pictures),
        azimuth_deg=azimuth,
        elevation_deg=elevation,
        fov_deg=REFERENCE_FOV_DEG,
        sizes=sizes,
        turned=turned,
        framed=framed,
    )


def _poses(pictures: Sequence[Posed]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    return torch.tensor([each.azimuth_deg for each in pictures]), torch.tensor([each.elevation_deg for each in pictures])


def _masks(pictures: Sequence[Posed]) -> Bool[Tensor, "n s s"]:
    return torch.stack([each.rgba[..., 3] > 0.5 for each in pictures])
