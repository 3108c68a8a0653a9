"""Any stage's result, opened: pictures through any camera and a triangle mesh, so that measurements need not know what it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import BaseModel
from skimage.measure import marching_cubes
from torch import Tensor

from dreampolish.assets.textured_mesh import TexturedMesh, render_textured_mesh
from dreampolish.fields.density_to_sdf import automatic_level, density_lattice
from dreampolish.fields.lattice import lattice_points
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField
from dreampolish.renderers.mesh import color_of_field
from dreampolish.renderers.scenes import DensityScene, SdfScene, step_size_for
from dreampolish.scene.cameras import SCENE_HALF_SIZE, Cameras, turntable_cameras
from schemas.artifacts import AnyMesh, Artifact, AssetArtifact, NerfArtifact, SdfArtifact
from schemas.config.nerf import NerfConfig
from schemas.config.neus import NeusConfig
from stages.guidance.reference_view import REFERENCE_FOV_DEG
from stages.results.files import ArtifactFiles, load_colors, load_density, load_mesh, load_occupancy, load_sdf, read_asset

LATTICE = 96
"""Points of a side at which fields are sampled for their surface: 0.014 world units apart."""


@dataclass(frozen=True)
class View:
    """Pictures of B cameras: colours on white, coverage 0..1, unit camera-frame normals (0 where nothing is seen)."""

    rgb: Float[Tensor, "b h w 3"]
    alpha: Float[Tensor, "b h w"]
    normals_camera: Float[Tensor, "b h w 3"]


@dataclass(frozen=True)
class ViewableResult:
    """How a result is rendered, and its surface as vertices (V, 3) and outward faces (F, 3), world frame; both without gradients.

    mesh raises ValueError where a field has no surface.
    """

    render: Callable[[Cameras], View]
    mesh: Callable[[], tuple[Float[Tensor, "v 3"], Int[Tensor, "f 3"]]]


def open_artifact(artifact: Artifact, settings: BaseModel, files: ArtifactFiles) -> ViewableResult:
    """Open the result of any stage but the first. settings: of its stage. Raises TypeError for an artifact without a shape."""
    match artifact, settings:
        case NerfArtifact(), NerfConfig():
            return _opened_density(artifact, settings, files)
        case SdfArtifact(), NeusConfig():
            return _opened_sdf(artifact, settings, files)
        case _ if isinstance(artifact, AnyMesh):
            return _opened_mesh(artifact, files)
        case AssetArtifact(), _:
            return opened_from_textured(
                read_asset(files.locate(artifact, artifact.glb), artifact.metres_per_unit, artifact.placement).to(files.device)
            )
    raise TypeError(f"a {artifact.stage} artifact has no shape to look at")


def opened_from_textured(mesh: TexturedMesh) -> ViewableResult:
    """A mesh under its own textures: a finished asset, or a true object."""

    def render(cameras: Cameras) -> View:
        with torch.no_grad():
            picture = render_textured_mesh(mesh, cameras, 2, cull_backfaces=False)
        return View(picture.rgb, picture.alpha, picture.normals_camera)

    return ViewableResult(render, lambda: (mesh.vertices, mesh.faces))


def _opened_mesh(artifact: AnyMesh, files: ArtifactFiles) -> ViewableResult:
    mesh, color_of = load_mesh(files, artifact), color_of_field(load_colors(files, artifact))

    def render(cameras: Cameras) -> View:
        with torch.no_grad():
            picture = mesh.render(cameras, color_of, 2, smooth=True)
        return View(picture.rgb, picture.alpha, picture.normals_camera)

    return ViewableResult(render, lambda: (mesh.vertices, mesh.faces))


def _opened_density(artifact: NerfArtifact, config: NerfConfig, files: ArtifactFiles) -> ViewableResult:
    """Its surface is the level set that looks most like its pictures, as the neus stage takes it."""
    field, occupancy = load_density(files, artifact), load_occupancy(files, artifact, artifact.occupancy)
    generator = torch.Generator(device=files.device).manual_seed(0)
    scene = DensityScene(field, occupancy, step_size_for(config.samples_per_ray), generator)

    def render(cameras: Cameras) -> View:
        with torch.no_grad():
            picture = scene.render(cameras, with_normals=True, stratified=False)
        assert picture.normals_camera is not None
        return View(picture.rgb, picture.opacity, picture.normals_camera)

    def mesh() -> tuple[Tensor, Tensor]:
        densities = density_lattice(scene.field, scene.occupancy, LATTICE)
        cameras = turntable_cameras(8, 15.0, REFERENCE_FOV_DEG, 64).to(files.device)
        level = automatic_level(
            densities=densities,
            blurred=densities,
            half_size=SCENE_HALF_SIZE,
            cameras=cameras,
            step_size=scene.step_size,
            n_levels=24,
        )
        # A density is high inside, a signed distance low.
        return surface_of_lattice(level - densities)

    return ViewableResult(render, mesh)


def _opened_sdf(artifact: SdfArtifact, config: NeusConfig, files: ArtifactFiles) -> ViewableResult:
    field = load_sdf(files, artifact)
    generator = torch.Generator(device=files.device).manual_seed(0)
    fresh = OccupancyGrid(config.occupancy_resolution, SCENE_HALF_SIZE, files.device)
    scene = SdfScene(
        field=field,
        occupancy=fresh,
        step_size=step_size_for(config.samples_per_ray),
        shell_parts=config.shell_parts,
        generator=generator,
    )
    if artifact.occupancy is None:
        scene.update_occupancy()
    else:
        scene = replace(scene, occupancy=load_occupancy(files, artifact, artifact.occupancy))

    def render(cameras: Cameras) -> View:
        with torch.no_grad():
            picture = scene.render(cameras, stratified=False).picture
        assert picture.normals_camera is not None
        return View(picture.rgb, picture.opacity, picture.normals_camera)

    return ViewableResult(render, lambda: surface_of_lattice(distances_on_lattice(field)))


@torch.no_grad()
def distances_on_lattice(field: SdfField) -> Float[Tensor, "r r r"]:
    """Signed distances at the lattice's points."""
    points = lattice_points(LATTICE, SCENE_HALF_SIZE, field.network.grid.table.device)
    return torch.cat([field.sdf(part) for part in points.split(2**18)]).view((LATTICE,) * 3)


def surface_of_lattice(values: Float[Tensor, "r r r"]) -> tuple[Float[Tensor, "v 3"], Int[Tensor, "f 3"]]:
    """The zero level set, by marching cubes, of values that are negative inside, on a lattice over the scene box; closed at the box.

    Raises ValueError if the values do not change sign.
    """
    spacing = 2 * SCENE_HALF_SIZE / (len(values) - 1)
    # One more layer outside closes surfaces that reach the box.
    padded = np.pad(values.cpu().numpy(), 1, constant_values=max(float(values.abs().max()), spacing))
    if padded.min() >= 0:
        raise ValueError("the field has no surface")
    vertices, faces, _, _ = marching_cubes(padded, 0.0, spacing=(spacing,) * 3, gradient_direction="descent")
    world = torch.from_numpy(vertices.copy()).float() - (SCENE_HALF_SIZE + spacing)
    return world.to(values.device), torch.from_numpy(faces.astype(np.int64)).to(values.device)
