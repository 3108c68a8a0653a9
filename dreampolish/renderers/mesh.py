"""Pictures of a mesh: colours, coverage, normals, depth and points in one call, colours evaluated on covered pixels only."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dreampolish.fields.color import ColorField
from dreampolish.mesh.topology import face_adjacency, face_normals, vertex_normals
from dreampolish.renderers.antialias import antialias
from dreampolish.renderers.rasterizer import Fragments, interpolate_covered, rasterize
from dreampolish.scene.cameras import Cameras, normals_camera_from_world

ColorOf = Callable[[Float[Tensor, "n 3"], Float[Tensor, "n 3"]], Float[Tensor, "n 3"]]
"""Colours in [0, 1] of surface points, from the points and their unit normals, both in the world frame."""


@dataclass(frozen=True)
class MeshRender:
    """Pictures of B cameras. rgb: on white. alpha: coverage 0..1. normals, depth, points_world: 0 where nothing is seen.

    fragments are at the supersampled size; everything else is at the cameras' size.
    """

    rgb: Float[Tensor, "b h w 3"]
    alpha: Float[Tensor, "b h w"]
    normals_world: Float[Tensor, "b h w 3"]
    normals_camera: Float[Tensor, "b h w 3"]
    depth: Float[Tensor, "b h w"]
    points_world: Float[Tensor, "b h w 3"]
    fragments: Fragments


def render_mesh(
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
    cameras: Cameras,
    color_of: ColorOf,
    supersample: int,
    smooth: bool,
    cull_backfaces: bool,
    adjacency: Int[Tensor, "f 3"],
    painted_at: Float[Tensor, "v 3"] | None = None,
) -> MeshRender:
    """Rasterise, colour and antialias a mesh; differentiable in the vertices and in whatever `color_of` depends on.

    supersample: samples along a pixel's side. smooth: interpolated vertex normals instead of the faces' own.
    adjacency: `topology.face_adjacency(faces)`. painted_at: where `color_of` is asked for the vertices' colours, if the vertices
    have moved since they were painted. Without culling, faces seen from behind show their normal turned to the viewer.
    """
    fine = cameras.at_size(cameras.size * supersample)
    fragments = rasterize(vertices, faces, fine, cull_backfaces)
    normals = vertex_normals(vertices, faces) if smooth else None
    if painted_at is not None:
        color_of = _color_at(color_of, interpolate_covered(fragments, faces, painted_at))
    return shaded(
        fragments=fragments,
        vertices=vertices,
        faces=faces,
        normals_of_vertices=normals,
        cameras=fine,
        color_of=color_of,
        supersample=supersample,
        adjacency=adjacency,
    )


def _color_at(color_of: ColorOf, places: Float[Tensor, "n 3"]) -> ColorOf:
    """The colours of other places, whatever points are asked for."""
    return lambda points, normals: color_of(places, normals)


def shaded(
    fragments: Fragments,
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
    normals_of_vertices: Float[Tensor, "v 3"] | None,
    cameras: Cameras,
    color_of: ColorOf,
    supersample: int,
    adjacency: Int[Tensor, "f 3"],
) -> MeshRender:
    """`render_mesh` from fragments that are there already (embree's, or cached ones); `cameras` at the fragments' size.

    normals_of_vertices: to be interpolated, world frame; None shows the faces' own normals.
    """
    mask = fragments.mask
    covered = mask.reshape(-1).nonzero()[:, 0]
    points = interpolate_covered(fragments, faces, vertices)
    normals = _normals_covered(fragments, vertices, faces, normals_of_vertices)
    eye = cameras.world_from_camera[:, :3, 3].index_select(0, torch.div(covered, cameras.size**2, rounding_mode="floor"))
    away = ((eye - points) * _face_normals_covered(fragments, vertices, faces)).sum(-1, keepdim=True) < 0
    normals = torch.where(away, -normals, normals)
    colors = torch.cat([color_of(points, normals), torch.ones_like(points[:, :1])], dim=-1)
    white = torch.ones(mask.numel(), 4, dtype=colors.dtype, device=colors.device)
    white[:, 3] = 0
    picture = white.index_copy(0, covered, colors).reshape(*mask.shape, 4)
    picture = antialias(
        colors=picture, fragments=fragments, vertices=vertices, faces=faces, cameras=cameras, adjacency=adjacency
    )
    extras = torch.cat([normals, fragments.depth.reshape(-1, 1).index_select(0, covered), points], dim=-1)
    dense = extras.new_zeros(mask.numel(), 7).index_copy(0, covered, extras).reshape(*mask.shape, 7)
    picture, dense = _pooled(picture, supersample), _mean_of_covered(dense, mask, supersample)
    # The mean of unit normals is shorter than one; where nothing is seen it stays zero.
    normals_world = dense[..., :3] / (dense[..., :3].square().sum(-1, keepdim=True) + 1e-12).sqrt()
    return MeshRender(
        rgb=picture[..., :3],
        alpha=picture[..., 3],
        normals_world=normals_world,
        normals_camera=normals_camera_from_world(normals_world, cameras),
        depth=dense[..., 3],
        points_world=dense[..., 4:],
        fragments=fragments,
    )


def coverage(
    fragments: Fragments,
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
    cameras: Cameras,
    adjacency: Int[Tensor, "f 3"],
) -> Float[Tensor, "b h w"]:
    """Antialiased masks alone, 0..1, differentiable in the vertices."""
    mask = fragments.mask[..., None].to(vertices.dtype)
    return antialias(colors=mask, fragments=fragments, vertices=vertices, faces=faces, cameras=cameras, adjacency=adjacency)[
        ..., 0
    ]


def _face_normals_covered(fragments: Fragments, vertices: Tensor, faces: Tensor) -> Tensor:
    seen = fragments.face_index.reshape(-1)
    return face_normals(vertices, faces.index_select(0, seen[seen >= 0]))


def _normals_covered(fragments: Fragments, vertices: Tensor, faces: Tensor, normals: Tensor | None) -> Tensor:
    """Unit normals on covered pixels, outward."""
    if normals is None:
        return _face_normals_covered(fragments, vertices, faces)
    mixed = interpolate_covered(fragments, faces, normals)
    return mixed / (mixed.square().sum(-1, keepdim=True) + 1e-12).sqrt()


def _pooled(images: Tensor, factor: int) -> Tensor:
    """Means over squares of `factor` pixels; images (b, h, w, c)."""
    if factor == 1:
        return images
    batch, height, width, channels = images.shape
    return images.reshape(batch, height // factor, factor, width // factor, factor, channels).mean((2, 4))


def _mean_of_covered(images: Tensor, mask: Tensor, factor: int) -> Tensor:
    """As `_pooled`, over covered samples only, 0 where there is none."""
    if factor == 1:
        return images
    share = _pooled(mask[..., None].to(images.dtype), factor)
    return _pooled(images, factor) / share.clamp(min=1e-6)


@dataclass(frozen=True)
class Mesh:
    """Vertices, faces and the faces' neighbours across their edges. painted_at: where the vertices were painted, if they moved since.

    views_at_once: cameras whose pictures are rendered at once; what their gradient needs is computed again on the way back. None: all are
    rendered at once, and it is kept.
    """

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    adjacency: Int[Tensor, "f 3"]
    painted_at: Float[Tensor, "v 3"] | None = None
    views_at_once: int | None = None

    def moved(self, vertices: Float[Tensor, "v 3"]) -> "Mesh":
        """The same faces on other vertices."""
        return replace(self, vertices=vertices, painted_at=None)

    def carried(self, vertices: Float[Tensor, "v 3"]) -> "Mesh":
        """The same faces on other vertices, to which they carry their colours."""
        return replace(self, vertices=vertices, painted_at=self.vertices if self.painted_at is None else self.painted_at)

    def render(self, cameras: Cameras, color_of: ColorOf, supersample: int, smooth: bool) -> MeshRender:
        """Pictures; back faces count, so that an open mesh shows no holes that are not there."""

        def some(cameras: Cameras) -> MeshRender:
            return render_mesh(
                vertices=self.vertices,
                faces=self.faces,
                cameras=cameras,
                color_of=color_of,
                supersample=supersample,
                smooth=smooth,
                cull_backfaces=False,
                adjacency=self.adjacency,
                painted_at=self.painted_at,
            )

        n, at_once = len(cameras), self.views_at_once
        if at_once is None or not torch.is_grad_enabled():
            return some(cameras)
        parts = [cameras[first : first + at_once] for first in range(0, n, at_once)]
        return joined([checkpoint(some, part, use_reentrant=False) for part in parts])

    def silhouette(self, cameras: Cameras) -> Float[Tensor, "b h w"]:
        """The mask alone, as `render` gives it without supersampling."""
        fragments = rasterize(self.vertices, self.faces, cameras, cull_backfaces=False)
        return self._covered(fragments, cameras)

    def coverage(self, render: MeshRender, cameras: Cameras) -> Float[Tensor, "b h w"]:
        """The mask of a render of these faces where they are now, not supersampled, differentiable in the vertices alone."""
        return self._covered(render.fragments, cameras)

    def _covered(self, fragments: Fragments, cameras: Cameras) -> Float[Tensor, "b h w"]:
        return coverage(
            fragments=fragments, vertices=self.vertices, faces=self.faces, cameras=cameras, adjacency=self.adjacency
        )


def joined(renders: list[MeshRender]) -> MeshRender:
    """The pictures of several renders of one size, one after the other."""
    if len(renders) == 1:
        return renders[0]

    def whole(kind: type, parts: list[Any]) -> dict[str, Tensor]:
        names = [each.name for each in fields(kind) if each.name != "fragments"]
        return {name: torch.cat([getattr(part, name) for part in parts]) for name in names}

    fragments = Fragments(**whole(Fragments, [each.fragments for each in renders]))
    return MeshRender(**whole(MeshRender, renders), fragments=fragments)


def mesh_from_parts(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Mesh:
    """A mesh with its adjacency."""
    return Mesh(vertices, faces, face_adjacency(faces))


def color_of_field(field: ColorField) -> ColorOf:
    """A colour field as the renderer wants it: colours from points, the same from every side."""
    return lambda points, normals: field(points)


def fixed_color_of_field(field: ColorField) -> ColorOf:
    """The same colours without a gradient: what is learned from pictures of them is shape alone."""
    return lambda points, normals: field(points).detach()
