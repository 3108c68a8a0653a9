"""Settings of the export stage: mesh and colours become a GLB."""

from typing import Literal

from pydantic import Field

from schemas.base import Frozen
from schemas.config.shared import PreviewConfig


class ExportConfig(Frozen):
    """Stage 6: crumbs off, decimate, unwrap, bake, GLB."""

    quality: Literal["web", "base"] = "web"
    """web: decimated, with the dense mesh's normals in a map, JPEG maps, within `size_limit_mb`; base: every triangle, lossless maps."""
    triangle_budget: int = Field(default=40_000, ge=100, le=500_000)
    """Of `web`, about: decimation may miss it by a few. No more than 150,000, and no more than fit into `size_limit_mb`."""
    texture_size: Literal[128, 256, 512, 1024, 2048, 4096] = 1024
    size_limit_mb: float = Field(default=3.0, ge=0.1, le=1000.0)
    """Of a `web` GLB, millions of bytes."""
    longest_side: float = Field(default=1.0, gt=0.0, le=10_000.0)
    """Of the object's box in the file, metres."""
    dilation: int = Field(default=8, ge=0)
    chart_padding: int = Field(default=4, ge=0)
    """Pixels between the charts of the atlas."""
    normal_map: bool = True
    bake_reach: float = Field(default=0.03, gt=0.0, le=0.5)
    """World units within which the dense mesh is looked for when `web` maps are baked."""
    roughness: float = Field(default=0.9, ge=0.0, le=1.0)
    metallic: float = Field(default=0.0, ge=0.0, le=1.0)
    crumb_share: float = Field(default=0.01, ge=0.0, lt=1.0)
    turntable_views: int = Field(default=36, ge=2, le=360)
    turntable_size: int = Field(default=256, ge=16, le=1024)
    preview: PreviewConfig = PreviewConfig(size=256)
