"""Stage 6: the asset: crumbs off, decimate, unwrap, bake, write a GLB, and read it back to compare with what the texture stage rendered."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import validate_call
from torch import Tensor

from dreampolish.cameras import Cameras, turntable_cameras
from dreampolish.fields.color import ColorField
from dreampolish.mesh.bake import bake, texels_of
from dreampolish.mesh.gltf import read_glb, write_glb
from dreampolish.mesh.textured import TexturedMesh
from dreampolish.mesh.topology import decimated, without_crumbs
from dreampolish.mesh.unwrap import Unwrapped, unwrap
from dreampolish.metrics.images import psnr
from dreampolish.pictures import write_picture, write_turntable
from dreampolish.renderers.raster_textured import render_textured_mesh
from schemas.artifacts import AssetArtifact, ReferenceArtifact, TexturedMeshArtifact
from schemas.config_stages import ExportConfig
from stages.context import RunContext, Stage, open_stage
from stages.errors import StageError
from stages.judging import judged, render_previews, write_previews
from stages.meshes import Mesh, color_of_field, load_colors, load_mesh, mesh_figures, mesh_from_parts
from stages.prior_set import prior_digests
from stages.reference_view import REFERENCE_FOV_DEG, load_reference
from stages.watching import as_bytes, strip


@dataclass(frozen=True)
class Baked:
    """A decimated, unwrapped mesh with its base-colour texture."""

    mesh: Mesh
    unwrapped: Unwrapped
    texture: Float[Tensor, "s s 3"]

    def textured(self) -> TexturedMesh:
        """As the GLB writer takes it."""
        part = self.unwrapped
        everywhere = torch.zeros(len(part.faces), dtype=torch.long, device=part.faces.device)
        return TexturedMesh(part.vertices, part.normals, part.uv, part.faces, (self.texture,), everywhere)


@task(name="export", cache_policy=NO_CACHE, persist_result=False)
@validate_call(config={"arbitrary_types_allowed": True})
def export_asset(
    reference: ReferenceArtifact, texture: TexturedMeshArtifact, config: ExportConfig, run: RunContext
) -> AssetArtifact:
    """Write the GLB, its turntable and its figures; `export_psnr` compares the file, read back, with the texture stage's mesh."""
    with open_stage("export", run, config, [reference, texture], prior_digests(run, "judge")) as stage:
        if (done := stage.cached(AssetArtifact)) is not None:
            return done
        source, colors = load_mesh(stage, texture), load_colors(stage, texture)
        baked = _baked(source, colors, config)
        stage.progress(1, 3)
        paths = _written(stage, baked, reference, texture, config)
        asset = _read_back(paths["glb"], stage)
        stage.progress(2, 3)
        return _published(stage, run, config, reference, asset, source, colors, paths)


def _baked(source: Mesh, colors: ColorField, config: ExportConfig) -> Baked:
    vertices, faces = without_crumbs(source.vertices, source.faces, config.crumb_share)
    vertices, faces = decimated(vertices, faces, config.triangle_budget)
    unwrapped = unwrap(vertices, faces, config.texture_size, config.chart_padding)
    texels = texels_of(unwrapped, config.texture_size, config.dilation)
    return Baked(mesh_from_parts(vertices, faces), unwrapped, bake(color_of_field(colors), unwrapped, texels))


def _written(
    stage: Stage, baked: Baked, reference: ReferenceArtifact, texture: TexturedMeshArtifact, config: ExportConfig
) -> dict[str, Path]:
    """GLB and base-colour map among the artifact's files."""
    paths = {"glb": stage.path("asset.glb"), "base_color": stage.path("base_color.png")}
    extras = {
        "prompt": reference.prompt,
        "seed": stage.run.seed,
        "fingerprints": {**texture.parents, "texture": texture.fingerprint, "export": stage.fingerprint},
        "licence": "see the model cards of the priors that were used",
    }
    write_glb(paths["glb"], baked.textured(), None, config.roughness, None, "asset", extras)
    write_picture(paths["base_color"], baked.texture)
    return paths


def _read_back(glb: Path, stage: Stage) -> TexturedMesh:
    """The file as a reader sees it."""
    try:
        return read_glb(glb).to(stage.device)
    except (ValueError, KeyError, json.JSONDecodeError) as error:
        raise StageError(f"the written GLB cannot be read back: {error}", None, "report it with the run's id") from error


def _published(
    stage: Stage,
    run: RunContext,
    config: ExportConfig,
    reference: ReferenceArtifact,
    asset: TexturedMesh,
    source: Mesh,
    colors: ColorField,
    paths: dict[str, Path],
) -> AssetArtifact:
    def render(cameras: Cameras) -> Tensor:
        return render_textured_mesh(asset, cameras, 2, False).rgb

    def render_source(cameras: Cameras) -> Tensor:
        return source.render(cameras, color_of_field(colors), 2, True).rgb

    views = render_previews(config.preview, render, stage.device)
    view = load_reference(stage, reference, config.preview.size)
    agreement = psnr(views, render_previews(config.preview, render_source, stage.device))
    _write_turntable(stage, config, asset)
    stage.image("views", 0, as_bytes(strip(views)))
    with torch.no_grad():
        figures = judged(run, view, render(view.camera), views)
    written = mesh_from_parts(asset.vertices, asset.faces)
    return stage.publish(
        AssetArtifact,
        metrics={**figures, "export_psnr": float(agreement.mean()), "triangles": mesh_figures(written)["triangles"]},
        glb=paths["glb"],
        textures={"base_color": paths["base_color"]},
        turntable=stage.path("turntable.webp"),
        previews=write_previews(stage, views),
        n_vertices=len(asset.vertices),
        n_faces=len(asset.faces),
        glb_bytes=paths["glb"].stat().st_size,
    )


def _write_turntable(stage: Stage, config: ExportConfig, asset: TexturedMesh) -> None:
    cameras = turntable_cameras(config.turntable_views, 15.0, REFERENCE_FOV_DEG, config.turntable_size).to(stage.device)
    with torch.no_grad():
        frames = [render_textured_mesh(asset, cameras[[index]], 2, False).rgb for index in range(len(cameras))]
    write_turntable(stage.path("turntable.webp"), torch.cat(frames), 4.0)


if __name__ == "__main__":
    from stages.entry import main

    main("export", export_asset)
