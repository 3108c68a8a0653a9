"""Who paints whole novel views: the view prior, each view alone, or a prior that paints sets of views together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.priors.distillation.guidance import images_at_prior
from dreampolish.priors.protocols import SetPrior, SetSubject, ViewCondition, ViewPrior
from dreampolish.scene.cameras import Cameras
from dreampolish.scene.cutout import CutoutSizes, cut_from_plain_background
from dreampolish.scene.pictures import PictureError, resize
from schemas.config.reference import ReferenceConfig
from schemas.config.shared.guidance import ViewTargetsConfig
from stages.guidance.priors import open_set_prior, open_view_prior
from stages.guidance.reference_view import ReferenceView
from stages.runtime.stage import Stage

WHITE = 1.0


class Painter(Protocol):
    """Paints views of the reference's object on white."""

    image_size: int
    """Side of its pictures, pixels."""
    own_views: tuple[tuple[float, float], ...] | None
    """(azimuth, elevation) in degrees of the only views that it paints; None: any."""

    def paint(self, images: Float[Tensor, "n 3 s s"], cameras: Cameras, strength: float) -> Float[Tensor, "n 3 s s"]:
        """Renders painted over; strength: noise added first, fraction of the timesteps; 1: from noise alone."""
        ...


@dataclass(frozen=True)
class KnownView:
    """A picture as the view prior is told of it, and where it was taken from, degrees."""

    condition: ViewCondition
    azimuth_deg: float
    elevation_deg: float

    def turned(self, cameras: Cameras) -> Cameras:
        """Cameras whose azimuths count from this picture, as the prior's poses do."""
        return replace(cameras, azimuth_deg=cameras.azimuth_deg - self.azimuth_deg)


def by_nearest(known: Sequence[KnownView], cameras: Cameras) -> Iterator[tuple[KnownView, Int[Tensor, " n"]]]:
    """Each known picture with the rows of the cameras that no other one lies nearer to by angle; pictures without rows are left out."""
    poses = torch.tensor([(each.azimuth_deg, each.elevation_deg) for each in known], device=cameras.fov_deg.device)
    nearest = _toward(cameras.azimuth_deg, cameras.elevation_deg) @ _toward(*poses.T).T
    chosen = nearest.argmax(dim=1)
    for number, each in enumerate(known):
        rows = (chosen == number).nonzero()[:, 0]
        if len(rows):
            yield each, rows


def _toward(azimuth_deg: Float[Tensor, " n"], elevation_deg: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    """Unit vectors from the object to cameras."""
    azimuth, elevation = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    return torch.stack([elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], dim=-1)


def angle_between(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Degrees between two views, given as (azimuth, elevation)."""
    azimuth, elevation = torch.tensor([first, second]).T
    one, other = _toward(azimuth, elevation)
    return float(torch.rad2deg(torch.atan2(torch.linalg.cross(one, other).norm(), one @ other)))


class SinglePainter:
    """Each view alone, all with one noise, told of the nearest of the known pictures."""

    own_views: tuple[tuple[float, float], ...] | None = None

    def __init__(
        self, prior: ViewPrior, known: Sequence[KnownView], config: ViewTargetsConfig, generator: torch.Generator
    ) -> None:
        self.image_size = prior.image_size
        self._prior, self._known = prior, known
        self._config, self._generator = config, generator

    def paint(self, images: Float[Tensor, "n 3 s s"], cameras: Cameras, strength: float) -> Float[Tensor, "n 3 s s"]:
        """Renders painted over."""
        painted, noise = torch.zeros_like(images), self._generator.get_state()
        for picture, rows in by_nearest(self._known, cameras):
            seen = picture.turned(cameras[rows])
            self._generator.set_state(noise)
            painted[rows] = self._prior.repaint(
                reference=picture.condition,
                images=images[rows],
                pose=self._prior.pose(seen.azimuth_deg, seen.elevation_deg, picture.elevation_deg),
                strength=strength,
                guidance_scale=self._config.guidance_scale,
                steps=self._config.sampling_steps,
                renewed=self._config.renewed,
                generator=self._generator,
            )
        return painted


class SetPainter:
    """Views in sets that are drawn together. Where the prior's pictures lie on grey, they are cut out, and renders are laid on it."""

    def __init__(
        self, prior: SetPrior, reference: ReferenceView, config: ViewTargetsConfig, generator: torch.Generator
    ) -> None:
        self.image_size, self.own_views = prior.image_size, prior.own_views
        self._prior, self._config, self._generator = prior, config, generator
        picture = reference.original
        mask = resize(reference.mask[..., None], picture.shape[1])
        self._subject = SetSubject(
            picture=picture.permute(0, 3, 1, 2),
            mask=mask.permute(0, 3, 1, 2),
            elevation_deg=reference.elevation_deg,
            prompt=reference.prompt,
        )

    def paint(self, images: Float[Tensor, "n 3 s s"], cameras: Cameras, strength: float) -> Float[Tensor, "n 3 s s"]:
        """Renders painted over."""
        views = zip(cameras.azimuth_deg.tolist(), cameras.elevation_deg.tolist(), strict=True)
        painted = self._prior.repaint(
            self._subject,
            images=on_background(images, WHITE, self._prior.background),
            views=self.own_views or tuple(views),
            strength=strength,
            guidance_scale=self._config.guidance_scale,
            steps=self._config.sampling_steps,
            renewed=self._config.renewed,
            generator=self._generator,
        )
        return on_background(painted, self._prior.background, WHITE)


def on_background(images: Float[Tensor, "n 3 s s"], old: float, new: float) -> Float[Tensor, "n 3 s s"]:
    """Pictures on one grey laid on another: what a flood from the border reaches is the background. A picture whose border is not plain
    stays as it is. Sizes and tolerance of the cut are those of the reference's defaults."""
    if old == new:
        return images
    settings = ReferenceConfig()
    sizes = CutoutSizes(**settings.cutout.model_dump())
    laid = []
    for image in images.permute(0, 2, 3, 1).cpu().float():
        try:
            rgba = cut_from_plain_background(image, settings.background_tolerance, sizes)
            laid.append(rgba[..., :3] * rgba[..., 3:] + new * (1 - rgba[..., 3:]))
        except PictureError:
            laid.append(image)
    return torch.stack(laid).permute(0, 3, 1, 2).to(images)


def open_painter(
    stage: Stage,
    config: ViewTargetsConfig,
    reference: ReferenceView,
    generator: torch.Generator,
    view: tuple[ViewPrior, Sequence[KnownView]] | None = None,
) -> Painter:
    """Who paints a run's views: the prior named as `priors.views`, else the view prior, which `view` holds if it is open already."""
    sets = open_set_prior(stage)
    if sets is not None:
        return SetPainter(sets, reference, config, generator)
    prior, known = view or open_view(stage, reference)
    return SinglePainter(prior, known, config, generator)


def open_view(stage: Stage, reference: ReferenceView) -> tuple[ViewPrior, list[KnownView]]:
    """The view prior, and the pictures as it is told of them, at their own size: a stage may render them smaller."""
    prior = open_view_prior(stage)
    return prior, [
        KnownView(prior.condition(images_at_prior(each.original, prior.image_size)), each.azimuth_deg, each.elevation_deg)
        for each in reference.all
    ]
