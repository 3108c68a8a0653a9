"""Mesh and colour-field files of artifacts, and the turntable render of a mesh: what dmtet, polish, texture and export share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreampolish.fields.color import ColorField, color_field_from_config
from dreampolish.fields.density import DensityField, density_field_from_config
from dreampolish.fields.hash_grid import GridSizes, HashGrid
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField, sdf_field_from_config
from dreampolish.mesh.topology import face_adjacency, topology
from dreampolish.renderers.mesh import MeshRender, coverage, render_mesh
from dreampolish.renderers.rasterizer import rasterize
from dreampolish.scene.cameras import SCENE_HALF_SIZE, Cameras
from schemas.artifacts import (
    Artifact,
    FileRef,
    MeshArtifact,
    NerfArtifact,
    PolishedMeshArtifact,
    SdfArtifact,
    TexturedMeshArtifact,
)
from schemas.config.shared import GridConfig, LevelsConfig
from stages.runtime.stage import Stage
from stages.runtime.store import LocalStore


class ArtifactFiles(Protocol):
    """What a reader of artifacts is: a stage is one, and so is `StoredFiles`."""

    @property
    def device(self) -> torch.device:
        """Where tensors are wanted."""
        ...

    def locate(self, parent: Artifact, reference: FileRef) -> Path:
        """The path of an artifact's file."""
        ...


@dataclass(frozen=True)
class StoredFiles:
    """The files of a store's artifacts for a reader that is no stage; `LocalStore.open` has verified them."""

    store: LocalStore
    device: torch.device

    def locate(self, parent: Artifact, reference: FileRef) -> Path:
        """The path of an artifact's file."""
        return self.store.folder(parent.stage, parent.fingerprint) / reference.path


ColorOf = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Mesh:
    """Vertices, faces and the faces' neighbours across their edges. painted_at: where the vertices were painted, if they moved since."""

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    adjacency: Int[Tensor, "f 3"]
    painted_at: Float[Tensor, "v 3"] | None = None

    def moved(self, vertices: Float[Tensor, "v 3"]) -> "Mesh":
        """The same faces on other vertices."""
        return Mesh(vertices, self.faces, self.adjacency)

    def carried(self, vertices: Float[Tensor, "v 3"]) -> "Mesh":
        """The same faces on other vertices, to which they carry their colours."""
        return Mesh(vertices, self.faces, self.adjacency, self.vertices if self.painted_at is None else self.painted_at)

    def render(self, cameras: Cameras, color_of: ColorOf, supersample: int, smooth: bool) -> MeshRender:
        """Pictures; back faces count, so that an open mesh shows no holes that are not there."""
        return render_mesh(
            self.vertices, self.faces, cameras, color_of, supersample, smooth, False, self.adjacency, self.painted_at
        )

    def silhouette(self, cameras: Cameras) -> Float[Tensor, "b h w"]:
        """The mask alone, as `render` gives it without supersampling."""
        fragments = rasterize(self.vertices, self.faces, cameras, False)
        return coverage(fragments, self.vertices, self.faces, cameras, self.adjacency)

    def coverage(self, render: MeshRender, cameras: Cameras) -> Float[Tensor, "b h w"]:
        """The mask of a render of these faces where they are now, not supersampled, differentiable in the vertices alone."""
        return coverage(render.fragments, self.vertices, self.faces, cameras, self.adjacency)


def mesh_from_parts(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Mesh:
    """A mesh with its adjacency."""
    return Mesh(vertices, faces, face_adjacency(faces))


def grid_sizes(config: GridConfig) -> GridSizes:
    """The engine's sizes of a hash grid over the scene box."""
    return GridSizes(
        n_levels=config.n_levels,
        n_features=config.n_features,
        base_resolution=config.base_resolution,
        growth=config.growth,
        table_size=2**config.log2_table_size,
        half_size=SCENE_HALF_SIZE,
    )


def active_levels(grid: HashGrid, config: LevelsConfig, progress: tuple[int, int]) -> int:
    """How many levels of a grid are open at (step, steps): from `start_level` to all by `full_at`.

    The number of levels is the grid's own: a field that came from an earlier stage has that stage's.
    """
    step, steps = progress
    share = 1.0 if config.full_at == 0 else min(1.0, step / max(steps - 1, 1) / config.full_at)
    start = min(config.start_level, grid.sizes.n_levels)
    return start + int(share * (grid.sizes.n_levels - start))


def open_all_levels(grid: HashGrid) -> None:
    """Every level counts from here on: what is published must not depend on where the schedule of levels stopped."""
    grid.active_levels = grid.sizes.n_levels


def load_mesh(files: ArtifactFiles, parent: MeshArtifact | PolishedMeshArtifact | TexturedMeshArtifact) -> Mesh:
    """An artifact's mesh on its reader's device."""
    parts = load_file(files.locate(parent, parent.mesh), device=str(files.device))
    return mesh_from_parts(parts["vertices"], parts["faces"])


def load_colors(files: ArtifactFiles, parent: MeshArtifact | PolishedMeshArtifact | TexturedMeshArtifact) -> ColorField:
    """An artifact's colour field on its reader's device."""
    field = color_field_from_config(dict(parent.color_config), files.device)
    field.load_state_dict(load_file(files.locate(parent, parent.color_field), device=str(files.device)))
    return field


def write_mesh(stage: Stage, mesh: Mesh, colors: ColorField) -> dict[str, Any]:
    """Write mesh and colours; the artifact's fields that name them."""
    mesh_path, color_path = stage.path("mesh.safetensors"), stage.path("colors.safetensors")
    save_file({"vertices": mesh.vertices.detach().contiguous(), "faces": mesh.faces.contiguous()}, mesh_path)
    save_state(colors, color_path)
    return {
        "mesh": mesh_path,
        "color_field": color_path,
        "color_config": colors.field_config,
        "n_vertices": len(mesh.vertices),
        "n_faces": len(mesh.faces),
    }


def save_state(module: torch.nn.Module, path: Path) -> None:
    """A module's state as safetensors."""
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in module.state_dict().items()}, path)


def color_of_field(field: ColorField) -> ColorOf:
    """A colour field as the renderer wants it: colours from points, the same from every side."""
    return lambda points, normals: field(points)


def fixed_color_of_field(field: ColorField) -> ColorOf:
    """The same colours without a gradient: what is learned from pictures of them is shape alone."""
    return lambda points, normals: field(points).detach()


def mesh_figures(mesh: Mesh) -> Mapping[str, float]:
    """Triangles, components, watertightness and non-manifold edges, as metrics."""
    found = topology(mesh.faces)
    return {
        "triangles": float(len(mesh.faces)),
        "components": float(found.n_components),
        "watertight": float(found.watertight),
        "non_manifold_edges": float(found.n_nonmanifold_edges),
    }


def load_density(files: ArtifactFiles, nerf: NerfArtifact) -> DensityField:
    """The field of a nerf artifact on the reader's device, without gradients."""
    field = density_field_from_config(dict(nerf.field_config), files.device)
    field.load_state_dict(load_file(files.locate(nerf, nerf.field), device=str(files.device)))
    return field.requires_grad_(False)


def load_sdf(files: ArtifactFiles, neus: SdfArtifact) -> SdfField:
    """The field of a neus artifact on the reader's device, without gradients."""
    field = sdf_field_from_config(dict(neus.field_config), files.device)
    field.load_state_dict(load_file(files.locate(neus, neus.field), device=str(files.device)))
    return field.requires_grad_(False)


def load_occupancy(files: ArtifactFiles, artifact: NerfArtifact | SdfArtifact, reference: FileRef) -> OccupancyGrid:
    """An artifact's occupancy grid over the scene box, on the reader's device."""
    state = load_file(files.locate(artifact, reference), device=str(files.device))
    occupancy = OccupancyGrid(round(len(state["occupied"]) ** (1 / 3)), SCENE_HALF_SIZE, files.device)
    occupancy.load_state_dict(state)
    return occupancy
