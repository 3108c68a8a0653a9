"""Cameras around the scene: poses, rays, projections and the words a prompt uses for a view.

Notation for every function here: B cameras, square pictures of `size` pixels; the frames and axes are those of
docs/conventions.md (world z up, +x the front; camera x right, y up, looking along -z).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SCENE_HALF_SIZE = 0.65
"""Half the side of the cube, in world units, that every field and grid covers."""

FRAMING_HALF_HEIGHT = 0.670
"""Half the height, in world units, of the picture's plane through the origin (source: Zero123's FOV 20 at distance 3.8)."""

OVERHEAD_DEG = 60
"""Elevation above which a prompt calls a view overhead, degrees (source: DreamFusion)."""


@dataclass(frozen=True)
class Cameras:
    """B pinhole cameras that share a picture size.

    world_from_camera: (B, 4, 4), camera-to-world. fov_deg: (B,), vertical, degrees. azimuth_deg, elevation_deg: (B,), degrees,
    kept for view words and pose conditioning. size: pixels of a side.
    """

    world_from_camera: Float[Tensor, "b 4 4"]
    fov_deg: Float[Tensor, " b"]
    azimuth_deg: Float[Tensor, " b"]
    elevation_deg: Float[Tensor, " b"]
    size: int

    def __len__(self) -> int:
        return len(self.fov_deg)

    def __getitem__(self, index: slice | list[int] | Tensor) -> "Cameras":
        """The cameras of a slice or an index list, still a batch."""
        return Cameras(
            world_from_camera=self.world_from_camera[index],
            fov_deg=self.fov_deg[index],
            azimuth_deg=self.azimuth_deg[index],
            elevation_deg=self.elevation_deg[index],
            size=self.size,
        )

    def at_size(self, size: int) -> "Cameras":
        """The same cameras with pictures of another size."""
        return Cameras(
            world_from_camera=self.world_from_camera,
            fov_deg=self.fov_deg,
            azimuth_deg=self.azimuth_deg,
            elevation_deg=self.elevation_deg,
            size=size,
        )

    def to(self, device: torch.device | str) -> "Cameras":
        """The same cameras on another device."""
        return Cameras(
            world_from_camera=self.world_from_camera.to(device),
            fov_deg=self.fov_deg.to(device),
            azimuth_deg=self.azimuth_deg.to(device),
            elevation_deg=self.elevation_deg.to(device),
            size=self.size,
        )


def distance_from_fov(fov_deg: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Camera distance in world units that keeps the framing constant: 0.670 / tan(fov / 2). Range of fov: (0, 180) degrees."""
    return FRAMING_HALF_HEIGHT / torch.tan(torch.deg2rad(fov_deg) / 2)


def orbit_cameras(
    azimuth_deg: Float[Tensor, " b"], elevation_deg: Float[Tensor, " b"], fov_deg: Float[Tensor, " b"], size: int
) -> Cameras:
    """Cameras on a sphere at the framing distance of their FOV, looking at the origin with world z up.

    Elevations must lie strictly inside (-90, 90) degrees: at the poles the picture's up direction is undefined.
    """
    if bool((elevation_deg.abs() >= 90).any()):
        raise ValueError("elevation_deg must lie strictly between -90 and 90: at a pole the up direction is undefined")
    azimuth, elevation = torch.deg2rad(azimuth_deg), torch.deg2rad(elevation_deg)
    backward = torch.stack(
        [elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], dim=-1
    )  # camera +z: from the origin to the eye
    right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], dim=-1)
    up = torch.linalg.cross(backward, right)
    pose = torch.zeros(len(azimuth_deg), 4, 4, dtype=azimuth_deg.dtype, device=azimuth_deg.device)
    pose[:, :3, 0], pose[:, :3, 1], pose[:, :3, 2] = right, up, backward
    pose[:, :3, 3] = backward * distance_from_fov(fov_deg)[:, None]
    pose[:, 3, 3] = 1
    return Cameras(world_from_camera=pose, fov_deg=fov_deg, azimuth_deg=azimuth_deg, elevation_deg=elevation_deg, size=size)


def turntable_cameras(n_views: int, elevation_deg: float, fov_deg: float, size: int) -> Cameras:
    """Evenly spaced views around the object, the first one the front."""
    azimuth = torch.arange(n_views, dtype=torch.float32) * (360 / n_views)
    return orbit_cameras(azimuth, torch.full_like(azimuth, elevation_deg), torch.full_like(azimuth, fov_deg), size)


def random_cameras(
    n_views: int,
    azimuth_range_deg: tuple[float, float],
    elevation_range_deg: tuple[float, float],
    fov_range_deg: tuple[float, float],
    size: int,
    generator: torch.Generator,
) -> Cameras:
    """Views drawn uniformly per angle; azimuths are stratified over their range so that a batch sees every side."""
    device = generator.device
    strata = (torch.arange(n_views, device=device) + torch.rand(n_views, generator=generator, device=device)) / n_views

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n_views, generator=generator, device=device)

    azimuth = azimuth_range_deg[0] + (azimuth_range_deg[1] - azimuth_range_deg[0]) * strata
    return orbit_cameras(azimuth, uniform(*elevation_range_deg), uniform(*fov_range_deg), size)


def rays_from_cameras(cameras: Cameras) -> tuple[Float[Tensor, "b h w 3"], Float[Tensor, "b h w 3"]]:
    """Origins and unit directions, world frame, of the rays through every pixel's centre."""
    size, device = cameras.size, cameras.fov_deg.device
    offsets = ((torch.arange(size, device=device) + 0.5) / size * 2 - 1).to(cameras.fov_deg.dtype)
    half = torch.tan(torch.deg2rad(cameras.fov_deg) / 2)[:, None, None]
    across = half * offsets[None, None, :].expand(1, size, size)
    upward = -half * offsets[None, :, None].expand(1, size, size)
    directions_camera = torch.stack([across, upward, -torch.ones_like(across)], dim=-1)
    rotation = cameras.world_from_camera[:, :3, :3]
    directions = torch.einsum("bij,bhwj->bhwi", rotation, directions_camera)
    origins = cameras.world_from_camera[:, None, None, :3, 3].expand_as(directions)
    return origins, directions / directions.norm(dim=-1, keepdim=True)


def points_camera_from_world(points_world: Float[Tensor, "n 3"], cameras: Cameras) -> Float[Tensor, "b n 3"]:
    """World points in each camera's frame; depth is minus the third coordinate."""
    rotation, eye = cameras.world_from_camera[:, :3, :3], cameras.world_from_camera[:, :3, 3]
    return torch.einsum("bji,bnj->bni", rotation, points_world[None] - eye[:, None])


def pixels_from_points_camera(points_camera: Float[Tensor, "b n 3"], cameras: Cameras) -> Float[Tensor, "b n 2"]:
    """Continuous (column, row) pixel coordinates; a pixel's centre is at +0.5. Points behind the camera give meaningless values."""
    half = torch.tan(torch.deg2rad(cameras.fov_deg) / 2)[:, None]
    depth = -points_camera[..., 2]
    column = (points_camera[..., 0] / (depth * half) + 1) * cameras.size / 2
    row = (1 - points_camera[..., 1] / (depth * half)) * cameras.size / 2
    return torch.stack([column, row], dim=-1)


def pixels_of_points(points_world: Float[Tensor, "n 3"], camera: Cameras) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Rows and columns of the pixels of one camera that points fall into; what falls outside goes to the border."""
    columns, rows = (
        pixels_from_points_camera(points_camera_from_world(points_world, camera), camera)[0].floor().long().unbind(-1)
    )
    return rows.clamp(0, camera.size - 1), columns.clamp(0, camera.size - 1)


def normals_camera_from_world(normals_world: Float[Tensor, "b h w 3"], cameras: Cameras) -> Float[Tensor, "b h w 3"]:
    """Rotate normals into each camera's frame (X right, Y up, Z towards the viewer along the optical axis)."""
    return torch.einsum("bji,bhwj->bhwi", cameras.world_from_camera[:, :3, :3], normals_world)


def view_words(azimuth_deg: float, elevation_deg: float, front_deg: float) -> str:
    """The words a prompt gets for a view (source: DreamFusion; DreamCraft3D's texture stage uses front_deg = 30, else 45).

    front_deg: half the width of the sectors called front and back, degrees.
    """
    folded = (azimuth_deg + 180) % 360 - 180
    if elevation_deg > OVERHEAD_DEG:
        return "overhead view"
    if abs(folded) < front_deg:
        return "front view"
    return "back view" if abs(folded) > 180 - front_deg else "side view"


def pose_condition(
    azimuth_deg: Float[Tensor, " b"], elevation_deg: Float[Tensor, " b"], reference_elevation_deg: float
) -> Float[Tensor, "b 4"]:
    """Zero123's pose: [elevation change in rad, sin and cos of azimuth change, distance change] from the front reference view.

    The distance change is 0: our framing is constant (source: Zero123).
    """
    azimuth = torch.deg2rad(azimuth_deg)
    # Zero123 measures polar angles from the top, hence the sign: a higher target has a smaller polar angle.
    polar_change = -torch.deg2rad(elevation_deg - reference_elevation_deg)
    return torch.stack([polar_change, azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], dim=-1)
