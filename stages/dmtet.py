"""From the signed distance field to an explicit mesh over a tetrahedral grid, refined under both priors.

Source: DMTet (arXiv:2111.04276) as DreamCraft3D uses it: the SDF's values are copied to the grid's vertices and optimised together
with offsets tanh(deform) * spacing / 2; text guidance sees the normal map in three steps of four.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.fields.color import ColorField, fit_colors
from dreampolish.fields.hash_grid import ADAM_EPSILON
from dreampolish.fields.sdf import SdfField
from dreampolish.mesh.marching_tetrahedra import EmptyLevelSetError, marching_tetrahedra
from dreampolish.mesh.tet_grid import TetGrid, tet_grid
from dreampolish.mesh.topology import laplacian_loss, normal_consistency_loss, without_crumbs
from dreampolish.optim.fit import Term, fit
from dreampolish.optim.floored_adam import FlooredAdam
from dreampolish.renderers.mesh import Mesh, MeshRender, color_of_field, fixed_color_of_field, mesh_from_parts
from dreampolish.scene.cameras import SCENE_HALF_SIZE
from schemas.artifacts import MeshArtifact, ReferenceArtifact, SdfArtifact
from schemas.config.dmtet import DmtetConfig
from stages.guidance.geometry import GeometryGuide, open_guide
from stages.guidance.grids import grid_sizes
from stages.guidance.reference_view import (
    REFERENCE_VIEW,
    ReferenceView,
    anchor_terms,
    load_reference,
    of_another,
    reference_color_loss,
)
from stages.guidance.studio_light import NO_LIGHT, PaintedLight, measured_light, render_in_light, smooth_normals
from stages.results.files import load_sdf, mesh_figures, write_mesh
from stages.results.live import unfinished_mesh
from stages.results.observer import Preview, StageObserver
from stages.results.scores import TURNTABLE
from stages.runtime.errors import StageError
from stages.runtime.stage import Stage, stage

POINTS_AT_ONCE = 65_536
"""Points evaluated at once, for the memory's sake."""


class TetSurface(torch.nn.Module):
    """Signed distances and vertex offsets on a tetrahedral grid, and the mesh they span."""

    def __init__(self, grid: TetGrid, sdf: Float[Tensor, " v"], views_at_once: int | None = None) -> None:
        super().__init__()
        self._grid, self._views_at_once = grid, views_at_once
        self.sdf = torch.nn.Parameter(sdf.clone())
        self.deform = torch.nn.Parameter(torch.zeros_like(grid.vertices))

    def mesh(self) -> Mesh:
        """The current surface, differentiable in values and offsets. Raises EmptyLevelSetError if there is none."""
        vertices = self._grid.vertices + torch.tanh(self.deform) * (self._grid.spacing / 2)
        mesh = mesh_from_parts(*marching_tetrahedra(vertices, self.sdf, self._grid.tets))
        return replace(mesh, views_at_once=self._views_at_once)


@stage(
    "dmtet",
    reads={"reference": (*REFERENCE_VIEW, "is_user_image"), "neus": ("field", "field_config")},
    priors=("text", "view", "views"),
    scorer=TURNTABLE,
)
def extract_mesh(stage: Stage, reference: ReferenceArtifact, neus: SdfArtifact, config: DmtetConfig) -> MeshArtifact:
    """Turn the SDF into a mesh and refine it. Raises StageError when the surface vanishes."""
    view = load_reference(stage, reference, config.reference_size)
    source = load_sdf(stage, neus)
    grid, values = _grid_values(config, source, stage)
    surface = TetSurface(grid, values, stage.execution.rendered_at_once)
    in_studio = config.drawn_light == "studio" and not reference.is_user_image
    colors, light = _colors_from_sdf(
        config=config, source=source, surface=surface, stage=stage, in_studio=view if in_studio else None
    )
    _refine(config=config, stage=stage, view=view, surface=surface, colors=colors, light=light)
    with torch.no_grad():
        mesh = mesh_from_parts(*without_crumbs(surface.mesh().vertices, surface.mesh().faces, config.crumb_share))
    figures = {**mesh_figures(mesh), **light.figures}
    return stage.publish(MeshArtifact, metrics=figures, **write_mesh(stage, mesh, colors))


def _grid_values(config: DmtetConfig, source: SdfField, stage: Stage) -> tuple[TetGrid, Tensor]:
    grid = tet_grid(config.tet_resolution, SCENE_HALF_SIZE).to(stage.device)
    with torch.no_grad():
        values = torch.cat([source.sdf(part) for part in grid.vertices.split(POINTS_AT_ONCE)])
    # The scene box's skin stays outside, so that every surface is closed.
    skin = grid.vertices.abs().amax(dim=-1) > SCENE_HALF_SIZE - grid.spacing / 2
    return grid, torch.where(skin, values.abs().clamp_min(grid.spacing), values)


def _colors_from_sdf(
    config: DmtetConfig, source: SdfField, surface: TetSurface, stage: Stage, in_studio: ReferenceView | None
) -> tuple[ColorField, PaintedLight]:
    """A colour field fitted to the SDF's colours around the surface, and the light that was found in these and taken out.

    in_studio: the reference where it stands in the studio's light; None where its light is not known, and nothing is taken out.
    """
    colors = ColorField(grid_sizes(config.grid), config.grid.hidden_size, stage.generator)
    with torch.no_grad():
        try:
            mesh = surface.mesh()
        except EmptyLevelSetError as error:
            raise StageError(f"dmtet: {error}", 0, "look at the neus stage's previews; try another seed") from error
        noise = torch.randn(config.color_fit_copies, *mesh.vertices.shape, generator=stage.generator, device=stage.device)
        around = (mesh.vertices + noise * surface._grid.spacing).reshape(-1, 3)
        wanted = torch.cat([source.color(part) for part in around.split(POINTS_AT_ONCE)])
        light = NO_LIGHT
        if in_studio is not None:
            normals = smooth_normals(mesh.vertices, mesh.faces, config.light.smoothing_rounds).repeat(len(noise), 1)
            light = measured_light(wanted, normals, in_studio, config.light)
            wanted = light.removed(wanted, normals)
    fit_colors(
        field=colors,
        points=around,
        colors=wanted,
        steps=config.color_fit_steps,
        batch=config.color_fit_batch,
        learning_rate=config.color_fit_lr,
        generator=stage.generator,
    )
    return colors, light


def _refine(
    config: DmtetConfig,
    stage: Stage,
    view: ReferenceView,
    surface: TetSurface,
    colors: ColorField,
    light: PaintedLight,
) -> None:
    guide = open_guide(stage, config, view, stage.generator)
    shape = {"lr": config.geometry_lr, "floor": config.gradient_floor}
    optimizer = FlooredAdam(
        [
            # Apart, for their gradients differ by orders of magnitude.
            {"params": [surface.sdf], **shape},
            {"params": [surface.deform], **shape},
            {"params": list(colors.parameters()), "lr": config.color_lr},
        ],
        betas=config.betas,
        eps=ADAM_EPSILON,
    )

    preview = Preview(
        lambda: {"view": surface.mesh().render(view.camera, color_of_field(colors), 1, smooth=True).rgb[0]},
        unfinished_mesh(surface.mesh, colors),
    )
    try:
        fit(
            losses=_losses(
                config=config,
                guide=guide,
                view=view,
                surface=surface,
                colors=colors,
                light=light,
                preview=preview,
                generator=stage.generator,
            ),
            optimizer=optimizer,
            learning_rate_factor=lambda step: 1.0,
            steps=config.steps,
            generator=stage.generator,
            stateful={"surface": surface, "colors": colors, **guide.stateful()},
            checkpoints=stage.checkpoints,
            observer=StageObserver(
                stage=stage,
                steps=config.steps,
                preview_interval=config.preview.interval,
                shown=preview,
                switch=None,
                reference=view.rgb,
            ),
        )
    except EmptyLevelSetError as error:
        raise StageError(f"dmtet: {error}", None, "lower dmtet.geometry_lr or the guidance weights") from error


def _losses(
    config: DmtetConfig,
    guide: GeometryGuide,
    view: ReferenceView,
    surface: TetSurface,
    colors: ColorField,
    light: PaintedLight,
    preview: Preview,
    generator: torch.Generator,
) -> Callable[[int], dict[str, Term]]:
    start = copy.deepcopy(colors).requires_grad_(requires_grad=False)

    def losses(step: int) -> dict[str, Term]:
        progress = (step, config.steps)
        mesh, color_of = surface.mesh(), color_of_field(colors)
        # Pictures teach colours, their masks shape: wrong colours would bend the surface until it shows others.
        still = mesh.moved(mesh.vertices.detach())
        # What is painted is lit; what is learned of it are the surface's own colours. What the reference shows stays as drawn.
        lit = partial(
            render_in_light, mesh=still, color_of=color_of, light=light, smoothing_rounds=config.light.smoothing_rounds
        )
        guide.prepare(step, lambda cameras: lit(cameras=cameras, supersample=2).rgb)
        terms, painted = _held_to(config, progress, mesh=mesh, still=still, colors=colors, view=view)
        preview.keep()
        if painted is not None:
            preview.keep(view=painted)
        another = view.another(step)
        if another is not None:
            held, _ = _held_to(config, progress, mesh=mesh, still=still, colors=colors, view=another)
            terms.update(of_another(held))
        if step % config.guidance_interval == 0:
            cameras = guide.cameras(step)
            if config.targets.wanted:
                seen = lit(cameras=cameras, supersample=1)
                terms.update(guide.target_terms(step, seen.rgb, mesh.coverage(seen, cameras)))
            if max(config.view.weight.at(*progress), config.text.weight.at(*progress)) > 0:
                novel = mesh.render(
                    cameras, light.on(color_of if config.guide_colors else fixed_color_of_field(colors)), 1, smooth=True
                )
                terms.update(guide.view_terms(step, novel.rgb, cameras))
                as_normals = float(torch.rand((), generator=generator, device=generator.device)) < config.normal_guidance_share
                terms.update(guide.text_terms(step, _normal_picture(novel) if as_normals else novel.rgb, cameras))
        if config.hold_colors_weight.at(*progress) > 0:
            places = mesh.vertices.detach()
            chosen = torch.randint(len(places), (config.held_points,), generator=generator, device=generator.device)
            change = (colors(places[chosen]) - start(places[chosen])).abs().mean()
            terms["hold_colors"] = Term(change, config.hold_colors_weight.at(*progress))
        terms.update(_smoothness(config, progress, mesh))
        return terms

    return losses


def _held_to(
    config: DmtetConfig, progress: tuple[int, int], mesh: Mesh, still: Mesh, colors: ColorField, view: ReferenceView
) -> tuple[dict[str, Term], Float[Tensor, "1 h w 3"] | None]:
    """The losses on a given picture, and the render in colours that they compare with it, if they do. still: the mesh without gradient."""
    front = mesh.render(view.camera, fixed_color_of_field(colors), 1, smooth=True)
    terms = anchor_terms(
        anchors=config.anchors,
        progress=progress,
        reference=view,
        rgb=None,
        opacity=front.alpha,
        normals_camera=front.normals_camera,
    )
    if config.anchors.rgb.at(*progress) == 0:
        return terms, None
    painted = still.render(view.camera, color_of_field(colors), 1, smooth=True)
    loss = reference_color_loss(painted.rgb, view, config.mask_erosion)
    terms["reference_color"] = Term(loss, config.anchors.rgb.at(*progress))
    return terms, painted.rgb


def _smoothness(config: DmtetConfig, progress: tuple[int, int], mesh: Mesh) -> dict[str, Term]:
    """Terms that ask for a smooth surface."""
    terms: dict[str, Term] = {}
    smooth = normal_consistency_loss(mesh.vertices, mesh.faces, mesh.adjacency)
    terms["normal_consistency"] = Term(smooth, config.normal_consistency_weight.at(*progress))
    if config.laplacian_weight.at(*progress) > 0:
        terms["laplacian"] = Term(laplacian_loss(mesh.vertices, mesh.faces), config.laplacian_weight.at(*progress))
    return terms


def _normal_picture(render: MeshRender) -> Float[Tensor, "b h w 3"]:
    """Camera-frame normals as a picture on white."""
    alpha = render.alpha[..., None]
    return (render.normals_camera + 1) / 2 * alpha + (1 - alpha)


if __name__ == "__main__":
    from stages.runtime.command import main

    main(extract_mesh)
