"""A few steps in which the normal prior looks at renders from any field of view and the surface follows.

Source: DreamPolish's description (arXiv:2411.01602): a frozen normal-estimation diffusion model predicts the normals of rendered novel
views with varying field of view; loss (1 - cos) on the best agreeing pixels, anchored at the reference view. [choice] Vertices move through
a smoothing reparametrisation (mesh/smooth_vertices.py) and carry their colours with them, for a colour field knows nothing off its surface.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.fields.color import ColorField, fit_colors
from dreampolish.mesh.smooth_vertices import SmoothVertices
from dreampolish.mesh.topology import laplacian_loss, normal_consistency_loss, normal_variation_loss
from dreampolish.optim.fit import Term, fit
from dreampolish.optim.floored_adam import FlooredAdam
from dreampolish.optim.regularizers import normal_cosine_loss, normal_derivative_loss
from dreampolish.priors.distillation.guidance import images_at_prior
from dreampolish.priors.protocols import NormalPrior
from dreampolish.renderers.mesh import Mesh, MeshRender, color_of_field
from dreampolish.scene.cameras import Cameras, turntable_cameras
from dreampolish.scene.pictures import resize
from dreampolish.scene.shading import facing_light
from schemas.artifacts import MeshArtifact, PolishedMeshArtifact, ReferenceArtifact
from schemas.config.polish import PolishConfig
from stages.guidance.geometry import guidance_cameras
from stages.guidance.priors import open_normal_prior, seeded_noise
from stages.guidance.reference_view import REFERENCE_VIEW, ReferenceView, anchor_terms, load_reference, of_another
from stages.results.files import load_colors, load_mesh, load_painted, mesh_figures, write_mesh
from stages.results.live import unfinished_mesh
from stages.results.observer import Preview, StageObserver
from stages.results.scores import TURNTABLE
from stages.runtime.stage import Stage, stage

AGREEMENT_VIEWS = 8
"""Evenly spaced views in which the agreement with the normal prior is measured."""

AGREEMENT_ELEVATION_DEG, AGREEMENT_FOV_DEG = 15.0, 40.0
"""Elevation and vertical field of view of these views, degrees; the field of view is the middle of those that polishing draws."""

POINTS_AT_ONCE = 65_536
"""Points evaluated at once, for the memory's sake."""


@dataclass(frozen=True)
class Polishing:
    """What a polishing step needs."""

    config: PolishConfig
    prior: NormalPrior
    view: ReferenceView
    mesh: Mesh
    colors: ColorField
    generator: torch.Generator


@stage(
    "polish",
    reads={"reference": REFERENCE_VIEW, "dmtet": ("mesh", "color_field", "color_config")},
    priors=("normals",),
    scorer=TURNTABLE,
)
def polish_mesh(stage: Stage, reference: ReferenceArtifact, dmtet: MeshArtifact, config: PolishConfig) -> PolishedMeshArtifact:
    """Polish the mesh under the normal prior. Reports how well its normals agree with the prior before and after.

    dmtet: the extracted mesh, or a user's own in its place.
    """
    view = load_reference(stage, reference, config.size)
    prior = open_normal_prior(stage)
    mesh, colors = load_mesh(stage, dmtet), load_colors(stage, dmtet).requires_grad_(requires_grad=False)
    mesh = replace(mesh, views_at_once=stage.execution.rendered_at_once)
    polishing = Polishing(config=config, prior=prior, view=view, mesh=mesh, colors=colors, generator=stage.generator)
    before = prior_agreement(polishing, mesh, seeded_noise(stage.run, "agreement"))
    vertices = _moved_vertices(polishing, stage)
    after = prior_agreement(polishing, _polished(polishing, vertices), seeded_noise(stage.run, "agreement"))
    error = 0.0
    if config.steps > 0 and config.color_fit_steps > 0:
        error = carry_colors(config=config, mesh=mesh, vertices=vertices, colors=colors, generator=stage.generator)
    polished = mesh.moved(vertices)
    figures = {
        "color_fit_error": error,
        "normal_agreement_before": before,
        "normal_agreement": after,
        "normal_agreement_change": after - before,
        **mesh_figures(polished),
    }
    return stage.publish(
        PolishedMeshArtifact, metrics=figures, **write_mesh(stage, polished, colors, load_painted(stage, dmtet))
    )


def prior_agreement(polishing: Polishing, mesh: Mesh, generator: torch.Generator) -> float:
    """Mean cosine between the mesh's normals and the prior's on fixed views."""
    cameras = turntable_cameras(AGREEMENT_VIEWS, AGREEMENT_ELEVATION_DEG, AGREEMENT_FOV_DEG, polishing.config.size)
    cameras = cameras.to(generator.device)
    cosines = []
    with torch.no_grad():
        for index in range(len(cameras)):
            render = mesh.render(cameras[[index]], color_of_field(polishing.colors), 1, smooth=True)
            wanted = estimated_normals(polishing, shown(polishing.config, render), generator)
            seen = render.alpha > polishing.config.counted_coverage
            cosines.append((render.normals_camera * wanted).sum(-1)[seen].mean())
    return float(torch.stack(cosines).nanmean())


def shown(config: PolishConfig, render: MeshRender) -> Float[Tensor, "b h w 3"]:
    """What the normal prior sees of a render, on white: the colours alone, or under a light."""
    if not config.lit:
        return render.rgb
    paper = 1 - render.alpha[..., None]
    return (render.rgb - paper) * facing_light(render.normals_world) + paper


def estimated_normals(
    polishing: Polishing, rgb: Float[Tensor, "b h w 3"], generator: torch.Generator
) -> Float[Tensor, "b h w 3"]:
    """The prior's camera-frame normals of renders, at their size; no gradient."""
    images = images_at_prior(rgb.detach(), polishing.prior.image_size)
    normals = polishing.prior.estimate(images, polishing.config.estimator_steps, generator).permute(0, 2, 3, 1)
    return torch.nn.functional.normalize(resize(normals, rgb.shape[1]), dim=-1, eps=1e-6)


def _polished(polishing: Polishing, vertices: Float[Tensor, "v 3"]) -> Mesh:
    """The mesh on moved vertices, which carry their colours unless these are to stay in space."""
    return polishing.mesh.carried(vertices) if polishing.config.color_fit_steps > 0 else polishing.mesh.moved(vertices)


def carry_colors(
    config: PolishConfig, mesh: Mesh, vertices: Float[Tensor, "v 3"], colors: ColorField, generator: torch.Generator
) -> float:
    """Teach a colour field to say on moved vertices, and once within every face, what it said where these were; then it is frozen.

    Returns the mean square error of the last batch.
    """
    shares = torch.rand(len(mesh.faces), 3, generator=generator, device=generator.device)
    shares = (shares / shares.sum(-1, keepdim=True))[..., None]

    def places(corners: Tensor) -> Tensor:
        return torch.cat([corners, (shares * corners[mesh.faces]).sum(1)])

    with torch.no_grad():
        wanted = torch.cat([colors(part) for part in places(mesh.vertices).split(POINTS_AT_ONCE)])
    error = fit_colors(
        field=colors.requires_grad_(requires_grad=True),
        points=places(vertices),
        colors=wanted,
        steps=config.color_fit_steps,
        batch=config.color_fit_batch,
        learning_rate=config.color_fit_lr,
        generator=generator,
    )
    colors.requires_grad_(requires_grad=False)
    return float(error)


def _moved_vertices(polishing: Polishing, stage: Stage) -> Tensor:
    """The polished vertices."""
    config, mesh = polishing.config, polishing.mesh
    moving = SmoothVertices(mesh.vertices, mesh.faces, config.smoothness).to(stage.device)
    if config.steps == 0:
        return mesh.vertices

    def draw() -> dict[str, Tensor]:
        mesh = _polished(polishing, moving())
        render = mesh.render(polishing.view.camera, color_of_field(polishing.colors), 1, smooth=True)
        return {"view": render.rgb[0], "normals": (render.normals_camera[0] + 1) / 2}

    preview = Preview(draw, unfinished_mesh(lambda: _polished(polishing, moving()), polishing.colors))
    fit(
        losses=polishing_losses(polishing, moving, preview),
        optimizer=FlooredAdam(
            [{"params": list(moving.parameters()), "lr": config.vertex_lr, "floor": config.gradient_floor}], betas=config.betas
        ),
        learning_rate_factor=lambda step: 1.0,
        steps=config.steps,
        generator=stage.generator,
        stateful={"vertices": moving},
        checkpoints=stage.checkpoints,
        observer=StageObserver(
            stage=stage,
            steps=config.steps,
            preview_interval=config.preview.interval,
            shown=preview,
            switch=None,
            reference=polishing.view.rgb,
        ),
    )
    return moving().detach()


def polishing_losses(polishing: Polishing, moving: SmoothVertices, preview: Preview) -> Callable[[int], Mapping[str, Term]]:
    """The weighted losses of a step. moving: the vertices as they are at that step."""
    config, view = polishing.config, polishing.view
    color_of = color_of_field(polishing.colors)

    def losses(step: int) -> Mapping[str, Term]:
        progress = (step, config.steps)
        mesh = _polished(polishing, moving())
        front, terms = _held_to(polishing, mesh, view, progress)
        preview.keep(view=front.rgb, normals=(front.normals_camera + 1) / 2)
        another = view.another(step)
        if another is not None:
            terms.update(of_another(_held_to(polishing, mesh, another, progress)[1]))
        cameras = guidance_cameras(
            config=config.cameras, progress=progress, n_views=config.views, size=config.size, generator=polishing.generator
        )
        novel = mesh.render(cameras, color_of, 1, smooth=True)
        terms.update(_prior_terms(polishing, novel, progress))
        if config.silhouette_weight.at(*progress) > 0:
            terms["silhouette"] = Term(
                silhouette_change(novel.alpha, polishing.mesh, cameras), config.silhouette_weight.at(*progress)
            )
        if config.displacement_weight.at(*progress) > 0:
            moved = displacement_loss(mesh.vertices, polishing.mesh.vertices)
            terms["displacement"] = Term(moved, config.displacement_weight.at(*progress))
        smooth = normal_consistency_loss(mesh.vertices, mesh.faces, mesh.adjacency)
        terms["normal_consistency"] = Term(smooth, config.normal_consistency_weight.at(*progress))
        if config.normal_variation_weight.at(*progress) > 0:
            varied = normal_variation_loss(mesh.vertices, mesh.faces, mesh.adjacency)
            terms["normal_variation"] = Term(varied, config.normal_variation_weight.at(*progress))
        if config.laplacian_weight.at(*progress) > 0:
            terms["laplacian"] = Term(laplacian_loss(mesh.vertices, mesh.faces), config.laplacian_weight.at(*progress))
        return terms

    return losses


def _prior_terms(polishing: Polishing, novel: MeshRender, progress: tuple[int, int]) -> dict[str, Term]:
    """What the normal prior says of novel views; where neither of its weights is above 0, it is not asked."""
    config = polishing.config
    normal, curvature = config.normal_weight.at(*progress), config.curvature_weight.at(*progress)
    if normal == curvature == 0:
        return {}
    wanted = estimated_normals(polishing, shown(config, novel), polishing.generator)
    mask = novel.alpha.detach() > config.counted_coverage
    loss = normal_cosine_loss(novel.normals_camera, wanted, mask, config.keep_quantile)
    terms = {"normal": Term(loss, normal)}
    if curvature > 0:
        slopes = normal_derivative_loss(novel.normals_camera, wanted, mask, config.keep_quantile)
        terms["curvature"] = Term(slopes, curvature)
    return terms


def _held_to(
    polishing: Polishing, mesh: Mesh, view: ReferenceView, progress: tuple[int, int]
) -> tuple[MeshRender, dict[str, Term]]:
    """A render of a given picture's view, and its losses."""
    seen = mesh.render(view.camera, color_of_field(polishing.colors), 1, smooth=True)
    terms = anchor_terms(
        anchors=polishing.config.anchors,
        progress=progress,
        reference=view,
        rgb=seen.rgb,
        opacity=seen.alpha,
        normals_camera=seen.normals_camera,
    )
    return seen, terms


def displacement_loss(vertices: Float[Tensor, "v 3"], start: Float[Tensor, "v 3"]) -> Float[Tensor, ""]:
    """Mean square distance of vertices from where they started, world units."""
    return (vertices - start).square().sum(-1).mean()


def silhouette_change(alpha: Float[Tensor, "b h w"], start: Mesh, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean square difference of the coverage from that of the mesh at the start, which gets no gradient."""
    with torch.no_grad():
        before = start.silhouette(cameras)
    return (alpha - before).square().mean()


if __name__ == "__main__":
    from stages.runtime.command import main

    main(polish_mesh)
