"""Settings of the export stage: mesh and colours become a GLB."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Frozen
from schemas.config.shared.geometry import PreviewConfig


class ExportConfig(Frozen):
    """Crumbs off, decimate, unwrap, bake, GLB."""

    quality: Literal["web", "base"] = "web"
    """web: decimated, normal map, JPEG maps, within `size_limit_mb`; base: every triangle, lossless maps."""
    triangle_budget: int = Field(default=40_000, ge=100, le=500_000)
    """Triangles of a `web` asset, within a few; at most 150,000, and at most what fits into `size_limit_mb`."""
    texture_size: Literal[128, 256, 512, 1024, 2048, 4096] = 1024
    """Side of the maps, pixels."""
    size_limit_mb: float = Field(default=3.0, ge=0.1, le=1000.0)
    """Largest size of a `web` GLB, millions of bytes."""
    jpeg_qualities: tuple[Annotated[int, Field(ge=1, le=100)], ...] = Field(default=(98, 95, 90, 85, 75, 60), min_length=1)
    """JPEG qualities (1..100) of a `web` asset's maps; the first that fits into `size_limit_mb` is taken."""
    longest_side: float = Field(default=1.0, gt=0.0, le=10_000.0)
    """Longest side of the object's box in the file, metres."""
    dilation: int = Field(default=8, ge=0)
    """Pixels by which colours are continued beyond the charts of the atlas."""
    chart_padding: int = Field(default=4, ge=0)
    """Pixels between the charts of the atlas."""
    normal_map: bool = True
    """Whether a `web` asset carries the dense mesh's normals as a map."""
    bake_reach: float = Field(default=0.03, gt=0.0, le=0.5)
    """Distance within which the dense mesh is searched for when `web` maps are baked, world units."""
    uv: Literal["auto", "keep", "new"] = "auto"
    """Texture coordinates of a user's own mesh: keep, make new ones, or auto: keep those that can be used."""
    detail_kept: float = Field(default=0.0, ge=0.0, le=1.0)
    """How much of the fine detail of a user's own texture stays (0..1), beneath what the colour field can hold."""
    repaint: bool = True
    """Whether a user's own mesh gets new pictures; false: it keeps the colours that it came with."""
    roughness: float = Field(default=0.9, ge=0.0, le=1.0)
    """Roughness of the material, 0..1."""
    metallic: float = Field(default=0.0, ge=0.0, le=1.0)
    """Metalness of the material, 0..1."""
    crumb_share: float = Field(default=0.01, ge=0.0, lt=1.0)
    """Components below this share of the largest one's area are dropped."""
    turntable_views: int = Field(default=36, ge=2, le=360)
    """Frames of the turntable."""
    turntable_size: int = Field(default=256, ge=16, le=1024)
    """Side of the turntable's frames, pixels."""
    turntable_elevation_deg: float = Field(default=15.0, gt=-90.0, lt=90.0)
    """Elevation of the turntable, degrees."""
    turntable_seconds: float = Field(default=4.0, gt=0.0, le=600.0)
    """Length of the turntable, seconds."""
    preview: PreviewConfig = PreviewConfig(size=256)
    """The still turntable for the contact sheet."""
