"""Which views a step of a geometry stage renders, and how large.

Source of alternation and of a second, larger resolution: DreamCraft3D (reference and guidance steps alternate; resolution milestones).
"""

from schemas.config.nerf import NerfConfig
from schemas.config.shared.geometry import GeometryConfig, VolumeConfig


def renders_reference(config: VolumeConfig, step: int) -> bool:
    """Whether a step renders the reference view."""
    return step % config.anchor_interval == 0


def renders_novel(config: VolumeConfig, step: int) -> bool:
    """Whether a step renders novel views."""
    return step % config.guidance_interval == 0 and not (config.alternate and renders_reference(config, step))


def is_finer(config: VolumeConfig, step: int) -> bool:
    """Whether a step renders the larger pictures of `config.finer`."""
    return step >= config.finer.begin * config.steps


def guided_views(config: GeometryConfig, step: int) -> tuple[int, int]:
    """How many novel views a step renders, and at how many pixels a side."""
    if isinstance(config, VolumeConfig) and is_finer(config, step):
        return config.finer.views, config.finer.size
    return config.guidance_views, config.guidance_size


def wants_normals(config: NerfConfig, step: int) -> bool:
    """Whether a step of the density field needs every sample's normal."""
    weights = (config.orientation_weight, config.normal_smooth_weight, config.normal_jitter_weight)
    return any(weight.at(step, config.steps) > 0 for weight in weights)
