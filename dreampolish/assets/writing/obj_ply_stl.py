"""Formats of older programs: OBJ with MTL and PNG, PLY with vertex colours, STL.

OBJ and PLY: +Y up, +Z front, metres, as in glTF. STL: z up and front +x, as printers' programs take it; it has no unit, the numbers
are the asset's metres.
"""

from pathlib import Path

import torch
import trimesh
from PIL import Image
from torch import Tensor
from trimesh.exchange.ply import export_ply
from trimesh.exchange.stl import export_stl

from dreampolish.assets.asset import GLTF_FROM_WORLD, Asset, checked, pixels_of


def write_obj(path: Path, asset: Asset) -> list[Path]:
    """OBJ, and beside it <name>.mtl and its maps as PNG; all paths that were written.

    Base colour, roughness, metallic and normal map (`norm`, MTL's PBR extension) per material. Raises ValueError as `checked` does.
    """
    mesh = asset.mesh
    checked(mesh)
    stem = path.stem
    library, maps = _material_library(path, asset)
    lines = [f"# {asset.name}", f"mtllib {stem}.mtl", f"o {asset.name}"]
    vertices, normals = mesh.vertices[:, GLTF_FROM_WORLD], mesh.normals[:, GLTF_FROM_WORLD]
    # OBJ's v grows upwards.
    uv = torch.stack([mesh.uv[:, 0], 1 - mesh.uv[:, 1]], dim=-1)
    lines += _rows("v", vertices) + _rows("vt", uv) + _rows("vn", normals)
    for number in range(len(mesh.textures)):
        lines.append(f"usemtl material_{number}")
        corners = (mesh.faces[mesh.face_texture == number] + 1).tolist()
        lines += [f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}" for a, b, c in corners]
    path.write_text("\n".join(lines) + "\n")
    return [path, library, *maps]


def _rows(keyword: str, values: Tensor) -> list[str]:
    return [keyword + "".join(f" {number:.7g}" for number in row) for row in values.detach().cpu().tolist()]


def _material_library(path: Path, asset: Asset) -> tuple[Path, list[Path]]:
    """The MTL and the pictures it names."""
    lines, maps = [], []
    if asset.normal_map is not None:
        maps.append(_picture(path.with_name(f"{path.stem}_normal.png"), asset.normal_map))
    for number, texture in enumerate(asset.mesh.textures):
        picture = _picture(path.with_name(f"{path.stem}_base_color{number or ''}.png"), texture)
        lines += [f"newmtl material_{number}", "Kd 1 1 1", "Ks 0 0 0", "illum 1", f"map_Kd {picture.name}"]
        lines += [f"Pr {asset.roughness:g}", f"Pm {asset.metallic:g}"]
        lines += [f"norm {maps[0].name}"] if asset.normal_map is not None else []
        maps.append(picture)
    library = path.with_suffix(".mtl")
    library.write_text("\n".join(lines) + "\n")
    return library, maps


def _picture(path: Path, texture: Tensor) -> Path:
    Image.fromarray(pixels_of(texture)).save(path, "PNG", optimize=True)
    return path


def write_ply(path: Path, asset: Asset) -> list[Path]:
    """Binary little-endian PLY: places, normals and opaque sRGB colours at the vertices of the mesh without texture seams."""
    checked(asset.mesh)
    solid = asset.seamless()
    mesh = trimesh.Trimesh(
        vertices=solid.vertices[:, GLTF_FROM_WORLD].cpu().numpy(),
        faces=solid.faces.cpu().numpy(),
        vertex_normals=solid.normals[:, GLTF_FROM_WORLD].cpu().numpy(),
        vertex_colors=pixels_of(solid.colors[None])[0],
        process=False,
    )
    path.write_bytes(export_ply(mesh, vertex_normal=True))
    return [path]


def write_stl(path: Path, asset: Asset) -> list[Path]:
    """Binary STL: shape alone. Its header never begins with `solid`, the mark of the text form, whatever the asset is called."""
    checked(asset.mesh)
    mesh = trimesh.Trimesh(asset.mesh.vertices.cpu().numpy(), asset.mesh.faces.cpu().numpy(), process=False)
    header = f"binary STL, z up, metres: {asset.name}".encode()[:80].ljust(80, b" ")
    path.write_bytes(header + export_stl(mesh)[80:])
    return [path]
