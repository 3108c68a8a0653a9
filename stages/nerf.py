"""Stage 1: rough structure: a density field under the reference view's anchors and both priors.

Source: DreamCraft3D's coarse NeRF stage (weights and schedules), scaled budgets in `home`.
"""

from collections.abc import Callable, Mapping

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import validate_call
from safetensors.torch import save_file
from torch import Tensor

from dreampolish.fields.density import DensityField
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.optim.fit import Term, fit
from dreampolish.optim.regularizers import distortion_loss, opacity_entropy_loss, orientation_loss, sparsity_loss
from dreampolish.renderers.volume import VolumeRender, render_density
from dreampolish.scene.cameras import SCENE_HALF_SIZE, Cameras
from schemas.artifacts import NerfArtifact, ReferenceArtifact
from schemas.config.stages import NerfConfig
from stages.guidance.geometry import GeometryGuide
from stages.guidance.handover import Switch
from stages.guidance.observer import Shown, StageWatch
from stages.guidance.priors import open_text_prior, open_view_prior, prior_digests
from stages.guidance.reference_view import ReferenceView, anchor_terms, load_reference
from stages.results.files import active_levels, grid_sizes, open_all_levels, save_state
from stages.results.scores import judged, render_previews, write_previews
from stages.runtime.errors import StageError
from stages.runtime.stage import RunContext, Stage, open_stage

OCCUPANCY_INTERVAL = 8
"""Steps between two updates of the occupancy grid."""


class Scene:
    """The density field with its occupancy grid, and how it is rendered."""

    def __init__(self, config: NerfConfig, generator: torch.Generator) -> None:
        self.config, self._generator = config, generator
        self.field = DensityField(
            grid_sizes(config.grid),
            config.grid.hidden_size,
            config.density_scale,
            config.blob_scale,
            config.blob_std,
            config.blob_offset,
            generator,
        )
        self.occupancy = OccupancyGrid(config.occupancy_resolution, SCENE_HALF_SIZE, generator.device)
        self._white = torch.ones(3, device=generator.device)
        self.step_size = 2 * SCENE_HALF_SIZE * 3**0.5 / config.samples_per_ray

    def update_occupancy(self, step: int) -> None:
        """Follow the field: every cell at first, later the occupied ones and some others."""
        fraction = 1.0 if step < 4 * OCCUPANCY_INTERVAL else 0.1
        threshold = 0.01 / self.step_size  # a step through an empty cell stops less than 1 % of the light
        self.occupancy.update(self.field.density, threshold, 0.9, fraction, self._generator)

    def render(self, cameras: Cameras, with_normals: bool, stratified: bool) -> VolumeRender:
        """Pictures on white."""
        generator = self._generator if stratified else None
        return render_density(self.field, self.occupancy, cameras, self.step_size, 1e-2, self._white, with_normals, generator)

    def picture(self, cameras: Cameras) -> Tensor:
        """Colours alone, the same every time."""
        return self.render(cameras, False, False).rgb


@task(name="nerf", cache_policy=NO_CACHE, persist_result=False)
@validate_call
def fit_nerf(reference: ReferenceArtifact, config: NerfConfig, run: RunContext) -> NerfArtifact:
    """Fit a density field. Raises StageError when it ends empty."""
    with open_stage("nerf", run, config, [reference], prior_digests(run, "text", "view", "judge")) as stage:
        if (done := stage.cached(NerfArtifact)) is not None:
            return done
        view = load_reference(stage, reference, config.reference_size)
        scene = Scene(config, stage.generator)
        if config.steps == 0:
            scene.update_occupancy(0)
        guide = GeometryGuide(config, open_text_prior(run), open_view_prior(run), view, stage.generator)
        switch, shown = Switch(config.switch, config.steps), Shown(lambda: {"view": scene.picture(view.camera)[0]})
        result = fit(
            _losses(scene, guide, view, switch, shown),
            _optimizer(scene, config),
            lambda step: 1.0,
            config.steps,
            stage.generator,
            {"field": scene.field, "occupancy": scene.occupancy, "switch": switch, **guide.stateful()},
            stage.checkpoints,
            StageWatch(stage, config.steps, config.preview.interval, shown, switch, view.rgb),
        )
        open_all_levels(scene.field.network.grid)
        return _published(stage, run, scene, view, result.steps, result.reason)


def _optimizer(scene: Scene, config: NerfConfig) -> torch.optim.Optimizer:
    table = scene.field.network.grid.table
    network = [parameter for parameter in scene.field.parameters() if parameter is not table]
    groups = [{"params": [table], "lr": config.grid_lr}, {"params": network, "lr": config.network_lr}]
    return torch.optim.Adam(groups, betas=config.betas, eps=1e-15)


def _losses(
    scene: Scene, guide: GeometryGuide, view: ReferenceView, switch: Switch, shown: Shown
) -> Callable[[int], Mapping[str, Term]]:
    config = scene.config

    def losses(step: int) -> Mapping[str, Term]:
        progress = (step, config.steps)
        scene.field.network.grid.active_levels = active_levels(scene.field.network.grid, config.grid, progress)
        if step % OCCUPANCY_INTERVAL == 0:
            scene.update_occupancy(step)
        guide.prepare(step, scene.picture)
        terms = {}
        shown.keep()
        if step % config.anchor_interval == 0:
            front = scene.render(view.camera, config.anchors.normal.at(*progress) > 0, True)
            terms.update(anchor_terms(config.anchors, progress, view, front.rgb, front.opacity, front.normals_camera))
            switch.observe(front.rgb, front.opacity, view)
            shown.keep(view=front.rgb)
        if step % config.guidance_interval == 0:
            cameras = guide.cameras(step)
            novel = scene.render(cameras, config.orientation_weight.at(*progress) > 0, True)
            terms.update(guide.terms(step, novel.rgb, novel.opacity, cameras))
            terms.update(_regularizers(config, progress, novel))
        return terms

    return losses


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
    if samples.normals is not None:
        loss = orientation_loss(samples.weights, samples.normals, samples.directions)
        terms["orientation"] = Term(loss, config.orientation_weight.at(*progress))
    return terms


def _published(stage: Stage, run: RunContext, scene: Scene, view: ReferenceView, steps: int, reason: str) -> NerfArtifact:
    with torch.no_grad():
        front = scene.render(view.camera, False, False)
        if float(front.opacity.max()) < 0.5:
            raise StageError(
                f"the density field is empty: no pixel of the front view is more than {float(front.opacity.max()):.0%} opaque",
                steps,
                "try another seed, or lower nerf.sparsity_weight",
            )
        views = render_previews(scene.config.preview, scene.picture, stage.device)
        figures = judged(run, view, scene.picture, views)
        entropy = float(opacity_entropy_loss(front.opacity))
    save_state(scene.field, stage.path("field.safetensors"))
    save_file(dict(scene.occupancy.state_dict()), stage.path("occupancy.safetensors"))
    return stage.publish(
        NerfArtifact,
        metrics={**figures, "opacity_entropy": entropy, "steps": float(steps)},
        field=stage.path("field.safetensors"),
        field_config=scene.field.field_config,
        occupancy=stage.path("occupancy.safetensors"),
        previews=write_previews(stage, views),
        steps=steps,
        switch_reason=reason,
    )


if __name__ == "__main__":
    from stages.runtime.command import main

    main("nerf", fit_nerf)
