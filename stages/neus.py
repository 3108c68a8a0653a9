"""Stage 2: the density becomes a signed distance field, which is sharpened under the anchors and both priors.

The conversion is real [choice]: automatic level of the density, distance transform, fit of the SDF network and its colours; DreamCraft3D
restarts from a sphere instead. Rendering and eikonal term after NeuS (arXiv:2106.10689).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import validate_call
from safetensors.torch import save_file
from torch import Tensor

from dreampolish.fields.density_to_sdf import EmptyFieldError, FitReport, fit_sdf, sdf_from_density
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField
from dreampolish.fields.smoothing import Smoothing
from dreampolish.optim.fit import Term, fit
from dreampolish.optim.regularizers import eikonal_loss, opacity_entropy_loss, orientation_loss, sparsity_loss
from dreampolish.renderers.neus import NeusRender, render_sdf, update_surface_occupancy
from dreampolish.scene.cameras import SCENE_HALF_SIZE, Cameras, orbit_cameras
from schemas.artifacts import NerfArtifact, ReferenceArtifact, SdfArtifact
from schemas.config.stages import NeusConfig
from stages.guidance.geometry import GeometryGuide
from stages.guidance.handover import Switch
from stages.guidance.observer import Shown, StageWatch
from stages.guidance.priors import open_text_prior, open_view_prior, prior_digests
from stages.guidance.reference_view import REFERENCE_FOV_DEG, ReferenceView, anchor_terms, load_reference
from stages.results.files import grid_sizes, load_density, load_occupancy, save_state
from stages.results.scores import judged, render_previews, write_previews
from stages.runtime.errors import StageError
from stages.runtime.stage import RunContext, Stage, open_stage

OCCUPANCY_INTERVAL = 16
"""Steps between two updates of the occupancy grid."""

HELD_POINTS = 4096
"""Points a step at which the surface is held to the conversion's."""


@dataclass(frozen=True)
class Surface:
    """The SDF with its occupancy grid, and how it is rendered."""

    config: NeusConfig
    field: SdfField
    occupancy: OccupancyGrid
    start: Tensor
    """Points on the surface that the conversion found, world frame."""
    generator: torch.Generator

    @property
    def step_size(self) -> float:
        """Length of an even step through the occupied cells, world units."""
        return 2 * SCENE_HALF_SIZE * 3**0.5 / self.config.samples_per_ray

    def update_occupancy(self) -> None:
        """Follow the surface."""
        margin = max(3.0 / float(self.field.inverse_std), self.step_size)
        update_surface_occupancy(self.occupancy, self.field, margin, self.generator)

    def render(self, cameras: Cameras, stratified: bool) -> NeusRender:
        """Pictures on white, at NeuS's exact opacity: its cosine annealing helps a sphere find a shape, ours begins with one."""
        white = torch.ones(3, device=self.generator.device)
        generator = self.generator if stratified else None
        return render_sdf(
            self.field, self.occupancy, cameras, self.step_size, self.config.shell_parts, 1e-3, 1.0, white, generator
        )

    def distance_from_start(self, n_points: int) -> Tensor:
        """Mean |sdf| at random points of the surface that the conversion found, world units."""
        generator, device = self.generator, self.start.device
        chosen = torch.randint(len(self.start), (n_points,), generator=generator, device=device)
        return self.field.sdf(self.start[chosen]).abs().mean()

    def picture(self, cameras: Cameras) -> Tensor:
        """Colours alone, the same every time."""
        return self.render(cameras, False).picture.rgb


@task(name="neus", cache_policy=NO_CACHE, persist_result=False)
@validate_call
def refine_sdf(reference: ReferenceArtifact, nerf: NerfArtifact, config: NeusConfig, run: RunContext) -> SdfArtifact:
    """Fit an SDF to the NeRF's level set, then sharpen it under the priors. Reads `nerf.field`; StageError when it is empty."""
    with open_stage("neus", run, config, [reference, nerf], prior_digests(run, "text", "view", "judge")) as stage:
        if (done := stage.cached(SdfArtifact)) is not None:
            return done
        view = load_reference(stage, reference, config.reference_size)
        surface, report = _converted(stage, nerf, config)
        guide = GeometryGuide(config, open_text_prior(run), open_view_prior(run), view, stage.generator)
        switch, shown = Switch(config.switch, config.steps), Shown(lambda: {"view": surface.picture(view.camera)[0]})
        result = fit(
            _losses(surface, guide, view, switch, shown),
            _optimizer(surface.field, config),
            lambda step: 1.0,
            config.steps,
            stage.generator,
            {"field": surface.field, "occupancy": surface.occupancy, "switch": switch, **guide.stateful()},
            stage.checkpoints,
            StageWatch(stage, config.steps, config.preview.interval, shown, switch, view.rgb),
        )
        return _published(stage, run, surface, view, report, result.steps, result.reason)


def _converted(stage: Stage, nerf: NerfArtifact, config: NeusConfig) -> tuple[Surface, FitReport]:
    """The NeRF's geometry and colours as an SDF field."""
    source, occupancy = load_density(stage, nerf), load_occupancy(stage, nerf, nerf.occupancy)
    cameras = _conversion_cameras().to(stage.device)
    step_size = 2 * SCENE_HALF_SIZE * 3**0.5 / config.samples_per_ray
    try:
        target = sdf_from_density(
            source, occupancy, cameras, config.conversion_resolution, config.conversion_smoothing, step_size, 24,
            config.conversion_component_share, config.conversion_agreement,
            Smoothing(_onlookers(), config.conversion_closing, config.conversion_blur),
        )  # fmt: skip
    except EmptyFieldError as error:
        raise StageError(f"neus: {error}", None, "or use another seed") from error
    field = SdfField(grid_sizes(config.grid), config.grid.hidden_size, 0.5, config.initial_inverse_std, stage.generator)
    report = fit_sdf(field, target, source, config.conversion_steps, 8192, config.grid_lr, stage.generator)
    fresh = OccupancyGrid(config.occupancy_resolution, SCENE_HALF_SIZE, stage.device)
    surface = Surface(config, field, fresh, target.surface, stage.generator)
    surface.update_occupancy()
    return surface, report


def _conversion_cameras() -> Cameras:
    """Views at three heights, from which the automatic level is judged."""
    azimuth = torch.arange(12, dtype=torch.float32) * 30
    elevation = torch.tensor([-10.0, 15.0, 50.0]).repeat(4)
    return orbit_cameras(azimuth, elevation, torch.full((12,), REFERENCE_FOV_DEG), 64)


def _onlookers() -> Cameras:
    """Views from all around, above and below, whose outlines the conversion's smoothing leaves alone."""
    views = [
        (360 * index / count, elevation)
        for elevation, count in ((-60.0, 6), (-30.0, 10), (0.0, 14), (30.0, 14), (60.0, 8), (85.0, 2))
        for index in range(count)
    ]
    azimuth, elevation = torch.tensor(views).unbind(-1)
    return orbit_cameras(azimuth, elevation, torch.full((len(views),), REFERENCE_FOV_DEG), 64)


def _optimizer(field: SdfField, config: NeusConfig) -> torch.optim.Optimizer:
    table = field.network.grid.table
    network = [parameter for parameter in field.network.parameters() if parameter is not table]
    groups = [
        {"params": [table], "lr": config.grid_lr * config.refine_lr_factor},
        {"params": network, "lr": config.network_lr},
        {"params": [field.sharpness], "lr": config.sharpness_lr},
    ]
    return torch.optim.Adam(groups, betas=config.betas, eps=1e-15)


def _losses(
    surface: Surface, guide: GeometryGuide, view: ReferenceView, switch: Switch, shown: Shown
) -> Callable[[int], Mapping[str, Term]]:
    config = surface.config

    def losses(step: int) -> Mapping[str, Term]:
        progress = (step, config.steps)
        if step % OCCUPANCY_INTERVAL == 0:
            surface.update_occupancy()
        guide.prepare(step, surface.picture)
        terms = {}
        shown.keep()
        if step % config.anchor_interval == 0:
            front = surface.render(view.camera, True)
            picture = front.picture
            terms.update(anchor_terms(config.anchors, progress, view, picture.rgb, picture.opacity, picture.normals_camera))
            terms["eikonal"] = Term(eikonal_loss(front.gradients), config.eikonal_weight.at(*progress))
            switch.observe(picture.rgb, picture.opacity, view)
            shown.keep(view=picture.rgb)
        if config.hold_weight.at(*progress) > 0:
            terms["hold"] = Term(surface.distance_from_start(HELD_POINTS), config.hold_weight.at(*progress))
        if step % config.guidance_interval == 0:
            cameras = guide.cameras(step)
            novel = surface.render(cameras, True)
            terms.update(guide.terms(step, novel.picture.rgb, novel.picture.opacity, cameras))
            terms.update(_regularizers(config, progress, novel))
        return terms

    return losses


def _regularizers(config: NeusConfig, progress: tuple[int, int], render: NeusRender) -> dict[str, Term]:
    picture, samples = render.picture, render.picture.samples
    terms = {
        "eikonal_novel": Term(eikonal_loss(render.gradients), config.eikonal_weight.at(*progress)),
        "sparsity": Term(sparsity_loss(picture.opacity), config.sparsity_weight.at(*progress)),
        "opacity_entropy": Term(opacity_entropy_loss(picture.opacity), config.opacity_entropy_weight.at(*progress)),
    }
    if samples.normals is not None and config.orientation_weight.at(*progress) > 0:
        loss = orientation_loss(samples.weights, samples.normals, samples.directions)
        terms["orientation"] = Term(loss, config.orientation_weight.at(*progress))
    return terms


def _published(
    stage: Stage, run: RunContext, surface: Surface, view: ReferenceView, report: FitReport, steps: int, reason: str
) -> SdfArtifact:
    with torch.no_grad():
        surface.update_occupancy()
        front = surface.render(view.camera, False)
        if float(front.picture.opacity.max()) < 0.5:
            raise StageError("the signed distance field has no surface in the front view", steps, "lower neus.sparsity_weight")
        views = render_previews(surface.config.preview, surface.picture, stage.device)
        figures = judged(run, view, surface.picture, views)
        moved = surface.field.sdf(surface.start).abs()
        eikonal = float(eikonal_loss(front.gradients))
    save_state(surface.field, stage.path("field.safetensors"))
    save_file(dict(surface.occupancy.state_dict()), stage.path("occupancy.safetensors"))
    return stage.publish(
        SdfArtifact,
        metrics={
            **figures,
            "eikonal_error": eikonal,
            "conversion_deviation": report.mean_deviation,
            "surface_deviation": float(moved.mean()),
            "surface_deviation_max": float(moved.max()),
            "inverse_std": float(surface.field.inverse_std),
            "steps": float(steps),
        },
        field=stage.path("field.safetensors"),
        field_config=surface.field.field_config,
        occupancy=stage.path("occupancy.safetensors"),
        previews=write_previews(stage, views),
        steps=steps,
        switch_reason=reason,
    )


if __name__ == "__main__":
    from stages.runtime.command import main

    main("neus", refine_sdf)
