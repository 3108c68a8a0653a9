"""The texture, painted on the frozen mesh by Domain Score Distillation.

delta = lambda_realistic (e_y - e_lora) + lambda_stable (e_y - e_0) [choice]: the variational domain e_lora is a LoRA fitted to the
current renders and conditioned on the camera; any other objective of distillation/weights.py is a setting away. The reference view is
anchored by its colours.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreampolish.fields.color import ColorField, fit_colors
from dreampolish.fields.hash_grid import ADAM_EPSILON
from dreampolish.optim.fit import Stateful, Term, fit
from dreampolish.priors.distillation.guidance import GuidanceStep, PromptEmbeddings, mean_norm, text_guidance
from dreampolish.priors.distillation.scores import variational_losses
from dreampolish.priors.protocols import TextPrior, VariationalDomain
from dreampolish.renderers.mesh import Mesh, color_of_field
from dreampolish.renderers.seen_colors import spread_colors, surface_colors
from dreampolish.scene.cameras import Cameras
from schemas.artifacts import PolishedMeshArtifact, ReferenceArtifact, TexturedMeshArtifact
from schemas.config.texture import TextureConfig
from stages.guidance.geometry import guidance_cameras
from stages.guidance.grids import active_levels, open_all_levels
from stages.guidance.objectives import needs_variational, weights_at
from stages.guidance.painted.painters import open_painter
from stages.guidance.painted.view_targets import ViewTargets
from stages.guidance.priors import open_text_prior, seeded_noise
from stages.guidance.reference_view import REFERENCE_VIEW, ReferenceView, load_reference, of_another, reference_color_loss
from stages.results.files import load_colors, load_mesh, load_painted, write_mesh
from stages.results.live import unfinished_mesh
from stages.results.observer import Figures, Preview, StageObserver
from stages.results.scores import TURNTABLE
from stages.runtime.context import RunContext
from stages.runtime.stage import Stage, stage

NO_PERP_NEG = 0.0
"""Perp-Neg's weight in this stage: off."""

LEAST_COVERED = 1e-3
"""Least covered share of the pictures that the drift is divided by: a guard where the object is out of sight."""


class Variational:
    """The LoRA domain with its optimiser, fitted to renders between the texture's own steps.

    generator: of these fits alone, so that cameras, noise and painted views are the same ones under every objective.
    """

    def __init__(self, domain: VariationalDomain, prior: TextPrior, config: TextureConfig, generator: torch.Generator) -> None:
        self.domain, self.generator, self._prior, self._config = domain, generator, prior, config
        self._optimizer = torch.optim.AdamW(domain.parameters(), lr=config.lora_lr)
        # In float16 a quarter of the gradients would underflow to 0 (docs/choices.md).
        is_half = domain.number_format == torch.float16
        self._scaler = torch.amp.GradScaler(generator.device.type, enabled=is_half)

    def fit(self, guided: GuidanceStep, cameras: Cameras) -> float:
        """`lora_steps` updates on the latents of a guidance step; the last loss (nan-free: 0 without updates)."""
        assert guided.text is not None
        value = 0.0
        for _ in range(self._config.lora_steps):
            losses = variational_losses(
                domain=self.domain,
                prior=self._prior,
                latents=guided.noised.latents,
                plain=guided.text.plain,
                world_from_camera=cameras.world_from_camera,
                camera_dropout=self._config.camera_dropout,
                generator=self.generator,
            )
            self._optimizer.zero_grad(set_to_none=True)
            parts = []
            for part in losses:
                self._scaler.scale(part).backward()
                parts.append(part.detach())
            self._scaler.step(self._optimizer)
            self._scaler.update()
            value = float(torch.stack(parts).sum())
        return value

    def state_dict(self) -> dict[str, object]:
        """Adapter, optimiser, the scale of the loss, and the generator."""
        return {
            "domain": self.domain.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.domain.load_state_dict(state["domain"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self.generator.set_state(state["generator"])


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
    held: Int[Tensor, " h"] | None
    """Faces of a user's own mesh that are not to be painted; None where all are."""
    targets: ViewTargets | None
    generator: torch.Generator


@stage(
    "texture",
    reads={"reference": REFERENCE_VIEW, "polish": ("mesh", "color_field", "color_config")},
    priors=("text", "view", "views"),
    scorer=TURNTABLE,
)
def paint_texture(
    stage: Stage, reference: ReferenceArtifact, polish: PolishedMeshArtifact, config: TextureConfig
) -> TexturedMeshArtifact:
    """Paint the polished mesh. Reports the LoRA's loss and the size of both DSD terms beside the reference-view figures."""
    view = load_reference(stage, reference, config.size)
    prior = open_text_prior(stage)
    variational = open_variational(stage.run, prior, config)
    prompts = PromptEmbeddings(
        prior=prior,
        prompt=view.prompt,
        negative=config.negative_prompt,
        front_deg=config.front_deg,
        perp_neg_weight=NO_PERP_NEG,
    )
    mesh, colors = load_mesh(stage, polish), load_colors(stage, polish)
    mesh = replace(mesh, views_at_once=stage.execution.rendered_at_once)
    start = copy.deepcopy(colors).requires_grad_(requires_grad=False)
    painted = load_painted(stage, polish)
    painting = Painting(
        config=config,
        prior=prior,
        prompts=prompts,
        variational=variational,
        view=view,
        mesh=mesh,
        colors=colors,
        start=start,
        held=None if painted is None else (~painted).nonzero()[:, 0],
        targets=_targets(stage, config, view),
        generator=stage.generator,
    )
    figures = _paint(painting, stage)
    return stage.publish(TexturedMeshArtifact, metrics=figures, **write_mesh(stage, mesh, colors))


def open_variational(run: RunContext, prior: TextPrior, config: TextureConfig) -> Variational | None:
    """The LoRA of objectives that have one."""
    if not needs_variational(config):
        return None
    generator = seeded_noise(run, "variational")
    return Variational(prior.add_lora(config.lora_rank, generator), prior, config, generator)


def _targets(stage: Stage, config: TextureConfig, view: ReferenceView) -> ViewTargets | None:
    """The views that the view prior paints, where the settings ask for them."""
    if not config.targets.wanted:
        return None
    painter = open_painter(stage, config.targets, view, stage.generator)
    return ViewTargets(
        config.targets,
        steps=config.steps,
        size=config.size,
        painter=painter,
        given=view.all if view.others else (),
        generator=stage.generator,
    )


def _paint(painting: Painting, stage: Stage) -> dict[str, float]:
    """Optimise the colours; the last figures of the distillation."""
    config, colors = painting.config, painting.colors
    network = [parameter for name, parameter in colors.named_parameters() if "grid" not in name]
    optimizer = torch.optim.Adam(
        [
            {"params": [colors.network.grid.table], "lr": config.grid_lr},
            {"params": network, "lr": config.network_lr},
        ],
        betas=config.betas,
        eps=ADAM_EPSILON,
    )

    preview = Preview(
        lambda: {"view": painting.mesh.render(painting.view.camera, color_of_field(colors), 1, smooth=True).rgb[0]},
        unfinished_mesh(lambda: painting.mesh, colors),
    )
    observer = StageObserver(
        stage=stage,
        steps=config.steps,
        preview_interval=config.preview.interval,
        shown=preview,
        switch=None,
        reference=painting.view.rgb,
    )
    stateful: dict[str, Stateful] = {"colors": colors, "figures": observer.extra}
    if painting.variational is not None:
        stateful["variational"] = painting.variational
    if painting.targets is not None:
        stateful["targets"] = painting.targets
    fit(
        losses=_losses(painting, observer.extra, preview),
        optimizer=optimizer,
        learning_rate_factor=lambda step: config.lr_factor.at(step, config.steps),
        steps=config.steps,
        generator=stage.generator,
        stateful=stateful,
        checkpoints=stage.checkpoints,
        observer=observer,
    )
    open_all_levels(colors.network.grid)
    return dict(observer.extra)


def _losses(painting: Painting, extra: Figures, preview: Preview) -> Callable[[int], Mapping[str, Term]]:
    config, colors = painting.config, painting.colors

    def losses(step: int) -> Mapping[str, Term]:
        progress = (step, config.steps)
        colors.network.grid.active_levels = active_levels(colors.network.grid, config.grid, progress)
        color_of = color_of_field(colors)
        _paint_targets(painting, step)
        terms: dict[str, Term] = {}
        preview.keep()
        if config.anchors.rgb.at(*progress) > 0:
            front, held = _held_to(painting, painting.view, progress)
            terms |= held
            preview.keep(view=front)
            another = painting.view.another(step)
            if another is not None:
                terms |= of_another(_held_to(painting, another, progress)[1])
        terms |= _target_terms(painting, step)
        terms |= _hold_terms(painting, progress)
        cameras = guidance_cameras(
            config=config.cameras, progress=progress, n_views=config.views, size=config.size, generator=painting.generator
        )
        rendered = painting.mesh.render(cameras, color_of, 1, smooth=True)
        guided = text_guidance(
            prior=painting.prior,
            prompts=painting.prompts,
            variational=None if painting.variational is None else painting.variational.domain,
            rgb=rendered.rgb,
            cameras=cameras,
            t_range=(config.t_min.at(*progress), config.t_max.at(*progress)),
            weights=weights_at(config, *progress),
            generator=painting.generator,
        )
        terms["distillation"] = Term(guided.loss, config.weight.at(*progress))
        if config.anchors.drift.at(*progress) > 0:
            with torch.no_grad():
                before = painting.mesh.render(cameras, color_of_field(painting.start), 1, smooth=True)
            loss = drift_loss(rendered.rgb, before.rgb, before.alpha, config.anchors.drift_window)
            terms["drift"] = Term(loss, config.anchors.drift.at(*progress))
        extra.update(domain_norms(guided, config, progress))
        if painting.variational is not None:
            extra["lora_loss"] = painting.variational.fit(guided, cameras)
        return terms

    return losses


def _held_to(
    painting: Painting, view: ReferenceView, progress: tuple[int, int]
) -> tuple[Float[Tensor, "1 h w 3"], dict[str, Term]]:
    """A render of a given picture's view, and its loss."""
    config = painting.config
    seen = painting.mesh.render(view.camera, color_of_field(painting.colors), 1, smooth=True)
    loss = reference_color_loss(seen.rgb, view, config.mask_erosion)
    return seen.rgb, {"reference_rgb": Term(loss, config.anchors.rgb.at(*progress))}


def _paint_targets(painting: Painting, step: int) -> None:
    """Let the view prior paint its views where that is due; before the first step the field learns them."""
    targets, color_of = painting.targets, color_of_field(painting.colors)
    if targets is None:
        return
    targets.paint_if_due(step, lambda cameras: painting.mesh.render(cameras, color_of, 1, smooth=True).rgb)
    if step == 0 and painting.config.block_in_steps > 0 and len(targets.pictures()):
        _block_in(painting, targets)


def _target_terms(painting: Painting, step: int) -> dict[str, Term]:
    """The difference of renders from the views that the view prior painted, where there are such."""
    targets, config, color_of = painting.targets, painting.config, color_of_field(painting.colors)
    if targets is None:
        return {}
    chosen, cameras = targets.draw(config.views, config.size)
    seen = painting.mesh.render(cameras, color_of, 1, smooth=True)
    return targets.terms(step, chosen, seen.rgb, seen.alpha)


def _block_in(painting: Painting, targets: ViewTargets) -> None:
    """Teach the field what the reference and the painted views show of the surface."""
    config, grid = painting.config, painting.colors.network.grid
    cameras, pictures, covered = targets.cameras(), targets.pictures(), targets.coverage()
    views = [(each.camera, each.rgb, each.mask) for each in painting.view.all] * config.block_in_front
    views += [(cameras[[index]], pictures[[index]], covered[[index]]) for index in range(len(pictures))]
    seen = [
        surface_colors(mesh=painting.mesh, camera=camera, picture=picture, covered=share, facing=config.block_in_facing)
        for camera, picture, share in views
    ]
    points, colors = torch.cat([places for places, _ in seen]), torch.cat([found for _, found in seen])
    if not len(points):
        return
    unseen, nearest = spread_colors(painting.mesh, points, colors, painting.generator)
    levels, grid.active_levels = grid.active_levels, grid.sizes.n_levels
    fit_colors(
        field=painting.colors,
        points=torch.cat([points, unseen]),
        colors=torch.cat([colors, nearest]),
        steps=config.block_in_steps,
        batch=config.block_in_batch,
        learning_rate=config.block_in_lr,
        generator=painting.generator,
    )
    grid.active_levels = levels


def _hold_terms(painting: Painting, progress: tuple[int, int]) -> dict[str, Term]:
    """The mean change of colours on the faces that are not to be painted."""
    held, config, generator = painting.held, painting.config, painting.generator
    if held is None:
        return {}
    chosen = held[torch.randint(len(held), (config.held_points,), generator=generator, device=held.device)]
    shares = torch.rand(len(chosen), 3, generator=generator, device=held.device)
    shares = shares / shares.sum(-1, keepdim=True)
    places = (shares[..., None] * painting.mesh.vertices[painting.mesh.faces[chosen]]).sum(1)
    change = (painting.colors(places) - painting.start(places)).square().mean()
    return {"hold": Term(change, config.hold_weight.at(*progress))}


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
    return pooled.abs().mean() / alpha.mean().clamp_min(LEAST_COVERED)


if __name__ == "__main__":
    from stages.runtime.command import main

    main(paint_texture)
