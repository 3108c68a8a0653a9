"""The density, or a user's own mesh, becomes a signed distance field, which is sharpened under the anchors and both priors.

The conversion is real [choice]: automatic level of the density, distance transform, fit of the SDF network and its colours; DreamCraft3D
restarts from a sphere instead. Rendering and eikonal term after NeuS (arXiv:2106.10689).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from torch import Tensor

from dreampolish.assets.solids.mesh_to_sdf import sdf_from_mesh
from dreampolish.fields.density_to_sdf import (
    EmptyFieldError,
    FitReport,
    LevelSetSizes,
    SignedDistanceGrid,
    fit_sdf,
    sdf_from_density,
)
from dreampolish.fields.hash_grid import ADAM_EPSILON
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField
from dreampolish.fields.smoothing import Smoothing
from dreampolish.fields.thin_parts import ThinPartsSizes
from dreampolish.optim.fit import Term, fit
from dreampolish.optim.regularizers import eikonal_loss, opacity_entropy_loss, orientation_loss, sparsity_loss
from dreampolish.renderers.neus import NeusRender
from dreampolish.renderers.scenes import SdfScene, step_size_for
from dreampolish.scene.cameras import SCENE_HALF_SIZE, Cameras, orbit_cameras
from dreampolish.scene.pictures import resize
from schemas.artifacts import IntakeArtifact, NerfArtifact, ReferenceArtifact, SdfArtifact
from schemas.config.neus import NeusConfig
from stages.guidance.geometry import GeometryGuide, open_guide
from stages.guidance.grids import grid_sizes
from stages.guidance.handover import Handover
from stages.guidance.reference_view import (
    REFERENCE_FOV_DEG,
    REFERENCE_VIEW,
    ReferenceView,
    load_reference,
    of_another,
    volume_terms,
)
from stages.guidance.rhythm import is_finer, renders_novel, renders_reference
from stages.results.files import load_colors, load_density, load_mesh, load_occupancy, save_state
from stages.results.live import unfinished_distance
from stages.results.observer import Preview, StageObserver
from stages.results.scores import TURNTABLE
from stages.runtime.errors import StageError
from stages.runtime.stage import Stage, stage

START_RADIUS = 0.5
"""Radius (world units) of the sphere that the SDF's network starts from, before the fit to the converted distances."""

LEVEL_AZIMUTHS = 12
"""Evenly spaced azimuths of the views in which the automatic level is judged."""

LEVEL_ELEVATIONS_DEG = (-10.0, 15.0, 50.0)
"""Elevations that these views take in turns."""

ONLOOKERS = ((-60.0, 6), (-30.0, 10), (0.0, 14), (30.0, 14), (60.0, 8), (85.0, 2))
"""Elevations (degrees) and numbers of views whose outlines the conversion's smoothing leaves alone; 54 in all."""

CONVERSION_SIZE = 64
"""Side of both kinds of views, pixels; smoothing draws its own in the lattice's resolution."""

LEAST_OPACITY = 0.5
"""Opacity (0..1) that a pixel of the front view must reach, or the field counts as without surface."""


@dataclass(frozen=True)
class Conversion:
    """The scene that the conversion gave, points (N, 3) on its surface, world frame, and how well the network fits it."""

    scene: SdfScene
    surface: Tensor
    report: FitReport

    def distance(self, n_points: int) -> Tensor:
        """Mean |sdf| at random points of the surface that the conversion found, world units."""
        generator, device = self.scene.generator, self.surface.device
        chosen = torch.randint(len(self.surface), (n_points,), generator=generator, device=device)
        return self.scene.field.sdf(self.surface[chosen]).abs().mean()


@stage(
    "neus",
    reads={
        "reference": REFERENCE_VIEW,
        "nerf": ("field", "field_config", "occupancy"),
        "intake": ("mesh", "color_field", "color_config"),
    },
    priors=("text", "view", "views"),
    scorer=TURNTABLE,
)
def refine_sdf(
    stage: Stage,
    reference: ReferenceArtifact,
    nerf: NerfArtifact | None,
    config: NeusConfig,
    intake: IntakeArtifact | None = None,
) -> SdfArtifact:
    """Fit an SDF to the NeRF's level set, then sharpen it under the priors. Raises StageError when it is empty.

    intake: a user's own mesh, which the SDF is fitted to in place of a NeRF.
    """
    view = load_reference(stage, reference, config.reference_size)
    source = _source_of_nerf(stage, nerf, config) if intake is None else _source_of_mesh(stage, intake, config)
    conversion = _converted(stage, source, config)
    scene = conversion.scene
    guide = open_guide(stage, config, view, stage.generator)
    handover = Handover(config.switch, config.steps)
    preview = Preview(lambda: {"view": scene.picture(view.camera)[0]}, unfinished_distance(scene))
    result = fit(
        losses=_losses(config=config, conversion=conversion, guide=guide, view=view, handover=handover, preview=preview),
        optimizer=_optimizer(scene.field, config),
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
    return _published(stage, conversion, view, steps=result.steps, reason=result.reason)


@dataclass(frozen=True)
class Source:
    """What an SDF field is fitted to: distances, and colours (N, 3) of points (N, 3)."""

    distances: SignedDistanceGrid
    color_of: Callable[[Tensor], Tensor]


def _source_of_mesh(stage: Stage, intake: IntakeArtifact, config: NeusConfig) -> Source:
    """A user's own mesh: inside and outside by winding numbers, so that it need not be closed."""
    mesh, spacing = load_mesh(stage, intake), 2 * SCENE_HALF_SIZE / (config.conversion_resolution - 1)
    try:
        distances = sdf_from_mesh(
            vertices=mesh.vertices,
            faces=mesh.faces,
            resolution=config.conversion_resolution,
            half_size=SCENE_HALF_SIZE,
            sheet_thickness=config.sheet_thickness * spacing,
        )
    except EmptyFieldError as error:
        raise StageError(f"neus: {error}", None, "or give another mesh") from error
    return Source(distances, load_colors(stage, intake))


def _source_of_nerf(stage: Stage, nerf: NerfArtifact | None, config: NeusConfig) -> Source:
    """The NeRF's level set."""
    assert nerf is not None
    source, occupancy = load_density(stage, nerf), load_occupancy(stage, nerf, nerf.occupancy)
    cameras = _conversion_cameras().to(stage.device)
    try:
        target = sdf_from_density(
            field=source,
            occupancy=occupancy,
            cameras=cameras,
            sizes=LevelSetSizes(
                resolution=config.conversion_resolution,
                smoothing=config.conversion_smoothing,
                step_size=step_size_for(config.samples_per_ray),
                n_levels=config.conversion_levels,
                min_component_share=config.conversion_component_share,
                faint_agreement=config.conversion_agreement,
            ),
            thin_parts=ThinPartsSizes(**config.thin_parts.model_dump(), least_part=config.smoothing.least_part),
            outlined=Smoothing(
                cameras=_onlookers(),
                closing_radius=config.conversion_closing,
                blur_std=config.conversion_blur,
                **config.smoothing.model_dump(),
            ),
        )
    except EmptyFieldError as error:
        raise StageError(f"neus: {error}", None, "or use another seed") from error
    return Source(target, lambda points: source(points)[1])


def _converted(stage: Stage, source: Source, config: NeusConfig) -> Conversion:
    """Geometry and colours as an SDF field."""
    step_size = step_size_for(config.samples_per_ray)
    field = SdfField(
        grid_sizes=grid_sizes(config.grid),
        hidden_width=config.grid.hidden_size,
        sphere_radius=START_RADIUS,
        initial_inverse_std=config.initial_inverse_std,
        generator=stage.generator,
    )
    field.network.points_at_once = stage.execution.points_at_once
    report = fit_sdf(
        field=field,
        target=source.distances,
        color_of=source.color_of,
        steps=config.conversion_steps,
        batch=config.conversion_batch,
        learning_rate=config.grid_lr,
        generator=stage.generator,
    )
    fresh = OccupancyGrid(config.occupancy_resolution, SCENE_HALF_SIZE, stage.device)
    scene = SdfScene(
        field=field, occupancy=fresh, step_size=step_size, shell_parts=config.shell_parts, generator=stage.generator
    )
    scene.update_occupancy()
    return Conversion(scene, source.distances.surface, report)


def _conversion_cameras() -> Cameras:
    """Views at three heights, from which the automatic level is judged."""
    azimuth = torch.arange(LEVEL_AZIMUTHS, dtype=torch.float32) * (360 / LEVEL_AZIMUTHS)
    elevation = torch.tensor(LEVEL_ELEVATIONS_DEG).repeat(LEVEL_AZIMUTHS // len(LEVEL_ELEVATIONS_DEG))
    return orbit_cameras(azimuth, elevation, torch.full((LEVEL_AZIMUTHS,), REFERENCE_FOV_DEG), CONVERSION_SIZE)


def _onlookers() -> Cameras:
    """Views from all around, above and below, whose outlines the conversion's smoothing leaves alone."""
    views = [(360 * index / count, elevation) for elevation, count in ONLOOKERS for index in range(count)]
    azimuth, elevation = torch.tensor(views).unbind(-1)
    return orbit_cameras(azimuth, elevation, torch.full((len(views),), REFERENCE_FOV_DEG), CONVERSION_SIZE)


def _optimizer(field: SdfField, config: NeusConfig) -> torch.optim.Optimizer:
    table = field.network.grid.table
    network = [parameter for parameter in field.network.parameters() if parameter is not table]
    groups = [
        {"params": [table], "lr": config.grid_lr * config.refine_lr_factor},
        {"params": network, "lr": config.network_lr},
        {"params": [field.sharpness], "lr": config.sharpness_lr},
    ]
    return torch.optim.Adam(groups, betas=config.betas, eps=ADAM_EPSILON)


def _losses(
    config: NeusConfig, conversion: Conversion, guide: GeometryGuide, view: ReferenceView, handover: Handover, preview: Preview
) -> Callable[[int], Mapping[str, Term]]:
    scene, finer = conversion.scene, view.whole(config.finer.size)

    def losses(step: int) -> Mapping[str, Term]:
        progress = (step, config.steps)
        if step % config.occupancy_interval == 0:
            scene.update_occupancy()
        guide.prepare(step, scene.picture)
        terms = {}
        preview.keep()
        if renders_reference(config, step):
            seen = finer if is_finer(config, step) else view
            front, held = _held_to(config, scene, seen, progress)
            picture = front.picture
            terms.update(held)
            terms["eikonal"] = Term(eikonal_loss(front.gradients), config.eikonal_weight.at(*progress))
            another = seen.another(step // config.anchor_interval)
            if another is not None:
                terms.update(of_another(_held_to(config, scene, another, progress)[1]))
            handover.observe(picture.rgb, picture.opacity, seen)
            preview.keep(view=resize(picture.rgb, view.camera.size))
        if config.hold_weight.at(*progress) > 0:
            terms["hold"] = Term(conversion.distance(config.held_points), config.hold_weight.at(*progress))
        if renders_novel(config, step):
            cameras = guide.cameras(step)
            novel = scene.render(cameras, stratified=True)
            terms.update(guide.terms(step, novel.picture.rgb, novel.picture.opacity, cameras))
            terms.update(_regularizers(config, progress, novel))
        return terms

    return losses


def _held_to(
    config: NeusConfig, scene: SdfScene, view: ReferenceView, progress: tuple[int, int]
) -> tuple[NeusRender, dict[str, Term]]:
    """A render of a given picture's view, and its losses."""
    render = scene.render(view.camera, stratified=True)
    return render, volume_terms(config.anchors, progress, view, render.picture)


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


def _published(stage: Stage, conversion: Conversion, view: ReferenceView, *, steps: int, reason: str) -> SdfArtifact:
    scene = conversion.scene
    with torch.no_grad():
        scene.update_occupancy()
        front = scene.render(view.camera, stratified=False)
        if float(front.picture.opacity.max()) < LEAST_OPACITY:
            raise StageError("the signed distance field has no surface in the front view", steps, "lower neus.sparsity_weight")
        moved = scene.field.sdf(conversion.surface).abs()
        eikonal = float(eikonal_loss(front.gradients))
    save_state(scene.field, stage.path("field.safetensors"))
    save_file(dict(scene.occupancy.state_dict()), stage.path("occupancy.safetensors"))
    return stage.publish(
        SdfArtifact,
        metrics={
            "eikonal_error": eikonal,
            "conversion_deviation": conversion.report.mean_deviation,
            "surface_deviation": float(moved.mean()),
            "surface_deviation_max": float(moved.max()),
            "inverse_std": float(scene.field.inverse_std),
            "steps": float(steps),
        },
        field=stage.path("field.safetensors"),
        field_config=scene.field.field_config,
        occupancy=stage.path("occupancy.safetensors"),
        steps=steps,
        switch_reason=reason,
    )


if __name__ == "__main__":
    from stages.runtime.command import main

    main(refine_sdf)
