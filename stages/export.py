"""The asset: crumbs off, decimate, unwrap, bake, write a GLB, and read it back to compare with what the texture stage rendered."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.assets.asset import Asset
from dreampolish.assets.bake import Texels, bake, bake_normal_map, texels_of
from dreampolish.assets.projection import FineSurface
from dreampolish.assets.reading.read import joined, read_scene
from dreampolish.assets.reading.repainting.repaint import Colors, GivenMesh, PictureSettings, Repainted, repainted
from dreampolish.assets.reading.scene import MeshError
from dreampolish.assets.reading.source import open_archive
from dreampolish.assets.textured_mesh import TexturedMesh, render_textured_mesh
from dreampolish.assets.unwrap import Unwrapped, unwrap
from dreampolish.assets.writing.glb import glb_bytes
from dreampolish.fields.color import ColorField
from dreampolish.mesh.decimate import decimated
from dreampolish.mesh.tangents import tangents_from_uv
from dreampolish.mesh.topology import without_crumbs
from dreampolish.metrics.pictures import psnr
from dreampolish.renderers.mesh import Mesh, color_of_field, mesh_from_parts
from dreampolish.scene.cameras import turntable_cameras
from dreampolish.scene.cutout import OBJECT_RADIUS
from dreampolish.scene.pictures import write_picture, write_turntable
from schemas.artifacts import AssetArtifact, IntakeArtifact, Placement, ReferenceArtifact, TexturedMeshArtifact
from schemas.config.export import ExportConfig
from stages.guidance.priors import prior_licences
from stages.guidance.reference_view import REFERENCE_FOV_DEG
from stages.results.files import load_colors, load_mesh, mesh_figures, read_asset
from stages.results.scores import TURNTABLE
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError
from stages.runtime.stage import Stage, stage

WEB_TRIANGLES = 150_000
"""Triangles of a web asset, at most, whatever its size limit."""
LEAST_TRIANGLES = 4
"""Of a closed mesh: a tetrahedron."""
BYTES_PER_TRIANGLE = 45
"""Of a GLB without its maps: 48 bytes a vertex, three vertices for four triangles once cut at seams, two or four bytes a corner."""
GEOMETRY_SHARE = 0.6
"""Of a web asset's bytes, at most; the maps have the rest."""
LEAST_TEXTURE = 128
"""Side of the maps that a web asset is shrunk to at most, pixels; the smallest that `texture_size` may ask for."""
COMPARED_VIEWS = 8
"""Of the turntable's, at most, in which the written file is compared with the texture stage's mesh."""


@dataclass(frozen=True)
class MadeAsset:
    """An asset in metres, its mesh before the cuts, and how many metres a scene unit is. notes: what the user should hear."""

    asset: Asset
    solid: Mesh
    metres_per_unit: float
    notes: tuple[str, ...]


def make_asset(source: Mesh, colors: ColorField, config: ExportConfig, name: str, extras: dict[str, Any]) -> MadeAsset:
    """Crumbs off, decimate (web), unwrap, bake colours and, for a decimated mesh, the dense mesh's normals. extras: as in `Asset`."""
    vertices, faces = without_crumbs(source.vertices, source.faces, config.crumb_share)
    budget, notes = triangle_budget(config)
    if config.quality == "web":
        vertices, faces = decimated(vertices, faces, budget)
    unwrapped = unwrap(vertices, faces, config.texture_size, config.chart_padding)
    texels = texels_of(unwrapped, config.texture_size, config.dilation)
    base_color, normal_map = _maps(unwrapped=unwrapped, texels=texels, source=source, colors=colors, config=config)
    used = vertices[faces.unique()]
    scale = config.longest_side / float((used.amax(0) - used.amin(0)).max())
    everywhere = torch.zeros(len(unwrapped.faces), dtype=torch.long, device=unwrapped.faces.device)
    mesh = TexturedMesh(
        vertices=unwrapped.vertices * scale,
        normals=unwrapped.normals,
        uv=unwrapped.uv,
        faces=unwrapped.faces,
        textures=(base_color,),
        face_texture=everywhere,
    )
    asset = Asset(
        mesh=mesh,
        source=unwrapped.source,
        normal_map=normal_map,
        roughness=config.roughness,
        metallic=config.metallic,
        name=name,
        extras=extras,
    )
    return MadeAsset(asset, mesh_from_parts(vertices, faces), scale, notes)


def triangle_budget(config: ExportConfig) -> tuple[int, tuple[str, ...]]:
    """How many triangles a web asset may have, and a note where that is fewer than were asked for."""
    allowed = min(WEB_TRIANGLES, int(config.size_limit_mb * 1e6 * GEOMETRY_SHARE / BYTES_PER_TRIANGLE))
    if config.quality == "base" or config.triangle_budget <= allowed:
        return config.triangle_budget, ()
    note = f"at most {allowed:,} triangles fit into {config.size_limit_mb:g} MB (asked for: {config.triangle_budget:,})"
    return max(allowed, LEAST_TRIANGLES), (note,)


def _maps(
    unwrapped: Unwrapped, texels: Texels, source: Mesh, colors: ColorField, config: ExportConfig
) -> tuple[Float[Tensor, "s s 3"], Float[Tensor, "s s 3"] | None]:
    """Base colour, and the tangent-space normals of the dense mesh; none for a mesh that was not decimated."""
    if config.quality == "base":
        return bake(color_of_field(colors), unwrapped, texels), None
    fine, color_of = FineSurface(source.vertices, source.faces), color_of_field(colors)

    def fine_color(points: Tensor, normals: Tensor) -> Tensor:
        return color_of(*fine.project(points, normals, config.bake_reach))

    def fine_normal(points: Tensor, normals: Tensor) -> Tensor:
        return fine.project(points, normals, config.bake_reach)[1]

    base_color = bake(fine_color, unwrapped, texels)
    if not config.normal_map:
        return base_color, None
    tangents = tangents_from_uv(unwrapped.vertices, unwrapped.normals, unwrapped.uv, unwrapped.faces)
    return base_color, bake_normal_map(fine_normal, unwrapped, texels, tangents)


def packed_glb(made: MadeAsset, config: ExportConfig) -> tuple[bytes, tuple[str, ...]]:
    """The GLB's bytes: lossless for `base`; for `web` within the size limit, by JPEG quality first, then by smaller maps, which is noted.

    Raises StageError where the limit cannot be met.
    """
    if config.quality == "base":
        return glb_bytes(made.asset, None), ()
    asset, limit = made.asset, int(config.size_limit_mb * 1e6)
    size = int(config.texture_size)
    while True:
        for quality in config.jpeg_qualities:
            content = glb_bytes(asset, quality)
            if len(content) <= limit:
                note = f"maps of {size} pixels, not {config.texture_size}, to fit into {config.size_limit_mb:g} MB"
                return content, () if size == config.texture_size else (note,)
        if size <= LEAST_TEXTURE:
            what = f"the GLB would have {len(content) / 1e6:.2f} MB, the limit is {config.size_limit_mb:g} MB"
            raise StageError(what, None, "raise export.size_limit_mb or lower export.triangle_budget")
        asset, size = _with_smaller_maps(asset), size // 2


def _with_smaller_maps(asset: Asset) -> Asset:
    mesh = replace(asset.mesh, textures=tuple(_halved(texture) for texture in asset.mesh.textures))
    if asset.normal_map is None:
        return replace(asset, mesh=mesh)
    normals = torch.nn.functional.normalize(_halved(asset.normal_map) * 2 - 1, dim=-1)
    return replace(asset, mesh=mesh, normal_map=(normals + 1) / 2)


def _halved(texture: Tensor) -> Tensor:
    height, width, channels = texture.shape
    return texture.reshape(height // 2, 2, width // 2, 2, channels).mean((1, 3))


def asset_extras(
    run: RunContext, reference: ReferenceArtifact, texture: TexturedMeshArtifact, fingerprint: str | None
) -> dict[str, Any]:
    """What a file says of its making. fingerprint: the export stage's, where one wrote it."""
    prints = {**texture.parents, "texture": texture.fingerprint}
    return {
        "prompt": reference.prompt,
        "seed": run.seed,
        "fingerprints": prints if fingerprint is None else {**prints, "export": fingerprint},
        "licences": prior_licences(run),
    }


@stage(
    "export",
    reads={
        "reference": ("prompt",),
        "texture": ("mesh", "color_field", "color_config", "fingerprint", "parents"),
        "intake": ("given", "placement", "only", "color_field", "color_config"),
    },
    scorer=TURNTABLE,
)
def export_asset(
    stage: Stage,
    reference: ReferenceArtifact,
    texture: TexturedMeshArtifact,
    config: ExportConfig,
    intake: IntakeArtifact | None = None,
) -> AssetArtifact:
    """Write the GLB, its turntable and its figures; `export_psnr` compares the file, read back, with the texture stage's mesh.

    intake: a user's own mesh, whose file then comes out with new colours and everything else as it was.
    """
    if intake is not None:
        return _repainted(stage=stage, reference=reference, texture=texture, config=config, intake=intake)
    source, colors = load_mesh(stage, texture), load_colors(stage, texture)
    made = make_asset(
        source=source,
        colors=colors,
        config=config,
        name="asset",
        extras=asset_extras(stage.run, reference, texture, stage.fingerprint),
    )
    stage.progress(1, 3)
    notes = _write(stage, made, config)
    asset = _read_back(stage, made)
    stage.progress(2, 3)
    return _published(stage=stage, made=made, asset=asset, truth=(source, colors), notes=notes)


def _repainted(
    stage: Stage, reference: ReferenceArtifact, texture: TexturedMeshArtifact, config: ExportConfig, intake: IntakeArtifact
) -> AssetArtifact:
    """The user's file with the texture stage's colours."""
    given = opened_given(stage.locate(intake, intake.given), intake.placement)
    source, colors = load_mesh(stage, texture), load_colors(stage, texture)
    made = repaint_given(
        given=given,
        vertices=source.vertices.cpu(),
        colors=Colors(color_of_field(colors), color_of_field(load_colors(stage, intake)), config.detail_kept),
        config=config,
        only=intake.only,
        extras=asset_extras(stage.run, reference, texture, stage.fingerprint),
    )
    stage.progress(1, 3)
    stage.path("asset.glb").write_bytes(made.glb)
    originals = {name: stage.path(f"original-{number}") for number, name in enumerate(made.originals)}
    for name, path in originals.items():
        path.write_bytes(made.originals[name])
    maps = {}
    for number, picture in enumerate(made.pictures.values()):
        maps[f"base_color_{number}"] = stage.path(f"base_color_{number}.png")
        write_picture(maps[f"base_color_{number}"], picture)
    placement = exported_placement(given, intake.placement)
    asset = read_asset(stage.path("asset.glb"), 1.0, placement).to(stage.device)
    stage.progress(2, 3)
    return stage.publish(
        AssetArtifact,
        metrics={**mesh_figures(source), **_written_figures(stage, asset, (source, colors))},
        glb=stage.path("asset.glb"),
        textures=maps,
        turntable=stage.path("turntable.webp"),
        n_vertices=len(asset.vertices),
        n_faces=len(asset.faces),
        glb_bytes=stage.path("asset.glb").stat().st_size,
        placement=placement,
        originals=originals,
        notes=made.notes,
    )


def opened_given(archive: Path, placement: Placement) -> GivenMesh:
    """A user's mesh again, in the scene."""
    files = open_archive(archive)
    scene = read_scene(files)
    mesh = joined(scene, placement.up, files.name, placement.front_deg).normalized(OBJECT_RADIUS)
    return GivenMesh(
        files=files,
        scene=scene,
        mesh=mesh,
        up=placement.up,
        front_deg=placement.front_deg,
        metres_per_unit=placement.metres_per_unit,
        scale=placement.scale,
    )


def exported_placement(given: GivenMesh, placement: Placement) -> Placement:
    """Where the scene lies in the GLB: as in the user's own glTF; of other formats it is upright and in metres."""
    if given.files.kind in ("glb", "gltf"):
        return placement
    unit = placement.metres_per_unit
    center = tuple(value * unit for value in placement.center)
    return placement.model_copy(update={"up": "y", "center": center, "scale": placement.scale * unit, "metres_per_unit": 1.0})


def repaint_given(
    given: GivenMesh,
    vertices: Float[Tensor, "n 3"],
    colors: Colors,
    config: ExportConfig,
    only: str,
    extras: dict[str, Any],
) -> Repainted:
    """A user's mesh with new colours, its places at `vertices`. Raises StageError where a material cannot be laid out."""
    settings = PictureSettings(
        paint=config.repaint,
        only=only,
        uv=config.uv,
        size=config.texture_size,
        dilation=config.dilation,
        padding=config.chart_padding,
        jpeg_quality=None if config.quality == "base" else config.jpeg_qualities[0],
    )
    try:
        return repainted(given=given, vertices=vertices, colors=colors, settings=settings, extras=extras)
    except MeshError as error:
        raise StageError(str(error), None, "give another mesh or other settings") from error


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
    stage: Stage, made: MadeAsset, asset: TexturedMesh, truth: tuple[Mesh, ColorField], notes: tuple[str, ...]
) -> AssetArtifact:
    glb, normal = stage.path("asset.glb"), stage.path("normal.png")
    maps = {"base_color": stage.path("base_color.png"), **({} if made.asset.normal_map is None else {"normal": normal})}
    return stage.publish(
        AssetArtifact,
        metrics={**mesh_figures(made.solid), **_written_figures(stage, asset, truth)},
        glb=glb,
        textures=maps,
        turntable=stage.path("turntable.webp"),
        n_vertices=len(asset.vertices),
        n_faces=len(asset.faces),
        glb_bytes=glb.stat().st_size,
        metres_per_unit=made.metres_per_unit,
        notes=notes,
    )


def _written_figures(stage: Stage, asset: TexturedMesh, truth: tuple[Mesh, ColorField]) -> dict[str, float]:
    """Write the turntable of a file that was read back; how well it agrees with the texture stage's mesh, dB, and its size."""
    config, (source, colors) = ExportConfig.model_validate(stage.config), truth
    cameras = turntable_cameras(
        config.turntable_views, config.turntable_elevation_deg, REFERENCE_FOV_DEG, config.turntable_size
    ).to(stage.device)
    with torch.no_grad():
        frames = [render_textured_mesh(asset, cameras[[index]], 2, cull_backfaces=False).rgb for index in range(len(cameras))]
        compared = range(0, len(cameras), -(-len(cameras) // COMPARED_VIEWS))
        agreement = [
            psnr(frames[index], source.render(cameras[[index]], color_of_field(colors), 2, smooth=True).rgb)
            for index in compared
        ]
    write_turntable(stage.path("turntable.webp"), torch.cat(frames), config.turntable_seconds)
    return {
        "export_psnr": float(torch.stack(agreement).mean()),
        "glb_mib": stage.path("asset.glb").stat().st_size / 2**20,
    }


if __name__ == "__main__":
    from stages.runtime.command import main

    main(export_asset)
