"""The z-buffer of raster.py as two Triton kernels: same keys, same buffers, on CUDA. Imported only where Triton is there."""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from dreampolish.training.multiview.raster import (
    CHANNELS,
    EMPTY,
    FARTHEST,
    FOV_DEG,
    GRAIN_SCALE,
    KEY_DEPTH_BITS,
    KEY_FACE_BITS,
    MAX_FACES,
    NEAREST,
    Scene,
    projected,
)

FACES_PER_PROGRAM, TILE, PIXELS_PER_PROGRAM = 4, 8, 128


@triton.jit
def _depth_kernel(
    places, faces, keys, n_vertices, n_faces, per_set, nearest, scale,
    samples: tl.constexpr, tile: tl.constexpr, per_program: tl.constexpr, face_bits: tl.constexpr,
):  # fmt: skip
    view = tl.program_id(1)
    face_rows = faces + (view // per_set).to(tl.int64) * n_faces * 3
    place_rows = places + view.to(tl.int64) * n_vertices * 3
    key_rows = keys + view.to(tl.int64) * samples * samples
    step = tl.arange(0, tile)
    for number in range(per_program):
        face = tl.program_id(0) * per_program + number
        known = face < n_faces
        a = tl.load(face_rows + face * 3, mask=known, other=0)
        b = tl.load(face_rows + face * 3 + 1, mask=known, other=0)
        c = tl.load(face_rows + face * 3 + 2, mask=known, other=0)
        xa, ya, za = tl.load(place_rows + a * 3), tl.load(place_rows + a * 3 + 1), tl.load(place_rows + a * 3 + 2)
        xb, yb, zb = tl.load(place_rows + b * 3), tl.load(place_rows + b * 3 + 1), tl.load(place_rows + b * 3 + 2)
        xc, yc, zc = tl.load(place_rows + c * 3), tl.load(place_rows + c * 3 + 1), tl.load(place_rows + c * 3 + 2)
        area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
        solid = tl.abs(area) > 1e-9
        inverse = 1.0 / tl.where(solid, area, 1.0)
        left = tl.maximum(tl.ceil(tl.minimum(xa, tl.minimum(xb, xc)) - 0.5).to(tl.int32), 0)
        right = tl.minimum(tl.floor(tl.maximum(xa, tl.maximum(xb, xc)) - 0.5).to(tl.int32), samples - 1)
        top = tl.maximum(tl.ceil(tl.minimum(ya, tl.minimum(yb, yc)) - 0.5).to(tl.int32), 0)
        bottom = tl.minimum(tl.floor(tl.maximum(ya, tl.maximum(yb, yc)) - 0.5).to(tl.int32), samples - 1)
        bottom = tl.where(solid, bottom, top - 1)
        for first_row in range(top, bottom + 1, tile):
            for first_column in range(left, right + 1, tile):
                rows = (first_row + step)[:, None]
                columns = (first_column + step)[None, :]
                y, x = rows + 0.5, columns + 0.5
                wa = ((xb - x) * (yc - y) - (xc - x) * (yb - y)) * inverse
                wb = ((xc - x) * (ya - y) - (xa - x) * (yc - y)) * inverse
                wc = ((xa - x) * (yb - y) - (xb - x) * (ya - y)) * inverse
                inside = (wa >= 0) & (wb >= 0) & (wc >= 0) & (rows <= bottom) & (columns <= right)
                depth = 1.0 / (wa / za + wb / zb + wc / zc)
                code = (tl.minimum(tl.maximum((depth - nearest) * scale, 0.0), scale_limit(face_bits))).to(tl.int32)
                tl.atomic_min(key_rows + rows * samples + columns, (code << face_bits) | face, mask=inside)


@triton.jit
def scale_limit(face_bits: tl.constexpr):
    """The largest depth code: 31 bits less the face's, less the empty key."""
    return ((1 << (31 - face_bits)) - 2) * 1.0


@triton.jit
def _resolve_kernel(
    keys, places, normals, vertices, faces, colors, wood, out, n_vertices, n_faces, per_set, tangent, empty,
    samples: tl.constexpr, supersampling: tl.constexpr, block: tl.constexpr, face_mask: tl.constexpr, grain_scale: tl.constexpr,
):  # fmt: skip
    view = tl.program_id(1).to(tl.int64)
    owner = view // per_set
    pixels: tl.constexpr = samples // supersampling
    pixel = tl.program_id(0) * block + tl.arange(0, block)
    row, column = pixel // pixels, pixel % pixels
    place_rows, normal_rows = places + view * n_vertices * 3, normals + view * n_vertices * 3
    vertex_rows, face_rows, color_rows = (
        vertices + owner * n_vertices * 3,
        faces + owner * n_faces * 3,
        colors + owner * n_faces * 12,
    )
    ax, ay, az = tl.load(wood + owner * 4), tl.load(wood + owner * 4 + 1), tl.load(wood + owner * 4 + 2)
    turn = 6.283185307179586 / tl.load(wood + owner * 4 + 3)
    covered = tl.zeros([block], tl.float32)
    red, green, blue, paint = covered, covered, covered, covered
    nx, ny, nz, grain = covered, covered, covered, covered
    for sample in range(supersampling * supersampling):
        y = row * supersampling + sample // supersampling
        x = column * supersampling + sample % supersampling
        key = tl.load(keys + view * samples * samples + y * samples + x)
        hit = key != empty
        face = tl.where(hit, key & face_mask, 0)
        a, b, c = tl.load(face_rows + face * 3), tl.load(face_rows + face * 3 + 1), tl.load(face_rows + face * 3 + 2)
        xa, ya, za = tl.load(place_rows + a * 3), tl.load(place_rows + a * 3 + 1), tl.load(place_rows + a * 3 + 2)
        xb, yb, zb = tl.load(place_rows + b * 3), tl.load(place_rows + b * 3 + 1), tl.load(place_rows + b * 3 + 2)
        xc, yc, zc = tl.load(place_rows + c * 3), tl.load(place_rows + c * 3 + 1), tl.load(place_rows + c * 3 + 2)
        px, py = x + 0.5, y + 0.5
        wa = ((xb - px) * (yc - py) - (xc - px) * (yb - py)) / za
        wb = ((xc - px) * (ya - py) - (xa - px) * (yc - py)) / zb
        wc = ((xa - px) * (yb - py) - (xb - px) * (ya - py)) / zc
        total = wa + wb + wc
        total = tl.where(tl.abs(total) > 1e-20, total, 1.0)
        wa, wb, wc = wa / total, wb / total, wc / total
        one = hit.to(tl.float32)
        mx = wa * tl.load(normal_rows + a * 3) + wb * tl.load(normal_rows + b * 3) + wc * tl.load(normal_rows + c * 3)
        my = (
            wa * tl.load(normal_rows + a * 3 + 1)
            + wb * tl.load(normal_rows + b * 3 + 1)
            + wc * tl.load(normal_rows + c * 3 + 1)
        )
        mz = (
            wa * tl.load(normal_rows + a * 3 + 2)
            + wb * tl.load(normal_rows + b * 3 + 2)
            + wc * tl.load(normal_rows + c * 3 + 2)
        )
        facing = mz - mx * (px / samples * 2 - 1) * tangent - my * (1 - py / samples * 2) * tangent
        length = tl.maximum(tl.sqrt(mx * mx + my * my + mz * mz), 1e-6)
        sign = one * tl.where(facing < 0, -1.0, 1.0) / length
        nx, ny, nz = nx + mx * sign, ny + my * sign, nz + mz * sign
        here = color_rows + face * 12
        red += one * (
            wa * tl.load(here).to(tl.float32) + wb * tl.load(here + 4).to(tl.float32) + wc * tl.load(here + 8).to(tl.float32)
        )
        green += one * (
            wa * tl.load(here + 1).to(tl.float32)
            + wb * tl.load(here + 5).to(tl.float32)
            + wc * tl.load(here + 9).to(tl.float32)
        )
        blue += one * (
            wa * tl.load(here + 2).to(tl.float32)
            + wb * tl.load(here + 6).to(tl.float32)
            + wc * tl.load(here + 10).to(tl.float32)
        )
        paint += one * (
            wa * tl.load(here + 3).to(tl.float32)
            + wb * tl.load(here + 7).to(tl.float32)
            + wc * tl.load(here + 11).to(tl.float32)
        )
        vx = wa * tl.load(vertex_rows + a * 3) + wb * tl.load(vertex_rows + b * 3) + wc * tl.load(vertex_rows + c * 3)
        vy = (
            wa * tl.load(vertex_rows + a * 3 + 1)
            + wb * tl.load(vertex_rows + b * 3 + 1)
            + wc * tl.load(vertex_rows + c * 3 + 1)
        )
        vz = (
            wa * tl.load(vertex_rows + a * 3 + 2)
            + wb * tl.load(vertex_rows + b * 3 + 2)
            + wc * tl.load(vertex_rows + c * 3 + 2)
        )
        along, bend = ax * vx + ay * vy + az * vz, 0.03 * tl.sin(9 * (vx + vy + vz))
        grain += one * (0.98 + 0.07 * tl.sin(turn * (along + bend)) + 0.04 * tl.sin(turn * (along * 2.7 + bend)))
        covered += one
    mean = 1.0 / tl.maximum(covered, 1.0)
    length = tl.maximum(tl.sqrt(nx * nx + ny * ny + nz * nz), 1e-6)
    share = 1.0 / (supersampling * supersampling)
    there = covered > 0
    target = out + view * 9 * pixels * pixels + pixel
    tl.store(target, _byte(tl.where(there, red * mean, 255.0)))
    tl.store(target + pixels * pixels, _byte(tl.where(there, green * mean, 255.0)))
    tl.store(target + 2 * pixels * pixels, _byte(tl.where(there, blue * mean, 255.0)))
    tl.store(target + 3 * pixels * pixels, _byte(128 + 127 * nx / length))
    tl.store(target + 4 * pixels * pixels, _byte(128 + 127 * ny / length))
    tl.store(target + 5 * pixels * pixels, _byte(128 + 127 * nz / length))
    tl.store(target + 6 * pixels * pixels, _byte(covered * share * 255))
    tl.store(target + 7 * pixels * pixels, _byte(paint * share))
    tl.store(target + 8 * pixels * pixels, _byte(grain * mean * grain_scale))


@triton.jit
def _byte(value):
    """A number rounded into a byte."""
    return (tl.minimum(tl.maximum(value, 0.0), 255.0) + 0.5).to(tl.int32).to(tl.uint8)


def rendered(scene: Scene, pixels: int, supersampling: int) -> Tensor:
    """Buffers (W, C, P, P) uint8 of every view of a scene; faces must be int32, everything contiguous on one CUDA device."""
    samples = pixels * supersampling
    places, normals = (each.contiguous() for each in projected(scene, samples))
    views, n_vertices, n_faces = len(places), places.shape[1], scene.faces.shape[1]
    per_set = views // len(scene.faces)
    keys = torch.full((views, samples * samples), EMPTY, dtype=torch.int32, device=places.device)
    scale = (2**KEY_DEPTH_BITS - 2) / (FARTHEST - NEAREST)
    _depth_kernel[(triton.cdiv(n_faces, FACES_PER_PROGRAM), views)](
        places, scene.faces, keys, n_vertices, n_faces, per_set, NEAREST, scale,
        samples=samples, tile=TILE, per_program=FACES_PER_PROGRAM, face_bits=KEY_FACE_BITS, num_warps=1,
    )  # fmt: skip
    out = torch.empty(views, len(CHANNELS), pixels, pixels, dtype=torch.uint8, device=places.device)
    tangent = math.tan(math.radians(FOV_DEG) / 2)
    _resolve_kernel[(pixels * pixels // PIXELS_PER_PROGRAM, views)](
        keys, places, normals, scene.vertices, scene.faces, scene.colors, scene.wood, out, n_vertices, n_faces, per_set, tangent, EMPTY,
        samples=samples, supersampling=supersampling, block=PIXELS_PER_PROGRAM, face_mask=MAX_FACES, grain_scale=GRAIN_SCALE,
        num_warps=4,
    )  # fmt: skip
    return out
