"""Fields, meshes and colours from and to an artifact's files."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreampolish.assets.reading.read import joined, read_scene
from dreampolish.assets.reading.source import open_mesh_file
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.assets.writing.glb import read_glb
from dreampolish.fields.color import ColorField, color_field_from_config
from dreampolish.fields.density import DensityField, density_field_from_config
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField, sdf_field_from_config
from dreampolish.mesh.topology import topology
from dreampolish.renderers.mesh import Mesh, mesh_from_parts
from dreampolish.scene.cameras import SCENE_HALF_SIZE
from schemas.artifacts import AnyMesh, Artifact, FileRef, NerfArtifact, Placement, SdfArtifact
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


def read_asset(path: Path, metres_per_unit: float, placement: Placement | None = None) -> TexturedMesh:
    """A written GLB as a reader sees it, back in scene units. placement: of a user's own mesh. Raises ValueError if it cannot be read."""
    if placement is None:
        mesh = read_glb(path)
        return replace(mesh, vertices=mesh.vertices / metres_per_unit)
    files = open_mesh_file(path)
    found = joined(read_scene(files), placement.up, files.name, placement.front_deg)
    places = (found.vertices - np.array(placement.center)) / placement.scale
    return replace(found.mesh, vertices=torch.tensor(places, dtype=torch.float32))


def load_mesh(files: ArtifactFiles, parent: AnyMesh) -> Mesh:
    """An artifact's mesh on its reader's device."""
    parts = load_file(files.locate(parent, parent.mesh), device=str(files.device))
    return mesh_from_parts(parts["vertices"], parts["faces"])


def load_painted(files: ArtifactFiles, parent: AnyMesh) -> Bool[Tensor, " f"] | None:
    """Which faces of a user's own mesh are to be painted; None: all."""
    painted = load_file(files.locate(parent, parent.mesh), device=str(files.device)).get("painted")
    return None if painted is None or bool(painted.all()) else painted


def load_colors(files: ArtifactFiles, parent: AnyMesh) -> ColorField:
    """An artifact's colour field on its reader's device."""
    field = color_field_from_config(dict(parent.color_config), files.device)
    field.load_state_dict(load_file(files.locate(parent, parent.color_field), device=str(files.device)))
    return field


def write_mesh(stage: Stage, mesh: Mesh, colors: ColorField, painted: Bool[Tensor, " f"] | None = None) -> dict[str, Any]:
    """Write mesh and colours, and which faces are to be painted; the artifact's fields that name them."""
    mesh_path, color_path = stage.path("mesh.safetensors"), stage.path("colors.safetensors")
    parts = {"vertices": mesh.vertices.detach().contiguous(), "faces": mesh.faces.contiguous()}
    save_file(parts if painted is None else {**parts, "painted": painted.contiguous()}, mesh_path)
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
