"""Families of text priors with a transformer: what their folders hold beside it, and the size that they draw at."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreampolish.priors.folders.source import PriorError, json_object

FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
"""The only scheduler whose noise shares are known here."""


@dataclass(frozen=True)
class TransformerFamily:
    """Encoders that a folder must hold, those that it may lack, and latents of a side where its config does not say."""

    name: str
    encoders: tuple[str, ...]
    optional: tuple[str, ...]
    default_side: int

    def latent_side(self, config: Mapping[str, Any]) -> int:
        """Latents of a side that the network was trained at."""
        return int(config.get("sample_size") or self.default_side)


TRANSFORMERS = {
    "SD3Transformer2DModel": TransformerFamily(
        "Stable Diffusion 3 class", ("text_encoder", "text_encoder_2"), ("text_encoder_3",), 128
    ),
    "FluxTransformer2DModel": TransformerFamily("FLUX.1 class", ("text_encoder", "text_encoder_2"), (), 128),
}
"""By the class that the transformer's config names. FLUX's config gives no size: 128 is that of diffusers' FluxPipeline."""


def transformer_family(config: Mapping[str, Any], place: str) -> TransformerFamily:
    """The family of a transformer's config. PriorError for one that cannot be used here."""
    name = str(config.get("_class_name", ""))
    if name not in TRANSFORMERS:
        raise PriorError(
            f"{place} has a transformer of the class {name or 'unknown'}: only {', '.join(TRANSFORMERS)} are opened here"
        )
    given = int(config.get("in_channels", 0))
    if given != int(config.get("out_channels") or given):
        raise PriorError(f"{place} fills in, edits or follows controls ({given} input channels): take a text-to-image model")
    return TRANSFORMERS[name]


def refuse_other_scheduler(folder: Path) -> None:
    """PriorError unless a `scheduler` component is rectified flow's."""
    named = str(json_object(folder / "scheduler_config.json").get("_class_name"))
    if named != FLOW_SCHEDULER:
        raise PriorError(f"{folder} names the scheduler {named}: a transformer of rectified flow has {FLOW_SCHEDULER}")
