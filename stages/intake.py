"""Before the other stages, for a user's own mesh: the file is read, put into the scene, and a colour field learns its colours.

The result stands in for a polished mesh. It holds the file itself, so that the export writes that back with new colours and
everything else as it came, and where the scene lies in it.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.assets.reading.mended import flaws_of_scene, mended_scene
from dreampolish.assets.reading.read import ReadMesh, assumed_up, joined, read_scene
from dreampolish.assets.reading.repainting.gltf_back import gltf_of_scene
from dreampolish.assets.reading.repainting.layout import chosen_parts, face_starts
from dreampolish.assets.reading.scene import MeshError, Scene
from dreampolish.assets.reading.source import MeshFiles, archive_bytes, open_archive
from dreampolish.assets.reading.surface import is_one_colour, sampled_colors, welded
from dreampolish.assets.textured_mesh import render_textured_mesh
from dreampolish.fields.color import ColorField, fit_colors
from dreampolish.mesh.topology import face_normals
from dreampolish.renderers.mesh import Mesh, MeshRender, mesh_from_parts
from dreampolish.scene.cameras import turntable_cameras
from dreampolish.scene.cutout import OBJECT_RADIUS
from dreampolish.scene.pictures import write_picture
from dreampolish.scene.shading import facing_light
from schemas.artifacts import IntakeArtifact, Placement
from schemas.config.intake import IntakeConfig
from stages.guidance.grids import grid_sizes
from stages.guidance.reference_view import REFERENCE_FOV_DEG
from stages.results.files import mesh_figures, write_mesh
from stages.results.observer import as_bytes, strip
from stages.runtime.errors import StageError
from stages.runtime.stage import Stage, stage

PLAIN_FIT_STEPS = 60
"""Steps that a single colour takes to be learned, at most."""


@stage("intake", reads={})
def take_in_mesh(stage: Stage, mesh: Path, config: IntakeConfig) -> IntakeArtifact:
    """Read a user's mesh. mesh: an archive of it with all that it names. Raises StageError, in one line, for one that cannot be read."""
    try:
        files = open_archive(mesh)
        scene = read_scene(files)
        up = assumed_up(scene, files) if config.up == "auto" else config.up
        said = (*_assumptions(config, scene, files, up), *_told_flaws(config, scene))
        if config.mend:
            files, scene, up = _mended(config, files, scene, up)
        found = joined(scene, up, files.name, config.front_deg)
        painted = _painted(scene, config.only)
    except MeshError as error:
        raise StageError(str(error), None, "give another file") from error
    solid = _in_scene(found)
    stage.progress(1, 3)
    colors, fit_error = _learned_colors(stage, config, found)
    stage.progress(2, 3)
    views = _views(stage, config, found)
    stage.image("views", 0, as_bytes(strip(views)))
    given = stage.path("given.zip")
    given.write_bytes(archive_bytes(files) if config.mend else mesh.read_bytes())
    return stage.publish(
        IntakeArtifact,
        metrics={**mesh_figures(solid), "color_fit_error": fit_error, "parts": float(len(scene.parts)), **_flaws(solid)},
        **write_mesh(stage, solid, colors, painted),
        given=given,
        placement=_placement(config, scene, found, up),
        only=config.only,
        has_colors=not is_one_colour(found.mesh),
        previews=_written_views(stage, views),
        notes=(*found.notes, *said),
    )


def _told_flaws(config: IntakeConfig, scene: Scene) -> list[str]:
    if not config.tell_flaws and not config.mend:
        return []
    before = flaws_of_scene(scene).told()
    if not before:
        return ["the mesh has no flaws: closed, every edge between two faces, all faces outward"]
    if not config.mend:
        return [f"the mesh has {before}; --mend mends what it can"]
    after = flaws_of_scene(mended_scene(scene)).told()
    return [f"mended: {before}; left: {after or 'none'}"]


def _mended(config: IntakeConfig, files: MeshFiles, scene: Scene, up: str) -> tuple[MeshFiles, Scene, str]:
    """The mesh mended, as a GLB that takes the file's place: base colours alone, one piece."""
    name = files.name.rpartition(".")[0]
    unit = config.metres_per_unit or scene.metres_per_unit or 1.0
    data = gltf_of_scene(mended_scene(scene), up, unit, name)
    found = MeshFiles(f"{name}.glb", data.files.content, None)
    return found, read_scene(found), "y"


def _painted(scene: Scene, only: str) -> Tensor | None:
    """Which faces are painted; None: all."""
    if not only:
        return None
    starts = face_starts(scene.parts)
    painted = torch.zeros(starts[-1], dtype=torch.bool)
    for number in chosen_parts(scene.parts, only):
        painted[starts[number] : starts[number + 1]] = True
    return painted


def _in_scene(found: ReadMesh) -> Mesh:
    """The surface in the scene, each place once, the faces in the file's order."""
    return mesh_from_parts(*welded(found.normalized(OBJECT_RADIUS)))


def _learned_colors(stage: Stage, config: IntakeConfig, found: ReadMesh) -> tuple[ColorField, float]:
    """A colour field fitted to the mesh's own colours, and the last error."""
    colors = ColorField(grid_sizes(config.grid), config.grid.hidden_size, stage.generator)
    points, wanted = sampled_colors(found.normalized(OBJECT_RADIUS).to(stage.device), config.color_points, stage.generator)
    error = fit_colors(
        field=colors,
        points=points,
        colors=wanted,
        steps=min(config.color_fit_steps, PLAIN_FIT_STEPS) if is_one_colour(found.mesh) else config.color_fit_steps,
        batch=config.color_fit_batch,
        learning_rate=config.color_fit_lr,
        generator=stage.generator,
    )
    return colors, float(error)


def _views(stage: Stage, config: IntakeConfig, found: ReadMesh) -> Float[Tensor, "n h w 3"]:
    """The mesh as it came, from all around; one without colours under a light."""
    preview = config.preview
    cameras = turntable_cameras(preview.n_views, preview.elevation_deg, REFERENCE_FOV_DEG, preview.size).to(stage.device)
    mesh = found.normalized(OBJECT_RADIUS).to(stage.device)
    plain = is_one_colour(found.mesh)
    with torch.no_grad():
        renders = [render_textured_mesh(mesh, cameras[[index]], 2, cull_backfaces=False) for index in range(len(cameras))]
    return torch.cat([_lit(each) if plain else each.rgb for each in renders])


def _lit(render: MeshRender) -> Float[Tensor, "b h w 3"]:
    """A mesh of one colour under a light: unlit, a white one does not show on white."""
    paper = 1 - render.alpha[..., None]
    return (render.rgb - paper) * facing_light(render.normals_world) + paper


def _written_views(stage: Stage, views: Float[Tensor, "n h w 3"]) -> list[Path]:
    paths = [stage.path(f"given-{index}.png") for index in range(len(views))]
    for path, view in zip(paths, views, strict=True):
        write_picture(path, view)
    return paths


def _placement(config: IntakeConfig, scene: Scene, found: ReadMesh, up: str) -> Placement:
    return Placement.model_validate(
        {
            "up": up,
            "front_deg": config.front_deg,
            "center": tuple(found.center.tolist()),
            "scale": found.radius / OBJECT_RADIUS,
            "metres_per_unit": (0.0 if config.mend else config.metres_per_unit) or scene.metres_per_unit or 1.0,
        }
    )


def _flaws(mesh: Mesh) -> dict[str, float]:
    """Figures of what a mesh from elsewhere may have: faces without area, and whether it is inside out."""
    corners = mesh.vertices[mesh.faces].double()
    volume = (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6
    flat = face_normals(mesh.vertices, mesh.faces).norm(dim=-1) < 0.5
    return {"flat_faces": float(flat.sum()), "volume": float(volume)}


def _assumptions(config: IntakeConfig, scene: Scene, files: MeshFiles, up: str) -> list[str]:
    """What was assumed where the file does not say."""
    if scene.up is not None or config.up != "auto":
        return []
    return [f"{files.name} does not say which way is up; {up} is taken, --up names another"]


if __name__ == "__main__":
    from stages.runtime.command import main

    main(take_in_mesh)
