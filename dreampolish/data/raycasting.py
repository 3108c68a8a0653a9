"""Geometry buffers of a painted mesh by embree: what a camera sees, without light.

Only data preparation uses this module; nothing here is differentiable. Frames and axes are those of docs/conventions.md.
"""

from dataclasses import dataclass

import numpy as np
from embreex import rtcore_scene
from embreex.mesh_construction import TriangleMesh

from dreampolish.data.library import GLASS_GREY, PaintedMesh
from dreampolish.scene.cameras import Cameras, distance_from_fov, rays_from_cameras

MAX_LAYERS = 6
"""Cut-out surfaces (alpha 0 in a texture) that a ray may pass before it counts as missed."""


@dataclass(frozen=True)
class Buffers:
    """One view, channels first. albedo (3, S, S), coverage (S, S), paint (S, S): uint8, 255 = 1; normals (3, S, S): int8,
    127 = 1, camera frame; relative_depth (S, S): float16, depth along the axis minus the camera's distance, 0 on the background."""

    albedo: np.ndarray
    coverage: np.ndarray
    paint: np.ndarray
    normals: np.ndarray
    relative_depth: np.ndarray


@dataclass(frozen=True)
class Hits:
    """R rays: hit (R,) bool; rgb (R, 3) in [0, 1]; normals (R, 3) world, unit, towards the viewer; paints (R,); range (R,)."""

    hit: np.ndarray
    rgb: np.ndarray
    normals: np.ndarray
    paints: np.ndarray
    distance: np.ndarray


class RayCaster:
    """A painted mesh with its ray-casting tree."""

    def __init__(self, mesh: PaintedMesh) -> None:
        self._mesh = mesh
        self._scene = rtcore_scene.EmbreeScene()
        self._triangles = np.ascontiguousarray(mesh.vertices[mesh.faces], dtype=np.float32)
        TriangleMesh(self._scene, self._triangles)

    def cast(self, origins: np.ndarray, directions: np.ndarray) -> Hits:
        """The first opaque surface of each ray; origins and unit directions (R, 3), float32, world frame."""
        n = len(origins)
        hits = Hits(
            hit=np.zeros(n, bool), rgb=np.ones((n, 3)), normals=np.zeros((n, 3)), paints=np.full(n, -1), distance=np.zeros(n)
        )
        live, start = np.arange(n), np.zeros(n, dtype=np.float32)
        for _ in range(MAX_LAYERS):
            from_here = origins[live] + start[live, None] * directions[live]
            found = self._scene.run(np.ascontiguousarray(from_here), np.ascontiguousarray(directions[live]), output=True)
            faces = found["primID"]
            struck = faces >= 0
            live, faces = live[struck], faces[struck]
            if len(live) == 0:
                break
            start[live] += found["tfar"][struck]
            weights = np.stack([1 - found["u"] - found["v"], found["u"], found["v"]], axis=1)[struck]
            rgb, opaque = self._surface_colors(faces, weights)
            seen = live[opaque]
            hits.hit[seen], hits.rgb[seen], hits.paints[seen] = True, rgb[opaque], self._mesh.face_paints[faces[opaque]]
            hits.normals[seen] = self._facing_normals(faces[opaque], weights[opaque], directions[seen])
            hits.distance[seen] = start[seen]
            live = live[~opaque]
            start[live] += 1e-4
        return hits

    def _surface_colors(self, faces: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colour (K, 3) of points on faces, glass mixed with grey, and whether the texture is opaque there (K,)."""
        mesh, paints = self._mesh, self._mesh.face_paints[faces]
        rgb, opaque = mesh.colors[paints].astype(np.float64), np.ones(len(faces), dtype=bool)
        uvs = (mesh.corner_uvs[faces] * weights[..., None]).sum(axis=1)
        for paint in np.unique(paints):
            texture = mesh.textures[paint]
            if texture is not None:
                here = paints == paint
                texels = _wrapped_texels(texture, uvs[here])
                rgb[here], opaque[here] = texels[:, :3], texels[:, 3] >= 0.5
        opacity = mesh.opacities[paints][:, None]
        return rgb * opacity + GLASS_GREY * (1 - opacity), opaque

    def _facing_normals(self, faces: np.ndarray, weights: np.ndarray, directions: np.ndarray) -> np.ndarray:
        """Shading normals (K, 3), on the side of the face that the ray came from."""
        triangles = self._triangles[faces].astype(np.float64)
        geometric = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        geometric *= -np.sign((geometric * directions).sum(axis=1, keepdims=True))
        shading = (self._mesh.corner_normals[faces] * weights[..., None]).sum(axis=1)
        side = np.sign((shading * geometric).sum(axis=1, keepdims=True))
        shading = np.where(side == 0, geometric, shading * side)
        return shading / np.maximum(np.linalg.norm(shading, axis=1, keepdims=True), 1e-12)

    def main_paint(self, cameras: Cameras) -> int:
        """The paint with the largest visible area over the given views."""
        origins, directions = rays_from_cameras(cameras)
        hits = self.cast(origins.reshape(-1, 3).numpy(), directions.reshape(-1, 3).numpy())
        return int(np.bincount(hits.paints[hits.hit], minlength=len(self._mesh.colors)).argmax())

    def render(self, camera: Cameras, main_paint: int, supersampling: int) -> Buffers:
        """One view (a batch of one camera) with supersampling^2 rays a pixel."""
        size, fine = camera.size, camera.at_size(camera.size * supersampling)
        origins, directions = (rays.reshape(-1, 3).numpy() for rays in rays_from_cameras(fine))
        hits = self.cast(origins, directions)
        rotation = camera.world_from_camera[0, :3, :3].numpy().astype(np.float64)
        depth = hits.distance * -(directions @ rotation[:, 2]) - float(distance_from_fov(camera.fov_deg)[0])

        def pooled(values: np.ndarray) -> np.ndarray:
            shape = (size, supersampling, size, supersampling, -1)
            return (values * hits.hit[:, None]).reshape(shape).sum(axis=(1, 3)).transpose(2, 0, 1)

        covered = pooled(np.ones((len(origins), 1)))
        count = np.maximum(covered, 1)
        albedo = np.where(covered > 0, pooled(hits.rgb) / count, 1.0)
        normals = pooled(hits.normals @ rotation)
        normals = normals / np.maximum(np.linalg.norm(normals, axis=0, keepdims=True), 1e-6)
        paint = pooled((hits.paints == main_paint)[:, None].astype(np.float64))[0] / supersampling**2
        return Buffers(
            albedo=np.round(albedo * 255).astype(np.uint8),
            coverage=np.round(covered[0] / supersampling**2 * 255).astype(np.uint8),
            paint=np.round(paint * 255).astype(np.uint8),
            normals=np.round(normals * 127).astype(np.int8),
            relative_depth=(pooled(depth[:, None]) / count)[0].astype(np.float16),
        )


def _wrapped_texels(texture: np.ndarray, uvs: np.ndarray) -> np.ndarray:
    """Bilinear RGBA in [0, 1] at uv coordinates (K, 2) that repeat; v = 0 is the picture's lower edge."""
    height, width = texture.shape[:2]
    x, y = uvs[:, 0] * width - 0.5, (1 - uvs[:, 1]) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    columns, rows = (left % width, (left + 1) % width), (top % height, (top + 1) % height)
    upper = texture[rows[0], columns[0]] * (1 - fx) + texture[rows[0], columns[1]] * fx
    lower = texture[rows[1], columns[0]] * (1 - fx) + texture[rows[1], columns[1]] * fx
    return (upper * (1 - fy) + lower * fy) / 255
