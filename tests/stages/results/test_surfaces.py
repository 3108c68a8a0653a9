"""Opened results: a mesh, a file and a field that are all the same ball look and measure like it."""

from pathlib import Path

import pytest
import torch
import trimesh
from safetensors.torch import save_file

from dreampolish.assets.asset import plain_asset
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.assets.writing.glb import write_glb
from dreampolish.fields.color import ColorField
from dreampolish.fields.density import DensityField
from dreampolish.fields.lattice import lattice_points
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField
from dreampolish.scene.cameras import SCENE_HALF_SIZE, Cameras, turntable_cameras
from schemas.artifacts import AssetArtifact, FileRef, MeshArtifact, NerfArtifact, ReferenceArtifact, SdfArtifact
from schemas.config.nerf import NerfConfig
from schemas.config.neus import NeusConfig
from schemas.config.run import Config
from schemas.config.shared.geometry import OpeningGridConfig
from stages.guidance.grids import grid_sizes
from stages.results.files import StoredFiles, save_state
from stages.results.surfaces import ViewableResult, open_artifact, surface_of_lattice
from stages.runtime.store import LocalStore

SIZES = grid_sizes(OpeningGridConfig(n_levels=2, log2_table_size=8, hidden_size=8))
DIGEST = "0" * 64
COMMON = {"fingerprint": DIGEST, "parents": {}, "metrics": {}, "seconds": 1.0, "peak_memory": 1}


@pytest.fixture
def files(tmp_path: Path) -> StoredFiles:
    return StoredFiles(LocalStore(tmp_path), torch.device("cpu"))


def folder_for(files: StoredFiles, stage: str) -> Path:
    folder = files.store.folder(stage, DIGEST)
    folder.mkdir(parents=True)
    return folder


def named(path: str) -> FileRef:
    return FileRef(path=path, sha256=DIGEST, bytes=0)


def ball(radius: float) -> tuple[torch.Tensor, torch.Tensor]:
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    return torch.tensor(sphere.vertices, dtype=torch.float32), torch.tensor(sphere.faces, dtype=torch.int64)


def views() -> Cameras:
    return turntable_cameras(2, 20.0, 20.0, 32)


def assert_is_ball(opened: ViewableResult, radius: float) -> None:
    """Volume, place and outward faces of the mesh; silhouette and normals of the pictures."""
    vertices, faces = opened.mesh()
    torch.testing.assert_close(vertices.norm(dim=-1), torch.full((len(vertices),), radius), atol=2e-3, rtol=0)
    solid = trimesh.Trimesh(vertices.numpy(), faces.numpy())
    assert solid.is_watertight
    assert solid.volume == pytest.approx(4 / 3 * torch.pi * radius**3, rel=0.02)
    view = opened.render(views())
    # A ball seen from distance d covers the tangent cone: tan of its half angle over that of the view.
    distance = 0.670 / torch.tan(torch.deg2rad(torch.tensor(10.0)))
    share = radius / (distance**2 - radius**2) ** 0.5 / torch.tan(torch.deg2rad(torch.tensor(10.0)))
    assert float(view.alpha.mean()) == pytest.approx(float(torch.pi / 4 * share**2), rel=0.03)
    assert view.rgb.shape == (2, 32, 32, 3)
    torch.testing.assert_close(view.normals_camera[:, 15:17, 15:17, 2], torch.ones(2, 2, 2), atol=0.03, rtol=0)


def test_a_mesh_artifact_is_its_mesh(files: StoredFiles) -> None:
    folder, (vertices, faces) = folder_for(files, "dmtet"), ball(0.4)
    colors = ColorField(SIZES, 8, torch.Generator().manual_seed(0))
    save_file({"vertices": vertices, "faces": faces}, folder / "mesh.safetensors")
    save_state(colors, folder / "colors.safetensors")
    artifact = MeshArtifact(
        **COMMON,
        mesh=named("mesh.safetensors"),
        color_field=named("colors.safetensors"),
        color_config=colors.field_config,
        n_vertices=len(vertices),
        n_faces=len(faces),
    )
    assert_is_ball(open_artifact(artifact, Config().dmtet, files), 0.4)


def test_an_asset_is_its_file(files: StoredFiles) -> None:
    folder, (vertices, faces) = folder_for(files, "export"), ball(0.5)
    red = torch.tensor([1.0, 0.0, 0.0]).expand(4, 4, 3).contiguous()
    textured = TexturedMesh(
        vertices, vertices / 0.5, torch.zeros(len(vertices), 2), faces, (red,), torch.zeros(len(faces), dtype=torch.int64)
    )
    write_glb(folder / "asset.glb", plain_asset(textured, "ball", {}), None)
    artifact = AssetArtifact(
        **COMMON, glb=named("asset.glb"), textures={}, turntable=named("none.webp"), n_vertices=1, n_faces=1, glb_bytes=1
    )
    opened = open_artifact(artifact, Config().export, files)
    assert_is_ball(opened, 0.5)
    torch.testing.assert_close(opened.render(views()).rgb[0, 16, 16], red[0, 0])


def test_a_fresh_sdf_field_is_its_sphere(files: StoredFiles) -> None:
    folder = folder_for(files, "neus")
    field = SdfField(SIZES, 8, 0.45, 600.0, torch.Generator().manual_seed(0))
    save_state(field, folder / "field.safetensors")
    artifact = SdfArtifact(
        **COMMON, field=named("field.safetensors"), field_config=field.field_config, steps=1, switch_reason="step cap 1"
    )
    config = NeusConfig(occupancy_resolution=24, samples_per_ray=96)
    assert_is_ball(open_artifact(artifact, config, files), 0.45)


def test_a_surface_that_reaches_the_box_is_closed_there() -> None:
    points = lattice_points(12, SCENE_HALF_SIZE, "cpu")
    vertices, faces = surface_of_lattice((points[:, 2] - 0.1).view(12, 12, 12))
    solid = trimesh.Trimesh(vertices.numpy(), faces.numpy())
    assert solid.is_watertight
    # Everything below z = 0.1, and up to half a lattice step of the layer outside.
    assert (2 * SCENE_HALF_SIZE) ** 2 * (SCENE_HALF_SIZE + 0.1) <= solid.volume <= (2 * SCENE_HALF_SIZE + 0.1) ** 3


def test_without_a_surface_it_says_so() -> None:
    with pytest.raises(ValueError, match="no surface"):
        surface_of_lattice(torch.ones(4, 4, 4))


def test_a_reference_picture_has_no_shape(files: StoredFiles) -> None:
    picture = named("image.png")
    artifact = ReferenceArtifact(
        **COMMON,
        image=picture,
        image_rgba=picture,
        mask=picture,
        normals=picture,
        candidates=None,
        prompt="a ball",
        elevation_deg=10.0,
        is_user_image=True,
    )
    with pytest.raises(TypeError, match="reference"):
        open_artifact(artifact, Config().reference, files)


def test_a_fresh_density_field_is_its_blob(files: StoredFiles) -> None:
    folder = folder_for(files, "nerf")
    nerf = NerfConfig(blob_scale=12.0, blob_offset=8.0, occupancy_resolution=16, samples_per_ray=64, density_scale=60.0)
    field = DensityField(SIZES, 8, 60.0, nerf.blob_scale, nerf.blob_std, nerf.blob_offset, torch.Generator().manual_seed(0))
    save_state(field, folder / "field.safetensors")
    occupancy = OccupancyGrid(16, SCENE_HALF_SIZE, "cpu")
    save_file(dict(occupancy.state_dict()), folder / "occupancy.safetensors")
    artifact = NerfArtifact(
        **COMMON,
        field=named("field.safetensors"),
        field_config=field.field_config,
        occupancy=named("occupancy.safetensors"),
        steps=1,
        switch_reason="step cap 1",
    )
    opened = open_artifact(artifact, nerf, files)
    vertices, faces = opened.mesh()
    radii = vertices.norm(dim=-1)
    # The density depends on the radius alone, the network's small start aside; its level set is a sphere inside the blob.
    assert 0.1 < float(radii.mean()) < 0.5
    assert float(radii.std()) < 0.01
    solid = trimesh.Trimesh(vertices.numpy(), faces.numpy())
    assert solid.is_watertight
    assert solid.volume == pytest.approx(4 / 3 * torch.pi * float(radii.mean()) ** 3, rel=0.03)
    view = opened.render(views())
    assert float(view.alpha[:, 15:17, 15:17].min()) > 0.9
    # softplus(-blob_offset) is not quite empty.
    assert float(view.alpha[:, 0].max()) < 0.3
    torch.testing.assert_close(view.normals_camera[:, 15:17, 15:17, 2], torch.ones(2, 2, 2), atol=0.1, rtol=0)
