"""Geometry buffers of many small meshes at once by a z-buffer: no light, no gradient, any device.

Notation: W views; N samples of a side (pixels times supersampling); T faces, V vertices of the padded meshes. A face of three equal
vertices is padding. Frames and pixels are those of docs/conventions.md; the field of view is that of the view priors, 20 degrees.

The z-buffer's keys hold depth (KEY_DEPTH_BITS) over the face's number (KEY_FACE_BITS), so that one integer minimum decides a sample.
Buffers have the channels of CHANNELS as uint8: colours and shares 255 = 1, normals (camera frame, towards the viewer) 128 + 127 n,
grain 200 times the factor that wood puts on a colour.
"""

import math
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from dreampolish.scene.cameras import FRAMING_HALF_HEIGHT

CHANNELS = ("red", "green", "blue", "normal_x", "normal_y", "normal_z", "coverage", "paint", "grain")
FOV_DEG = 20.0
DISTANCE = FRAMING_HALF_HEIGHT / math.tan(math.radians(FOV_DEG) / 2)
KEY_DEPTH_BITS, KEY_FACE_BITS = 18, 13
NEAREST, FARTHEST = DISTANCE - 0.75, DISTANCE + 0.75
"""Bounds of the depths that keys can hold."""
EMPTY = 2**31 - 1
MAX_FACES = 2**KEY_FACE_BITS - 1
GRAIN_SCALE = 200.0


@dataclass(frozen=True)
class Scene:
    """W views of padded meshes, vertices shared between the views of a set.

    vertices, normals: (S, V, 3), world. faces: (S, T, 3). colors: (S, T, 3, 4) uint8, red, green, blue and main paint of each corner.
    wood: (S, 4), the axis and the period of the grain that wood would have. azimuth_deg, elevation_deg: (S, K); W = S K.
    """

    vertices: Float[Tensor, "s v 3"]
    normals: Float[Tensor, "s v 3"]
    faces: Integer[Tensor, "s t 3"]
    colors: Integer[Tensor, "s t 3 4"]
    wood: Float[Tensor, "s 4"]
    azimuth_deg: Float[Tensor, "s k"]
    elevation_deg: Float[Tensor, "s k"]


def camera_rotations(azimuth_deg: Tensor, elevation_deg: Tensor) -> Float[Tensor, "*b 3 3"]:
    """World-from-camera rotations (..., 3, 3) of orbit cameras, as cameras.orbit_cameras makes them."""
    a, e = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    backward = torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], dim=-1)
    right = torch.stack([-a.sin(), a.cos(), torch.zeros_like(a)], dim=-1)
    return torch.stack([right, torch.linalg.cross(backward, right), backward], dim=-1)


def projected(scene: Scene, samples: int) -> tuple[Float[Tensor, "w v 3"], Float[Tensor, "w v 3"]]:
    """Column, row (in samples) and depth of every vertex, and its normal in the camera's frame; W rows, set by set."""
    rotation = camera_rotations(scene.azimuth_deg, scene.elevation_deg)
    seen = torch.einsum("skij,svi->skvj", rotation, scene.vertices)
    depth = DISTANCE - seen[..., 2]
    scale = samples / 2 / math.tan(math.radians(FOV_DEG) / 2)
    places = torch.stack(
        [samples / 2 + seen[..., 0] / depth * scale, samples / 2 - seen[..., 1] / depth * scale, depth], dim=-1
    )
    normals = torch.einsum("skij,svi->skvj", rotation, scene.normals)
    return places.flatten(0, 1), normals.flatten(0, 1)


def depth_keys(places: Float[Tensor, "w v 3"], faces: Integer[Tensor, "s t 3"], samples: int) -> Integer[Tensor, "w n"]:
    """The nearest face of every sample as keys (W, N^2), EMPTY where there is none. Plain torch, one pass over all boxes."""
    views = len(places)
    keys = torch.full((views, samples * samples), EMPTY, dtype=torch.int32, device=places.device)
    per_set = views // len(faces)
    for view in range(views):
        _fill_view(keys[view], places[view][faces[view // per_set]], samples)
    return keys


def _fill_view(keys: Tensor, corners: Float[Tensor, "t 3 3"], samples: int) -> None:
    """Minimum into the keys (N^2,) of one view over all samples in the boxes of its faces."""
    x, y, z = corners.unbind(-1)
    left, top = ((each.amin(1) - 0.5).ceil().long().clamp(0, samples) for each in (x, y))
    right, bottom = ((each.amax(1) - 0.5).floor().long().clamp(-1, samples - 1) for each in (x, y))
    wide, high = (right - left + 1).clamp(min=0), (bottom - top + 1).clamp(min=0)
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])
    count = torch.where(area.abs() > 1e-9, wide * high, 0)
    face = torch.repeat_interleave(torch.arange(len(corners), device=keys.device), count)
    inside_box = torch.arange(len(face), device=keys.device) - (count.cumsum(0) - count)[face]
    column = left[face] + inside_box % wide[face]
    row = top[face] + inside_box // wide[face]
    weights, inside = _barycentric(corners[face], area[face], column + 0.5, row + 0.5)
    depth = 1 / (weights / z[face]).sum(1)
    found = (_depth_code(depth) << KEY_FACE_BITS) | face
    place = (row * samples + column)[inside]
    keys.scatter_reduce_(0, place, found[inside].int(), "amin")


def _barycentric(corners: Tensor, area: Tensor, column: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Screen-space weights (n, 3) of samples in faces, and whether each lies inside its face."""
    x, y, _ = corners.unbind(-1)
    cut = [(x[:, j] - column) * (y[:, k] - row) - (x[:, k] - column) * (y[:, j] - row) for j, k in ((1, 2), (2, 0), (0, 1))]
    weights = torch.stack(cut, dim=1) / area[:, None]
    return weights, (weights >= 0).all(dim=1)


def _depth_code(depth: Tensor) -> Tensor:
    """Depth as an integer of KEY_DEPTH_BITS; smaller is nearer."""
    share = ((depth - NEAREST) / (FARTHEST - NEAREST)).clamp(0, 1)
    return (share * (2**KEY_DEPTH_BITS - 2)).long()


def resolved(
    keys: Integer[Tensor, "w n"],
    places: Float[Tensor, "w v 3"],
    normals: Float[Tensor, "w v 3"],
    scene: Scene,
    samples: int,
    supersampling: int,
) -> Integer[Tensor, "w c p p"]:
    """Buffers (W, C, P, P) uint8 of the samples' faces, averaged over each pixel's samples."""
    views, device = len(keys), keys.device
    view = torch.arange(views, device=device)[:, None]
    of_set = view // (views // len(scene.faces))
    hit = keys != EMPTY
    face = torch.where(hit, keys & MAX_FACES, 0).long()
    corners = scene.faces[of_set, face].long()
    x, y, z = (places[..., i][view[..., None], corners] for i in range(3))
    grid = torch.arange(samples * samples, device=device)
    column, row = (grid % samples + 0.5), (grid // samples + 0.5)
    cut = [
        (x[..., j] - column) * (y[..., k] - row) - (x[..., k] - column) * (y[..., j] - row) for j, k in ((1, 2), (2, 0), (0, 1))
    ]
    weights = torch.stack(cut, dim=-1) / z
    weights = torch.nan_to_num(weights / weights.sum(-1, keepdim=True), 1 / 3).clamp(-1, 2)
    normal = (normals[view[..., None], corners] * weights[..., None]).sum(-2)
    across = (column / samples * 2 - 1) * math.tan(math.radians(FOV_DEG) / 2)
    upward = (1 - row / samples * 2) * math.tan(math.radians(FOV_DEG) / 2)
    facing = normal[..., 2] - normal[..., 0] * across - normal[..., 1] * upward
    normal = normal * torch.where(facing < 0, -1.0, 1.0)[..., None]
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    painted = (scene.colors[of_set, face].float() * weights[..., None]).sum(-2).clamp(0, 255)
    grain = grain_factor((scene.vertices[of_set[..., None], corners] * weights[..., None]).sum(-2), scene.wood[of_set])
    values = torch.cat([painted[..., :3] / 255, normal, painted[..., 3:] / 255, grain[..., None]], dim=-1) * hit[..., None]
    return _pooled(values, hit, samples, supersampling)


def grain_factor(positions: Float[Tensor, "*b 3"], wood: Float[Tensor, "*w 4"]) -> Float[Tensor, "*b"]:
    """The stripes of data.shading.wood_grain at surface points (..., 3)."""
    along, period = (positions * wood[..., :3]).sum(-1), wood[..., 3]
    bend = 0.03 * torch.sin(9 * positions.sum(-1))
    turn = 2 * torch.pi / period
    return 0.98 + 0.07 * torch.sin(turn * (along + bend)) + 0.04 * torch.sin(turn * (along * 2.7 + bend))


def _pooled(values: Float[Tensor, "w n 8"], hit: Tensor, samples: int, supersampling: int) -> Integer[Tensor, "w c p p"]:
    """Means over each pixel's covered samples as uint8 buffers; colours of empty pixels are white."""
    pixels = samples // supersampling

    def sums(each: Tensor) -> Tensor:
        return each.view(len(each), pixels, supersampling, pixels, supersampling, -1).sum(dim=(2, 4)).permute(0, 3, 1, 2)

    covered, total = sums(hit.float()[..., None]), sums(values)
    mean = total / covered.clamp(min=1)
    normal = mean[:, 3:6] / mean[:, 3:6].norm(dim=1, keepdim=True).clamp(min=1e-6)
    share = supersampling**2
    return (
        torch.cat(
            [
                torch.where(covered > 0, mean[:, :3], 1.0).clamp(0, 1) * 255,
                128 + 127 * normal,
                covered / share * 255,
                total[:, 6:7] / share * 255,
                (mean[:, 7:] * GRAIN_SCALE).clamp(0, 255),
            ],
            dim=1,
        )
        .round()
        .to(torch.uint8)
    )


def rendered(scene: Scene, pixels: int, supersampling: int) -> Integer[Tensor, "w c p p"]:
    """Buffers of every view of a scene, in plain torch, set by set."""
    samples, found = pixels * supersampling, []
    for row in range(len(scene.faces)):
        one = Scene(*(getattr(scene, each.name)[row : row + 1] for each in fields(scene)))
        places, normals = projected(one, samples)
        keys = depth_keys(places, one.faces, samples)
        found.append(resolved(keys, places=places, normals=normals, scene=one, samples=samples, supersampling=supersampling))
    return torch.cat(found)


def vertex_normals(vertices: Float[Tensor, "s v 3"], faces: Integer[Tensor, "s t 3"]) -> Float[Tensor, "s v 3"]:
    """Unit normals, area-weighted over each vertex's faces; vertices are split at creases, so edges stay hard."""
    index = faces.long().flatten(1)[..., None].expand(-1, -1, 3)
    corners = vertices.gather(1, index).unflatten(1, (-1, 3))
    doubled = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    sums = torch.zeros_like(vertices).scatter_add_(1, index, doubled.repeat_interleave(3, dim=1))
    return sums / sums.norm(dim=-1, keepdim=True).clamp(min=1e-12)
