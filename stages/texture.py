"""Stage 5: the texture, painted on the frozen mesh by Domain Score Distillation.

delta = lambda_realistic (e_y - e_lora) + lambda_stable (e_y - e_0) [choice]: the variational domain e_lora is a LoRA fitted to the
current renders and conditioned on the camera; any other objective of distillation/weights.py is a setting away. The reference view is
anchored by its colours.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import validate_call
from torch import Tensor

from dreampolish.distillation.guidance import GuidanceStep, PromptEmbeddings, mean_norm, text_guidance
from dreampolish.distillation.scores import variational_loss
from dreampolish.fields.color import ColorField
from dreampolish.optim.fit import Stateful, Term, fit
from dreampolish.priors.protocols import TextPrior, VariationalDomain
from dreampolish.scene.cameras import Cameras
from schemas.artifacts import PolishedMeshArtifact, ReferenceArtifact, TexturedMeshArtifact
from schemas.config.texture import TextureConfig
from stages.guidance.geometry import guidance_cameras
from stages.guidance.objectives import needs_variational, weights_at
from stages.guidance.observer import Figures, Shown, StageWatch
from stages.guidance.priors import open_text_prior, prior_digests
from stages.guidance.reference_view import ReferenceView, load_reference, reference_color_loss
from stages.results.files import Mesh, active_levels, color_of_field, load_colors, load_mesh, open_all_levels, write_mesh
from stages.results.scores import judged, render_previews, write_previews
from stages.runtime.stage import RunContext, Stage, open_stage


class Variational:
    """The LoRA domain with its optimiser, fitted to renders between the texture's own steps."""

    def __init__(self, domain: VariationalDomain, prior: TextPrior, config: TextureConfig, generator: torch.Generator) -> None:
        self.domain, self._prior, self._config, self._generator = domain, prior, config, generator
        self._optimizer = torch.optim.AdamW(domain.parameters(), lr=config.lora_lr)

    def fit(self, guided: GuidanceStep, cameras: Cameras) -> float:
        """`lora_steps` updates on the latents of a guidance step; the last loss (nan-free: 0 without updates)."""
        assert guided.text is not None
        value = 0.0
        for _ in range(self._config.lora_steps):
            loss = variational_loss(
                self.domain,
                self._prior,
                guided.noised.latents,
                guided.text.plain,
                cameras.world_from_camera,
                self._config.camera_dropout,
                self._generator,
            )
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            value = float(loss.detach())
        return value

    def state_dict(self) -> dict[str, object]:
        """Adapter and optimiser."""
        return {"domain": self.domain.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, dict[str, Tensor]]) -> None:
        """Restore what `state_dict` gave."""
        self.domain.load_state_dict(state["domain"])
        self._optimizer.load_state_dict(state["optimizer"])


@dataclass(frozen=True)
class Painting:
    """What a texturing step needs."""

    config: TextureConfig
    prior: TextPrior
    prompts: PromptEmbeddings
    variational: Variational | None
    view: ReferenceView
    mesh: Mesh
    colors: ColorField
    start: ColorField
    """The colours that the mesh came with; they do not change."""
    generator: torch.Generator


@task(name="texture", cache_policy=NO_CACHE, persist_result=False)
@validate_call(config={"arbitrary_types_allowed": True})
def paint_texture(
    reference: ReferenceArtifact, polish: PolishedMeshArtifact, config: TextureConfig, run: RunContext
) -> TexturedMeshArtifact:
    """Paint the polished mesh. Reports the LoRA's loss and the size of both DSD terms beside the reference-view figures."""
    with open_stage("texture", run, config, [reference, polish], prior_digests(run, "text", "judge")) as stage:
        if (done := stage.cached(TexturedMeshArtifact)) is not None:
            return done
        view = load_reference(stage, reference, config.size)
        prior = open_text_prior(run)
        variational = None
        if needs_variational(config):
            variational = Variational(prior.add_lora(config.lora_rank, stage.generator), prior, config, stage.generator)
        prompts = PromptEmbeddings(prior, view.prompt, config.negative_prompt, config.front_deg, 0.0)
        mesh, colors = load_mesh(stage, polish), load_colors(stage, polish)
        start = copy.deepcopy(colors).requires_grad_(False)
        painting = Painting(config, prior, prompts, variational, view, mesh, colors, start, stage.generator)
        figures = _paint(painting, stage)
        return _published(painting, run, stage, figures)


def _paint(painting: Painting, stage: Stage) -> dict[str, float]:
    """Optimise the colours; the last figures of the distillation."""
    config, colors = painting.config, painting.colors
    network = [parameter for name, parameter in colors.named_parameters() if "grid" not in name]
    optimizer = torch.optim.Adam(
        [
            {"params": [colors.network.grid.table], "lr": config.grid_lr},
            {"params": network, "lr": config.network_lr},
        ],
        betas=(0.9, 0.99),
        eps=1e-15,
    )

    shown = Shown(lambda: {"view": painting.mesh.render(painting.view.camera, color_of_field(colors), 1, True).rgb[0]})
    watch = StageWatch(stage, config.steps, config.preview.interval, shown, None, painting.view.rgb)
    stateful: dict[str, Stateful] = {"colors": colors, "figures": watch.extra}
    if painting.variational is not None:
        stateful["variational"] = painting.variational
    fit(
        _losses(painting, watch.extra, shown),
        optimizer,
        lambda step: config.lr_factor.at(step, config.steps),
        config.steps,
        stage.generator,
        stateful,
        stage.checkpoints,
        watch,
    )
    open_all_levels(colors.network.grid)
    return dict(watch.extra)


def _losses(painting: Painting, extra: Figures, shown: Shown) -> Callable[[int], Mapping[str, Term]]:
    config, colors = painting.config, painting.colors

    def losses(step: int) -> Mapping[str, Term]:
        progress = (step, config.steps)
        colors.network.grid.active_levels = active_levels(colors.network.grid, config.grid, progress)
        color_of = color_of_field(colors)
        terms = {}
        shown.keep()
        if config.anchors.rgb.at(*progress) > 0:
            front = painting.mesh.render(painting.view.camera, color_of, 1, True)
            loss = reference_color_loss(front.rgb, painting.view, config.mask_erosion)
            terms["reference_rgb"] = Term(loss, config.anchors.rgb.at(*progress))
            shown.keep(view=front.rgb)
        cameras = guidance_cameras(config.cameras, progress, config.views, config.size, painting.generator)
        rendered = painting.mesh.render(cameras, color_of, 1, True)
        guided = text_guidance(
            painting.prior,
            painting.prompts,
            None if painting.variational is None else painting.variational.domain,
            rendered.rgb,
            cameras,
            (config.t_min.at(*progress), config.t_max.at(*progress)),
            weights_at(config, *progress),
            painting.generator,
        )
        terms["distillation"] = Term(guided.loss, config.weight.at(*progress))
        if config.anchors.drift.at(*progress) > 0:
            with torch.no_grad():
                before = painting.mesh.render(cameras, color_of_field(painting.start), 1, True)
            loss = drift_loss(rendered.rgb, before.rgb, before.alpha, config.anchors.drift_window)
            terms["drift"] = Term(loss, config.anchors.drift.at(*progress))
        extra.update(domain_norms(guided, config, progress))
        if painting.variational is not None:
            extra["lora_loss"] = painting.variational.fit(guided, cameras)
        return terms

    return losses


def domain_norms(guided: GuidanceStep, config: TextureConfig, progress: tuple[int, int]) -> dict[str, float]:
    """Root mean squares of lambda_realistic (e_y - e_lora) and lambda_stable (e_y - e_0), as far as both predictions are there."""
    scores, norms = guided.scores, {}
    if "prompt" in scores and "variational" in scores:
        realistic = mean_norm(scores["prompt"] - scores["variational"])
        norms["realistic_norm"] = config.lambda_realistic.at(*progress) * realistic
    if "prompt" in scores and "empty" in scores:
        norms["stable_norm"] = config.lambda_stable.at(*progress) * mean_norm(scores["prompt"] - scores["empty"])
    return norms


def drift_loss(
    rgb: Float[Tensor, "b h w 3"], before: Float[Tensor, "b h w 3"], alpha: Float[Tensor, "b h w"], window: int
) -> Float[Tensor, ""]:
    """Mean absolute difference of two sets of pictures after averaging over squares of `window` pixels, per covered share.

    alpha: of both sets, 0 outside the object, where they agree. Detail that leaves a square's mean alone costs nothing.
    """
    pooled = torch.nn.functional.avg_pool2d((rgb - before).permute(0, 3, 1, 2), window, ceil_mode=True)
    return pooled.abs().mean() / alpha.mean().clamp_min(1e-3)


def _published(painting: Painting, run: RunContext, stage: Stage, figures: Mapping[str, float]) -> TexturedMeshArtifact:
    def render(cameras: Cameras) -> Tensor:
        return painting.mesh.render(cameras, color_of_field(painting.colors), 2, True).rgb

    views = render_previews(painting.config.preview, render, stage.device)
    with torch.no_grad():
        scores = judged(run, painting.view, render, views)
    return stage.publish(
        TexturedMeshArtifact,
        metrics={**scores, **figures},
        previews=write_previews(stage, views),
        **write_mesh(stage, painting.mesh, painting.colors),
    )


if __name__ == "__main__":
    from stages.runtime.command import main

    main("texture", paint_texture)
