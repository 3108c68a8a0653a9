"""Targets: complete novel views, painted by the view prior, that a geometry stage compares its renders with (ViewTargetsConfig)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.optim.fit import Term
from dreampolish.priors.distillation.guidance import images_at_prior
from dreampolish.scene.cameras import Cameras, orbit_cameras
from dreampolish.scene.pictures import resize
from dreampolish.scene.silhouettes import hull_outlines
from schemas.config.shared.guidance import ViewTargetsConfig
from stages.guidance.painted.painters import Painter, angle_between
from stages.guidance.reference_view import REFERENCE_FOV_DEG, ReferenceView

TRANSPARENT = 0.1
"""Transparency below which a pixel counts as inside, 0..1. [choice]"""

HULL_SIZE, HULL_TOLERANCE, FILLED = 64, 1.0, 0.25
"""Of the outlines whose hull bounds what is painted: pixels of a side, pixels they may be off, coverage of one inside. [choice]"""

Picture = Callable[[Cameras], Float[Tensor, "b h w 3"]]


def inside(opacity: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """1 where a pixel and its eight neighbours are all but opaque, else 0."""
    pooled = torch.nn.functional.max_pool2d(1 - opacity[:, None], 3, stride=1, padding=1)[:, 0]
    return (pooled < TRANSPARENT).float()


def coverage_of(pictures: Float[Tensor, "n h w 3"], paper_tolerance: float, full_ink: float) -> Float[Tensor, "n h w"]:
    """The share of each pixel that the object covers, estimated from a picture on white (docs/choices.md).

    A pixel whose neighbours all have full ink is covered. At an outline the share is its ink over the most that a neighbour has, for
    there the ink is the object's, thinned by the background. paper_tolerance, full_ink: see ViewTargetsConfig.
    """
    ink = ((1 - pictures).amax(dim=-1) - paper_tolerance).clamp_min(0)[:, None]
    most = torch.nn.functional.max_pool2d(ink, 3, stride=1, padding=1)
    least = -torch.nn.functional.max_pool2d(-ink, 3, stride=1, padding=1)
    return torch.where(least > full_ink, torch.ones_like(ink), ink / most.clamp_min(full_ink))[:, 0]


def even_views(config: ViewTargetsConfig) -> list[tuple[float, float]]:
    """(azimuth, elevation) in degrees of the settings' views, evenly around the object."""
    elevations = config.elevations_deg
    return [(number * (360 / config.n_views), elevations[number % len(elevations)]) for number in range(config.n_views)]


def _places_of(
    given: Sequence[ReferenceView], views: Sequence[tuple[float, float]], within_deg: float
) -> dict[int, ReferenceView]:
    """By number of a view, the given picture that it shows: of the free views the nearest one, unless it lies too far away."""
    found: dict[int, ReferenceView] = {}
    for picture in given:
        away = {
            number: angle_between(view, (picture.azimuth_deg, picture.elevation_deg))
            for number, view in enumerate(views)
            if number not in found
        }
        nearest = min(away, key=away.__getitem__, default=None)
        if nearest is not None and away[nearest] <= within_deg:
            found[nearest] = picture
    return found


def _hull_of(given: Sequence[ReferenceView], cameras: Cameras) -> Float[Tensor, "n s s 1"]:
    """How much of each view's pixels the largest shape covers that fits the given pictures, 0 or 1, at HULL_SIZE."""
    masks = torch.cat([resize(each.mask[..., None], HULL_SIZE)[..., 0] > FILLED for each in given]).cpu()
    azimuth, elevation = torch.tensor([(each.azimuth_deg, each.elevation_deg) for each in given]).T
    seen = orbit_cameras(azimuth, elevation, torch.full((len(given),), REFERENCE_FOV_DEG), HULL_SIZE)
    found = hull_outlines(masks, seen, cameras.at_size(HULL_SIZE).to("cpu"), HULL_TOLERANCE)
    return found.float()[..., None].to(cameras.fov_deg.device)


class ViewTargets:
    """Fixed views around the object with their painted pictures: the painter's own, else evenly around. A stage's checkpoints hold it.

    steps: of the stage. size: pixels of the renders that are painted over. given: a user's pictures where there are several: the view
    next to each moves there and shows it, and is not painted.
    """

    def __init__(
        self,
        config: ViewTargetsConfig,
        steps: int,
        size: int,
        painter: Painter,
        generator: torch.Generator,
        given: Sequence[ReferenceView] = (),
    ) -> None:
        self._config, self._steps, self._size = config, steps, size
        self._painter, self._generator = painter, generator
        views = list(painter.own_views or even_views(config))
        self._given = _places_of(given, views, config.given_within_deg)
        for place, picture in self._given.items():
            views[place] = (picture.azimuth_deg, picture.elevation_deg)
        azimuth, elevation = torch.tensor(views, dtype=torch.float32).T
        fov = torch.full_like(azimuth, REFERENCE_FOV_DEG)
        self._cameras = orbit_cameras(azimuth, elevation, fov, painter.image_size).to(generator.device)
        self._due = sorted({round(progress * max(steps - 1, 0)) for progress in config.paint_at})
        self._painted, self._pictures, self._coverage = torch.zeros(0), torch.zeros(0), torch.zeros(0)
        self._hull = _hull_of(given, self._cameras) if given else None

    def paint_if_due(self, step: int, picture: Picture) -> None:
        """Paint every view at the steps that the settings name. picture: the object as it looks now."""
        if step not in self._due:
            return
        strength = self._config.strength.at(step, self._steps)
        with torch.no_grad():
            painted = self._painter.paint(self._present(picture, strength), self._cameras, strength)
        self._keep(painted.permute(0, 2, 3, 1).contiguous())

    def _keep(self, painted: Float[Tensor, "n h w 3"]) -> None:
        self._painted, pictures = painted, painted.clone()
        size = pictures.shape[1]
        self._coverage = coverage_of(pictures, self._config.paper_tolerance, self._config.full_ink)
        if self._hull is not None:
            # No shape that fits the given pictures reaches further.
            self._coverage = self._coverage * resize(self._hull, size)[..., 0]
        for place, picture in self._given.items():
            pictures[place] = resize(picture.original, size)[0]
            self._coverage[place] = resize(picture.mask[..., None], size)[0, ..., 0]
        # The prior's faint ground would be learnt as fog.
        self._pictures = torch.where(self._coverage[..., None] > 0, pictures, torch.ones_like(pictures))

    def _present(self, picture: Picture, strength: float) -> Float[Tensor, "n 3 s s"]:
        """The object as it looks now from every view, at the prior's size; white where it does not matter."""
        n, size = len(self._cameras), self._painter.image_size
        if strength >= 1:
            return torch.ones(n, 3, size, size, device=self._generator.device)
        cameras = self._cameras.at_size(self._size)
        return images_at_prior(torch.cat([picture(cameras[[index]]) for index in range(n)]), size)

    def draw(self, n_views: int, size: int) -> tuple[Int[Tensor, " n"], Cameras]:
        """Some of the views, at random and without repetition where there are enough, and their cameras."""
        device, total = self._generator.device, len(self._cameras)
        if n_views <= total:
            chosen = torch.randperm(total, generator=self._generator, device=device)[:n_views]
        else:
            chosen = torch.randint(total, (n_views,), generator=self._generator, device=device)
        return chosen, self._cameras[chosen].at_size(size)

    def terms(
        self, step: int, chosen: Int[Tensor, " n"], rgb: Float[Tensor, "n h w 3"], opacity: Float[Tensor, "n h w"]
    ) -> dict[str, Term]:
        """Weighted losses of renders of the drawn views. Before the first painting there are none."""
        if not len(self._pictures):
            return {}
        wanted = resize(self._pictures[chosen], rgb.shape[1])
        covered = resize(self._coverage[chosen][..., None], rgb.shape[1])[..., 0]
        rgb_weight, mask_weight = (
            weight.at(step, self._steps) for weight in (self._config.rgb_weight, self._config.mask_weight)
        )
        terms = {}
        if rgb_weight > 0:
            squares = (rgb - wanted).square()
            if self._config.inside_only:
                squares = squares * inside(torch.minimum(covered, opacity.detach()))[..., None]
            terms["target_rgb"] = Term(squares.mean(), rgb_weight)
        if mask_weight > 0:
            terms["target_mask"] = Term((opacity - covered).square().mean(), mask_weight)
        return terms

    def cameras(self) -> Cameras:
        """Of the painted views, at the prior's size."""
        return self._cameras

    def coverage(self) -> Float[Tensor, "n h w"]:
        """How much of each pixel of the painted views the object covers, 0..1; none before the first painting."""
        return self._coverage

    def pictures(self) -> Float[Tensor, "n h w 3"]:
        """The painted views; none before the first painting."""
        return self._pictures

    def state_dict(self) -> dict[str, Any]:
        """The pictures as they were painted: all else follows from them."""
        return {"pictures": self._painted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        pictures = state["pictures"].to(self._generator.device)
        if len(pictures):
            self._keep(pictures)
