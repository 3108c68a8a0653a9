"""Guidance of nerf, neus and dmtet: the view prior and the text prior on a batch of renders."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.optim.fit import Stateful, Term
from dreampolish.priors.distillation.guidance import PromptEmbeddings, text_guidance, view_guidance
from dreampolish.priors.distillation.weights import sds_weights
from dreampolish.priors.protocols import TextPrior, ViewPrior
from dreampolish.scene.cameras import Cameras, random_cameras
from schemas.config.shared.geometry import CameraConfig, GeometryConfig
from stages.guidance.objectives import weights_at
from stages.guidance.painted.painters import KnownView, Painter, by_nearest, open_painter, open_view
from stages.guidance.painted.view_targets import Picture, ViewTargets
from stages.guidance.priors import open_text_prior
from stages.guidance.reference_view import ReferenceView
from stages.guidance.rhythm import guided_views
from stages.runtime.stage import Stage


def guidance_cameras(
    config: CameraConfig, progress: tuple[int, int], n_views: int, size: int, generator: torch.Generator
) -> Cameras:
    """Random views; azimuths widen from the front to their full range over the first part of the stage."""
    step, steps = progress
    share = 1.0 if config.widen_until == 0 else min(1.0, (step + 1) / steps / config.widen_until)
    azimuth = (config.azimuth_deg[0] * share, config.azimuth_deg[1] * share)
    return random_cameras(
        n_views=n_views,
        azimuth_range_deg=azimuth,
        elevation_range_deg=config.elevation_deg,
        fov_range_deg=config.fov_deg,
        size=size,
        generator=generator,
    ).to(generator.device)


def open_guide(stage: Stage, config: GeometryConfig, reference: ReferenceView, generator: torch.Generator) -> "GeometryGuide":
    """The guidance of a geometry stage, with the priors that its settings ask for."""
    paints_alone = config.targets.wanted and stage.run.priors.views is None
    view = open_view(stage, reference) if config.uses_view_alone or paints_alone else None
    return GeometryGuide(
        config=config,
        text=open_text_prior(stage) if config.uses_text else None,
        view=view,
        painter=open_painter(stage, config.targets, reference, generator, view=view) if config.targets.wanted else None,
        reference=reference,
        generator=generator,
    )


class GeometryGuide:
    """Guidance of one geometry stage.

    text, view, painter: None where the settings never ask for them; view: the prior and the pictures as it is told of them. A prior whose
    weight is 0 at a step is not asked. The view prior only sees views at the reference's field of view, which is what it
    was trained on; the cameras' settings of geometry stages keep to it.
    """

    def __init__(
        self,
        config: GeometryConfig,
        text: TextPrior | None,
        view: tuple[ViewPrior, Sequence[KnownView]] | None,
        painter: Painter | None,
        reference: ReferenceView,
        generator: torch.Generator,
    ) -> None:
        self._config, self._view, self._generator = config, view, generator
        self._text = None if text is None else (text, _prompts(config, text, reference.prompt))
        self._targets = None
        if painter is not None:
            self._targets = ViewTargets(
                config.targets,
                steps=config.steps,
                size=config.guidance_size,
                painter=painter,
                given=reference.all if reference.others else (),
                generator=generator,
            )
        self._chosen: Tensor | None = None

    def stateful(self) -> dict[str, Stateful]:
        """What a checkpoint must hold of the guidance."""
        return {} if self._targets is None else {"targets": self._targets}

    def prepare(self, step: int, picture: Picture) -> None:
        """Before a step: paint the target views anew where the settings say so. picture: the object as it looks now."""
        if self._targets is not None:
            self._targets.paint_if_due(step, picture)

    def cameras(self, step: int) -> Cameras:
        """The views of a step: of the painted ones where there are such, else random ones."""
        config = self._config
        if self._targets is not None:
            self._chosen, cameras = self._targets.draw(*guided_views(config, step))
            return cameras
        n_views, size = guided_views(config, step)
        return guidance_cameras(
            config=config.cameras,
            progress=(step, config.steps),
            n_views=n_views,
            size=size,
            generator=self._generator,
        )

    def terms(
        self, step: int, rgb: Float[Tensor, "b h w 3"], opacity: Float[Tensor, "b h w"], cameras: Cameras
    ) -> dict[str, Term]:
        """Weighted losses of both priors on renders of `cameras`, the views of this step."""
        painted = self.target_terms(step, rgb, opacity)
        return {**painted, **self.view_terms(step, rgb, cameras), **self.text_terms(step, rgb, cameras)}

    def target_terms(self, step: int, rgb: Float[Tensor, "b h w 3"], opacity: Float[Tensor, "b h w"]) -> dict[str, Term]:
        """The difference of renders of this step's views from the painted ones, where there are such."""
        if self._targets is None or self._chosen is None:
            return {}
        return self._targets.terms(step, self._chosen, rgb, opacity)

    def view_terms(self, step: int, rgb: Float[Tensor, "b h w 3"], cameras: Cameras) -> dict[str, Term]:
        """The view prior's part: SDS with guidance on the reference; of several pictures, on the nearest to each view."""
        settings, steps = self._config.view, self._config.steps
        weight = settings.weight.at(step, steps)
        if weight == 0 or self._view is None:
            return {}
        prior, known = self._view
        losses = [
            view_guidance(
                prior=prior,
                reference=picture.condition,
                reference_elevation_deg=picture.elevation_deg,
                rgb=rgb[rows],
                cameras=picture.turned(cameras[rows]),
                t_range=(settings.t_min.at(step, steps), settings.t_max.at(step, steps)),
                weights=sds_weights(settings.guidance_scale.at(step, steps)),
                generator=self._generator,
            ).loss
            * (len(rows) / len(cameras))
            for picture, rows in by_nearest(known, cameras)
        ]
        return {"view": Term(torch.stack(losses).sum(), weight)}

    def text_terms(self, step: int, rgb: Float[Tensor, "b h w 3"], cameras: Cameras) -> dict[str, Term]:
        """The text prior's part, with any objective that needs no variational domain."""
        settings, steps = self._config.text, self._config.steps
        weight = settings.weight.at(step, steps)
        if weight == 0 or self._text is None:
            return {}
        prior, prompts = self._text
        guided = text_guidance(
            prior=prior,
            prompts=prompts,
            variational=None,
            rgb=rgb,
            cameras=cameras,
            t_range=(settings.t_min.at(step, steps), settings.t_max.at(step, steps)),
            weights=weights_at(settings, step, steps),
            generator=self._generator,
        )
        return {"text": Term(guided.loss, weight)}


def _prompts(config: GeometryConfig, text: TextPrior, prompt: str) -> PromptEmbeddings:
    settings = config.text
    return PromptEmbeddings(
        prior=text,
        prompt=prompt,
        negative=settings.negative_prompt,
        front_deg=settings.front_deg,
        perp_neg_weight=settings.perp_neg_weight,
        blended=settings.view_prompts == "azimuth",
    )
