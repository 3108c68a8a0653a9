"""True meshes made rough for a study of polishing, and what polishing made of them, back in the frame of the truth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dreampolish.assets.reading.read import assumed_up, read_mesh, read_scene
from dreampolish.assets.reading.repainting.gltf_back import gltf_of_scene
from dreampolish.assets.reading.scene import Look, Part, Scene
from dreampolish.assets.reading.source import open_mesh_file
from dreampolish.mesh.roughened import roughened, subdivided
from dreampolish.renderers.mesh import Mesh, mesh_from_parts
from dreampolish.scene.cameras import Cameras
from dreampolish.scene.cutout import OBJECT_RADIUS
from dreampolish.scene.shading import facing_light
from flows.runs.given_mesh import GivenMesh
from schemas.artifacts import Artifact, IntakeArtifact, PolishedMeshArtifact
from stages.results.files import ArtifactFiles, load_mesh
from stages.results.surfaces import View, ViewableResult

ROUGH_EDGE = 0.03
"""Longest edge of a mesh that is roughened, as a share of the diagonal of its box: bumps have vertices to be made of. [choice]"""

GREY = 0.7
"""What stands for the colours of a mesh that has none."""


def polishing_settings() -> Sequence[str]:
    """Those of `dreampolish polish --mesh` for a mesh without colours."""
    return GivenMesh(Path(), use="polish", paint=False).settings(has_colors=False)


def rough_glb(glb: Path, share: float, seed: int) -> bytes:
    """A GLB of the same shape in one piece, without colours, made rough. share: the bumps' standard deviation, as a share of the
    diagonal of the shape's box. Raises ValueError if it cannot be read."""
    files = open_mesh_file(glb)
    scene = read_scene(files)
    positions = np.concatenate([part.positions for part in scene.parts])
    first = np.cumsum([0, *(len(part.positions) for part in scene.parts)])
    corners = np.concatenate([part.faces + start for part, start in zip(scene.parts, first[:-1], strict=True)])
    places, number = np.unique(positions, axis=0, return_inverse=True)
    vertices, faces = torch.from_numpy(places).double(), torch.from_numpy(number.reshape(-1)[corners])
    diagonal = float((vertices.amax(0) - vertices.amin(0)).norm())
    vertices, faces = subdivided(vertices, faces, ROUGH_EDGE * diagonal)
    rough = roughened(vertices, faces, share * diagonal, torch.Generator().manual_seed(seed))
    part = Part(name=glb.stem, look=Look("plain"), positions=rough.numpy(), faces=faces.numpy())
    found = Scene((part,), up=scene.up, metres_per_unit=scene.metres_per_unit)
    return gltf_of_scene(found, assumed_up(scene, files), scene.metres_per_unit or 1.0, glb.stem).files.content


def in_true_frame(artifact: Artifact, intake: Artifact, glb: Path, files: ArtifactFiles) -> ViewableResult:
    """A polished mesh where its truth lies: bumps change the box by which a mesh is put into the scene, and these places say nothing of
    the shape. intake: of the roughened mesh; glb: the true one."""
    if not isinstance(artifact, PolishedMeshArtifact | IntakeArtifact) or not isinstance(intake, IntakeArtifact):
        raise TypeError(f"a {artifact.stage} artifact is no polished mesh of one's own")
    true, mesh = read_mesh(glb), load_mesh(files, artifact)
    places = mesh.vertices.double() * intake.placement.scale + torch.tensor(intake.placement.center).to(mesh.vertices.device)
    places = (places - torch.from_numpy(true.center).to(places)) / (true.radius / OBJECT_RADIUS)
    return _shown(mesh_from_parts(places.to(mesh.vertices), mesh.faces))


def _shown(mesh: Mesh) -> ViewableResult:
    """Grey under a light: bumps without one are seen at the outline alone."""

    def render(cameras: Cameras) -> View:
        with torch.no_grad():
            picture = mesh.render(cameras, lambda points, normals: torch.full_like(points, GREY), 2, smooth=True)
        paper = 1 - picture.alpha[..., None]
        lit = (picture.rgb - paper) * facing_light(picture.normals_world) + paper
        return View(lit, picture.alpha, picture.normals_camera)

    return ViewableResult(render, lambda: (mesh.vertices, mesh.faces))
