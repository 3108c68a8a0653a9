"""Stage 6: the asset: crumbs off, decimate, unwrap, bake, write a GLB, and read it back to compare with what the texture stage rendered."""

import json

import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import validate_call
from torch import Tensor

from dreampolish.cameras import Cameras, turntable_cameras
from dreampolish.fields.color import ColorField
from dreampolish.mesh.textured import TexturedMesh
from dreampolish.metrics.images import psnr
from dreampolish.pictures import read_picture, write_picture, write_turntable
from dreampolish.renderers.raster_textured import render_textured_mesh
from schemas.artifacts import AssetArtifact, ReferenceArtifact, TexturedMeshArtifact
from schemas.config_parts import PreviewConfig
from schemas.config_stages import ExportConfig
from stages.asset_making import MadeAsset, asset_extras, make_asset, packed_glb, read_asset
from stages.context import RunContext, Stage, open_stage
from stages.errors import StageError
from stages.judging import judged, render_previews, write_previews
from stages.meshes import Mesh, color_of_field, load_colors, load_mesh, mesh_figures
from stages.prior_set import prior_digests
from stages.reference_view import REFERENCE_FOV_DEG, load_reference
from stages.watching import as_bytes, strip


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
        made = make_asset(source, colors, config, "asset", asset_extras(run, reference, texture, stage.fingerprint))
        stage.progress(1, 3)
        notes = _write(stage, made, config)
        asset = _read_back(stage, made)
        stage.progress(2, 3)
        return _published(stage, run, (reference, texture), made, asset, (source, colors), notes)


def _write(stage: Stage, made: MadeAsset, config: ExportConfig) -> tuple[str, ...]:
    """GLB and lossless maps among the artifact's files; notes for the user."""
    content, notes = packed_glb(made, config)
    stage.path("asset.glb").write_bytes(content)
    write_picture(stage.path("base_color.png"), made.asset.mesh.textures[0])
    if made.asset.normal_map is not None:
        write_picture(stage.path("normal.png"), made.asset.normal_map)
    return (*made.notes, *notes)


def _read_back(stage: Stage, made: MadeAsset) -> TexturedMesh:
    """The file as a reader sees it."""
    try:
        return read_asset(stage.path("asset.glb"), made.metres_per_unit).to(stage.device)
    except (ValueError, KeyError, json.JSONDecodeError) as error:
        raise StageError(f"the written GLB cannot be read back: {error}", None, "report it with the run's id") from error


def _published(
    stage: Stage,
    run: RunContext,
    parents: tuple[ReferenceArtifact, TexturedMeshArtifact],
    made: MadeAsset,
    asset: TexturedMesh,
    truth: tuple[Mesh, ColorField],
    notes: tuple[str, ...],
) -> AssetArtifact:
    config, (source, colors), (reference, texture) = ExportConfig.model_validate(stage.config), truth, parents

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
        figures = judged(run, view, render, render_previews(_as_parents(stage, texture, config.preview), render, stage.device))
    glb, normal = stage.path("asset.glb"), stage.path("normal.png")
    maps = {"base_color": stage.path("base_color.png"), **({} if made.asset.normal_map is None else {"normal": normal})}
    return stage.publish(
        AssetArtifact,
        metrics={
            **figures,
            **mesh_figures(made.solid),
            "export_psnr": float(agreement.mean()),
            "glb_mib": glb.stat().st_size / 2**20,
        },
        glb=glb,
        textures=maps,
        turntable=stage.path("turntable.webp"),
        previews=write_previews(stage, views),
        n_vertices=len(asset.vertices),
        n_faces=len(asset.faces),
        glb_bytes=glb.stat().st_size,
        metres_per_unit=made.metres_per_unit,
        notes=notes,
    )


def _as_parents(stage: Stage, texture: TexturedMeshArtifact, preview: PreviewConfig) -> PreviewConfig:
    """A turntable of the texture stage's number and size of views: what the judge says depends on the pictures' size."""
    size = len(read_picture(stage.locate(texture, texture.previews[0])))
    return preview.model_copy(update={"n_views": len(texture.previews), "size": size})


def _write_turntable(stage: Stage, config: ExportConfig, asset: TexturedMesh) -> None:
    cameras = turntable_cameras(config.turntable_views, 15.0, REFERENCE_FOV_DEG, config.turntable_size).to(stage.device)
    with torch.no_grad():
        frames = [render_textured_mesh(asset, cameras[[index]], 2, False).rgb for index in range(len(cameras))]
    write_turntable(stage.path("turntable.webp"), torch.cat(frames), 4.0)


if __name__ == "__main__":
    from stages.entry import main

    main("export", export_asset)
