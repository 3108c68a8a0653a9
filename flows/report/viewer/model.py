"""A GLB inside a page: unchanged where it fits, else a copy with smaller maps."""

import io

from PIL import Image

LIGHTER_SIDES = (2048, 1024, 512, 256)
"""Pixels of the maps' longest side in lighter copies, tried in order."""


def fitting_glb(glb: bytes, limit: int) -> bytes | None:
    """The GLB if it has at most `limit` bytes, else the largest lighter copy that has; None if there is none."""
    if len(glb) <= limit:
        return glb
    try:
        copies = (lighter_glb(glb, side) for side in LIGHTER_SIDES)
        return next((copy for copy in copies if len(copy) <= limit), None)
    except Exception:
        # trimesh raises of every kind for what is no file of ours: a page without a model is better than none.
        return None


def lighter_glb(glb: bytes, side: int) -> bytes:
    """The same GLB with its maps as JPEG of at most `side` pixels."""
    import trimesh
    from trimesh.exchange.gltf import export_glb

    scene = trimesh.load_scene(io.BytesIO(glb), file_type="glb", process=False)
    for mesh in scene.geometry.values():
        for name in ("baseColorTexture", "normalTexture"):
            texture = getattr(mesh.visual.material, name)
            if texture is not None:
                picture = texture.convert("RGB")
                picture.thumbnail((side, side), Image.Resampling.LANCZOS)
                picture.format = "JPEG"
                setattr(mesh.visual.material, name, picture)
    exported: bytes = export_glb(scene, include_normals=True)
    return exported
