"""The benchmark's objects: held-out CC0 models as small GLBs with a reference picture and their attribution.

`python -m dreampolish.data.benchmark_objects LIBRARIES benchmark/objects` writes <slug>/mesh.glb, reference.png and attribution.json
there. Triangles are decimated, and colours as seen from outside, with a fixed soft light in them, are baked into one texture; the
reference is the unlit picture of exactly that mesh, so that a method that copies it can be right from every side.
"""

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import fast_simplification
import numpy as np
import torch
import trimesh
from jaxtyping import Float
from scipy.spatial import cKDTree
from torch import Tensor

from dreampolish.assets.asset import plain_asset
from dreampolish.assets.bake import bake, texels_of
from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.assets.unwrap import unwrap
from dreampolish.assets.writing.glb import write_glb
from dreampolish.data.library import CatalogEntry, PaintedMesh, load_model, read_catalog
from dreampolish.data.raycasting import RayCaster
from dreampolish.scene.cameras import orbit_cameras, random_cameras, rays_from_cameras
from dreampolish.scene.lighting import Lighting
from dreampolish.scene.pictures import write_picture
from dreampolish.scene.shading import shade

OBJECTS = {
    "osakaChair": ("wooden-chair", "a wooden chair"),
    "oakTable": ("oak-table", "a round wooden table"),
    "winchesterSofa": ("leather-sofa", "a red leather sofa"),
    "winchesterArmchair": ("leather-armchair", "a red leather armchair"),
    "desklamp": ("desk-lamp", "a golden desk lamp"),
    "forkLift": ("forklift", "a yellow forklift"),
    "teddyBear": ("teddy-bear", "a brown teddy bear"),
    "caballito": ("rocking-horse", "an orange rocking horse"),
    "barrel": ("barrel", "a wooden barrel"),
    "refrigerator": ("refrigerator", "a grey refrigerator"),
}
"""Model -> (folder, prompt)."""

FRONT_ELEVATION_DEG = 10.0
"""Elevation of the reference picture; its azimuth is 0 and its FOV 20 degrees."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectBudget:
    """faces: triangles to decimate to; texture_size: pixels of a side; reference_size: pixels; views and view_size: pictures
    from which the colours are taken; jpeg_quality: of the texture."""

    faces: int
    texture_size: int
    reference_size: int
    views: int
    view_size: int
    jpeg_quality: int


def baked_light() -> Lighting:
    """The light in the textures, world frame: ambient 0.66, sky 0.14, a direction in front to the left and a weak one behind."""
    toward = torch.nn.functional.normalize(torch.tensor([[[0.7, 0.45, 0.75], [-0.6, -0.5, 0.5]]]), dim=-1)
    return Lighting(torch.tensor([[0.0, 0.0, 1.0]]), toward, torch.tensor([[0.66, 0.14, 0.26, 0.12]]))


def seen_points(mesh: PaintedMesh, budget: ObjectBudget, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 3) of the surface that are seen from outside and their lit colours (P, 3)."""
    generator = torch.Generator().manual_seed(seed)
    cameras = random_cameras(
        n_views=budget.views,
        azimuth_range_deg=(0.0, 360.0),
        elevation_range_deg=(-60.0, 75.0),
        fov_range_deg=(20.0, 20.0),
        size=budget.view_size,
        generator=generator,
    )
    caster, light = RayCaster(mesh), baked_light()
    points, colors = [], []
    for index in range(budget.views):
        origins, directions = (rays.reshape(-1, 3).numpy() for rays in rays_from_cameras(cameras[[index]]))
        hits = caster.cast(origins, directions)
        normals = torch.from_numpy(hits.normals[hits.hit]).float().T[None, :, :, None]
        points.append((origins + hits.distance[:, None] * directions)[hits.hit])
        colors.append(np.minimum(hits.rgb[hits.hit], 0.94) * shade(normals, light)[0, 0].numpy())
    return np.concatenate(points), np.concatenate(colors).clip(0, 1)


def decimated(mesh: PaintedMesh, n_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of the surface with vertices merged by position and at most about n_faces triangles."""
    merged = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    merged.merge_vertices(merge_tex=True, merge_norm=True)
    vertices, faces = np.asarray(merged.vertices, np.float32), np.asarray(merged.faces, np.int64)
    if len(faces) > n_faces:
        vertices, faces = fast_simplification.simplify(vertices, faces, 1 - n_faces / len(faces))
    thin = trimesh.Trimesh(vertices, faces, process=False)
    thin.update_faces(thin.nondegenerate_faces())
    thin.remove_unreferenced_vertices()
    return np.asarray(thin.vertices, np.float32), np.asarray(thin.faces, np.int64)


def small_textured_mesh(mesh: PaintedMesh, budget: ObjectBudget, seed: int) -> TexturedMesh:
    """The decimated object with one baked texture."""
    points, colors = seen_points(mesh, budget, seed)
    tree, table = cKDTree(points), torch.from_numpy(colors).float()
    vertices, faces = decimated(mesh, budget.faces)
    cut = unwrap(torch.from_numpy(vertices), torch.from_numpy(faces), budget.texture_size, 4)

    def color_of(points_world: Float[Tensor, "n 3"], normals_world: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        _, nearest = tree.query(points_world.numpy(), k=3)
        return table[torch.from_numpy(nearest)].mean(dim=1)

    texture = bake(color_of, cut, texels_of(cut, budget.texture_size, 4))
    return TexturedMesh(
        vertices=cut.vertices,
        normals=cut.normals,
        uv=cut.uv,
        faces=cut.faces,
        textures=(texture,),
        face_texture=torch.zeros(len(cut.faces), dtype=torch.int64),
    )


def painted_from_textured(mesh: TexturedMesh) -> PaintedMesh:
    """The same object for the ray caster; uv of glTF run downwards, those of a PaintedMesh upwards."""
    uv = mesh.uv * torch.tensor([1.0, -1.0]) + torch.tensor([0.0, 1.0])
    texture = (mesh.textures[0].clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    opaque = np.full((*texture.shape[:2], 1), 255, np.uint8)
    return PaintedMesh(
        vertices=mesh.vertices.numpy(),
        faces=mesh.faces.numpy(),
        corner_normals=mesh.normals[mesh.faces].numpy(),
        corner_uvs=uv[mesh.faces].numpy(),
        face_paints=np.zeros(len(mesh.faces), np.int64),
        colors=np.ones((1, 3), np.float32),
        opacities=np.ones(1, np.float32),
        textures=(np.concatenate([texture, opaque], axis=2),),
    )


def reference_picture(mesh: TexturedMesh, size: int) -> Float[Tensor, "s s 4"]:
    """The unlit front view as RGBA, 2x2 supersampled."""
    camera = orbit_cameras(torch.zeros(1), torch.tensor([FRONT_ELEVATION_DEG]), torch.tensor([20.0]), size)
    found = RayCaster(painted_from_textured(mesh)).render(camera, main_paint=0, supersampling=2)
    rgba = np.concatenate([found.albedo, found.coverage[None]])
    return torch.from_numpy(rgba).permute(1, 2, 0).float() / 255


def write_object(entry: CatalogEntry, libraries: Path, output: Path, budget: ObjectBudget) -> None:
    """Write one object's folder."""
    slug, prompt = OBJECTS[entry.identifier.split("#")[1]]
    folder = output / slug
    folder.mkdir(parents=True, exist_ok=True)
    mesh = small_textured_mesh(load_model(entry, libraries, 1.34 / budget.view_size), budget, seed=0)
    attribution = {
        "prompt": prompt,
        "name": entry.name,
        "creator": entry.creator,
        "licence": entry.licence,
        "licence_url": "https://creativecommons.org/publicdomain/zero/1.0/",
        "source": f"Sweet Home 3D furniture library {entry.library} 1.8 (Debian package sweethome3d-furniture 1.8-1)",
        "identifier": entry.identifier,
        "changes": "scaled, decimated, colours baked into one texture with a fixed soft light",
        "reference": {"azimuth_deg": 0.0, "elevation_deg": FRONT_ELEVATION_DEG, "fov_deg": 20.0},
    }
    asset = plain_asset(mesh, slug, {"licence": entry.licence, "creator": entry.creator})
    write_glb(folder / "mesh.glb", asset, budget.jpeg_quality)
    write_picture(folder / "reference.png", reference_picture(mesh, budget.reference_size))
    (folder / "attribution.json").write_text(json.dumps(attribution, indent=1) + "\n")
    log.info("%s: %d faces, %d bytes", slug, len(mesh.faces), (folder / "mesh.glb").stat().st_size)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Write the benchmark's objects.")
    parser.add_argument("libraries", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    budget = ObjectBudget(faces=3500, texture_size=512, reference_size=512, views=24, view_size=256, jpeg_quality=88)
    for entry in read_catalog(options.libraries):
        library, _, model = entry.identifier.partition("#")
        if library == "Blend Swap CC-0" and model in OBJECTS:
            write_object(entry, options.libraries, options.output, budget)


if __name__ == "__main__":
    main()
