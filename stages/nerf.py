"""Rough structure: a density field under the reference view's anchors and both priors.

Source: DreamCraft3D's coarse NeRF stage (weights and schedules), scaled budgets in `home`.
"""

from collections.abc import Callable, Mapping

import torch
from safetensors.torch import save_file

from dreampolish.fields.density import DensityField
from dreampolish.fields.hash_grid import ADAM_EPSILON
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.optim.fit import Term, fit
from dreampolish.optim.regularizers import (
    JITTER,
    distortion_loss,
    normal_jitter_loss,
    normal_smooth_loss,
    opacity_entropy_loss,
    orientation_loss,
    sparsity_loss,
)
from dreampolish.renderers.scenes import DensityScene, step_size_for
from dreampolish.renderers.volume import VolumeRender
from dreampolish.scene.cameras import SCENE_HALF_SIZE
from dreampolish.scene.pictures import resize
from schemas.artifacts import NerfArtifact, ReferenceArtifact
from schemas.config.nerf import NerfConfig
from stages.guidance.geometry import GeometryGuide, open_guide
from stages.guidance.grids import active_levels, grid_sizes, open_all_levels
from stages.guidance.handover import Handover
from stages.guidance.reference_view import (
    REFERENCE_VIEW,
    ReferenceView,
    load_reference,
    of_another,
    volume_terms,
)
from stages.guidance.rhythm import is_finer, renders_novel, renders_reference, wants_normals
from stages.results.files import save_state
from stages.results.live import unfinished_density
from stages.results.observer import Preview, StageObserver
from stages.results.scores import TURNTABLE
from stages.runtime.errors import StageError
from stages.runtime.stage import Stage, stage

EARLY_UPDATES = 4
"""First updates of the occupancy grid, which look at every cell."""

LEAST_OPACITY = 0.5
"""Opacity (0..1) that a pixel of the front view must reach, or the field counts as empty."""


@stage("nerf", reads={"reference": REFERENCE_VIEW}, priors=("text", "view", "views"), scorer=TURNTABLE)
def fit_nerf(stage: Stage, reference: ReferenceArtifact, config: NerfConfig) -> NerfArtifact:
    """Fit a density field. Raises StageError when it ends empty."""
    view = load_reference(stage, reference, config.reference_size)
    scene = _empty_scene(config, stage.generator, stage.execution.points_at_once)
    if config.steps == 0:
        scene.update_occupancy(0, early_steps=EARLY_UPDATES * config.occupancy_interval)
    guide = open_guide(stage, config, view, stage.generator)
    handover = Handover(config.switch, config.steps)
    preview = Preview(lambda: {"view": scene.picture(view.camera)[0]}, unfinished_density(scene))
    result = fit(
        losses=_losses(config=config, scene=scene, guide=guide, view=view, handover=handover, preview=preview),
        optimizer=_optimizer(scene, config),
        learning_rate_factor=lambda step: 1.0,
        steps=config.steps,
        generator=stage.generator,
        stateful={"field": scene.field, "occupancy": scene.occupancy, "switch": handover, **guide.stateful()},
        checkpoints=stage.checkpoints,
        observer=StageObserver(
            stage=stage,
            steps=config.steps,
            preview_interval=config.preview.interval,
            shown=preview,
            switch=handover,
            reference=view.rgb,
        ),
    )
    open_all_levels(scene.field.network.grid)
    return _published(stage, scene, view, steps=result.steps, reason=result.reason)


def _empty_scene(config: NerfConfig, generator: torch.Generator, points_at_once: int | None = None) -> DensityScene:
    field = DensityField(
        grid_sizes=grid_sizes(config.grid),
        hidden_width=config.grid.hidden_size,
        density_scale=config.density_scale,
        blob_scale=config.blob_scale,
        blob_std=config.blob_std,
        blob_offset=config.blob_offset,
        generator=generator,
    )
    occupancy = OccupancyGrid(config.occupancy_resolution, SCENE_HALF_SIZE, generator.device)
    field.network.points_at_once = points_at_once
    return DensityScene(field, occupancy, step_size_for(config.samples_per_ray), generator)


def _optimizer(scene: DensityScene, config: NerfConfig) -> torch.optim.Optimizer:
    table = scene.field.network.grid.table
    network = [parameter for parameter in scene.field.parameters() if parameter is not table]
    groups = [{"params": [table], "lr": config.grid_lr}, {"params": network, "lr": config.network_lr}]
    return torch.optim.Adam(groups, betas=config.betas, eps=ADAM_EPSILON)


def _losses(
    config: NerfConfig, scene: DensityScene, guide: GeometryGuide, view: ReferenceView, handover: Handover, preview: Preview
) -> Callable[[int], Mapping[str, Term]]:
    finer = view.whole(config.finer.size)

    def losses(step: int) -> Mapping[str, Term]:
        progress = (step, config.steps)
        scene.field.network.grid.active_levels = active_levels(scene.field.network.grid, config.grid, progress)
        if step % config.occupancy_interval == 0:
            scene.update_occupancy(step, early_steps=EARLY_UPDATES * config.occupancy_interval)
        guide.prepare(step, scene.picture)
        terms = {}
        preview.keep()
        if renders_reference(config, step):
            seen = finer if is_finer(config, step) else view
            front, held = _held_to(config, scene, seen, progress)
            terms.update(held)
            another = seen.another(step // config.anchor_interval)
            if another is not None:
                terms.update(of_another(_held_to(config, scene, another, progress)[1]))
            handover.observe(front.rgb, front.opacity, seen)
            preview.keep(view=resize(front.rgb, view.camera.size))
        if renders_novel(config, step):
            cameras = guide.cameras(step)
            novel = scene.render(cameras, with_normals=wants_normals(config, step), stratified=True)
            terms.update(guide.terms(step, novel.rgb, novel.opacity, cameras))
            terms.update(_regularizers(config, progress, novel))
            if config.normal_jitter_weight.at(*progress) > 0:
                loss = _jitter(scene, novel, config.jittered_points)
                terms["normal_jitter"] = Term(loss, config.normal_jitter_weight.at(*progress))
        return terms

    return losses


def _held_to(
    config: NerfConfig, scene: DensityScene, view: ReferenceView, progress: tuple[int, int]
) -> tuple[VolumeRender, dict[str, Term]]:
    """A render of a given picture's view, and its losses."""
    seen = scene.render(view.camera, with_normals=config.anchors.normal.at(*progress) > 0, stratified=True)
    return seen, volume_terms(config.anchors, progress, view, seen)


def _regularizers(config: NerfConfig, progress: tuple[int, int], render: VolumeRender) -> dict[str, Term]:
    terms = {
        "opacity_entropy": Term(opacity_entropy_loss(render.opacity), config.opacity_entropy_weight.at(*progress)),
        "sparsity": Term(sparsity_loss(render.opacity), config.sparsity_weight.at(*progress)),
    }
    samples = render.samples
    if config.distortion_weight.at(*progress) > 0:
        rays = samples.rays
        loss = distortion_loss(rays.dense(samples.weights), rays.dense(rays.t_starts), rays.dense(rays.t_ends))
        terms["distortion"] = Term(loss, config.distortion_weight.at(*progress))
    if samples.normals is not None and config.orientation_weight.at(*progress) > 0:
        loss = orientation_loss(samples.weights, samples.normals, samples.directions)
        terms["orientation"] = Term(loss, config.orientation_weight.at(*progress))
    if render.normals_camera is not None and config.normal_smooth_weight.at(*progress) > 0:
        loss = normal_smooth_loss(render.normals_camera, render.opacity)
        terms["normal_smooth"] = Term(loss, config.normal_smooth_weight.at(*progress))
    return terms


def _jitter(scene: DensityScene, render: VolumeRender, n_points: int) -> torch.Tensor:
    """How much the field's normals differ from those near them, at some of a render's samples."""
    points, device = render.samples.rays.points, scene.generator.device
    if not len(points):
        return points.sum()
    chosen = points[torch.randint(len(points), (n_points,), generator=scene.generator, device=device)]
    nearby = chosen + JITTER * torch.randn(chosen.shape, generator=scene.generator, device=device)
    normals = scene.field.with_normals(torch.cat([chosen, nearby]))[2]
    return normal_jitter_loss(*normals.chunk(2))


def _published(stage: Stage, scene: DensityScene, view: ReferenceView, *, steps: int, reason: str) -> NerfArtifact:
    with torch.no_grad():
        front = scene.render(view.camera, with_normals=False, stratified=False)
        if float(front.opacity.max()) < LEAST_OPACITY:
            raise StageError(
                f"the density field is empty: no pixel of the front view is more than {float(front.opacity.max()):.0%} opaque",
                steps,
                "try another seed, or lower nerf.sparsity_weight",
            )
        entropy = float(opacity_entropy_loss(front.opacity))
    save_state(scene.field, stage.path("field.safetensors"))
    save_file(dict(scene.occupancy.state_dict()), stage.path("occupancy.safetensors"))
    return stage.publish(
        NerfArtifact,
        metrics={"opacity_entropy": entropy, "steps": float(steps)},
        field=stage.path("field.safetensors"),
        field_config=scene.field.field_config,
        occupancy=stage.path("occupancy.safetensors"),
        steps=steps,
        switch_reason=reason,
    )


if __name__ == "__main__":
    from stages.runtime.command import main

    main(fit_nerf)
