"""Every setting of a run. This folder is the only home of defaults; presets hold differences."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from schemas.base import Frozen
from schemas.config.dmtet import DmtetConfig
from schemas.config.export import ExportConfig
from schemas.config.intake import IntakeConfig
from schemas.config.nerf import NerfConfig
from schemas.config.neus import NeusConfig
from schemas.config.polish import PolishConfig
from schemas.config.reference import ReferenceConfig
from schemas.config.texture import TextureConfig

PROMPT_LIMIT = 300
"""Longest prompt, characters: MiniLM and CLIP read far less, so more is a mistake."""


Precision = Literal["float32", "float16", "bfloat16"]
Threads = Annotated[int, Field(ge=1, le=256)] | Literal["auto"]


def _known_device(device: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) is None:
        raise ValueError(f"{device!r} is no device; use auto, cpu, cuda or cuda:N")
    return device


class PriorSource(Frozen):
    """Where one prior lies: a folder in diffusers layout (relative ones start at the project) or a hub id with a revision."""

    source: str = Field(min_length=1, max_length=4096)
    """Folder or hub id."""
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """Revision of a hub id, 40 hexadecimal digits."""


class TextSource(PriorSource):
    """Where the text prior lies, and the size that it works at."""

    image_size: int | None = Field(default=None, ge=16, le=2048, multiple_of=16)
    """Side of its pictures, pixels; None: as its folder says. Half the side takes a quarter of the memory."""


class ViewSource(PriorSource):
    """Where the view prior lies, and how its poses are written."""

    pose: Literal["auto", "distance_change", "reference_elevation"] = "auto"
    """A pose's fourth number: change of distance (Zero123) or the reference's angle from the top (Stable-Zero123); auto: the folder's."""


class NormalSource(PriorSource):
    """Where the normal prior lies, and how often it looks."""

    ensemble: int = Field(default=1, ge=1, le=32)
    """Estimates of a picture that are joined to one; each costs as much as the first."""
    axes: str = Field(default="right up viewer", pattern=r"^(right|left) (up|down) (viewer|away)$")
    """Where x, y and z of a one-step network (ONNX, StableNormal) point; Marigold's and the embedded one's are known."""


class LocalSource(Frozen):
    """A folder of weights that no hub holds in this form; relative ones start at the project."""

    source: str = Field(min_length=1, max_length=4096)
    """Folder of the weights."""


class PriorsConfig(Frozen):
    """The priors a run uses, and the networks it is measured with."""

    text: TextSource = TextSource(source="priors/home/text")
    """Text prior: from a prompt to pictures."""
    view: ViewSource = ViewSource(source="priors/home/view")
    """View prior: from the reference to other views."""
    views: PriorSource | None = None
    """Prior that paints target views in sets (Zero123++, ImageDream); off unless named: the view prior paints each view alone."""
    normals: NormalSource = NormalSource(source="priors/home/normals")
    """Normal prior: from a picture to its normals."""
    judge: PriorSource = PriorSource(source="priors/home/judge")
    """Image-text judge, which chooses the reference and measures `alignment`."""
    clip: PriorSource | None = None
    """A real CLIP (transformers' CLIPModel) for `clip_text` and `clip_image`; off unless named."""
    depth: PriorSource | None = None
    """A depth estimator of transformers for `nerf.anchors.depth` and `neus.anchors.depth`; off unless named."""
    matting: LocalSource | None = None
    """A folder with ISNet's or BiRefNet's model.onnx, which cuts objects from any background; off unless named."""
    lpips: LocalSource | None = None
    """A folder made by dreampolish/training/converters.py for `lpips`; off unless named."""
    precision: Precision | Literal["auto"] = "auto"
    """Precision of the priors' networks, not of latents and the LoRA; auto: bfloat16 on a CPU that multiplies in it, else float32."""
    vae_precision: Precision | Literal["auto"] = "auto"
    """Precision of the autoencoders; auto: as `precision` where that is named and does not overflow by their config, else float32."""
    lora_precision: Precision | Literal["auto"] = "auto"
    """Precision of the network under the LoRA, whose loss is scaled in float16; auto: as `precision`, another one takes a copy."""


class Config(Frozen):
    """A whole run's settings."""

    preset: str = "home"
    """Name of the preset that the settings started from."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of every random draw."""
    device: Annotated[str, AfterValidator(_known_device)] = "auto"
    """Where torch computes: auto, cpu, cuda or cuda:N."""
    threads: Threads = "auto"
    """Threads on the CPU; auto: OMP_NUM_THREADS where it is set, else the cores that the process may use, at most 8."""
    deterministic: bool = False
    """Whether a GPU computes by deterministic algorithms alone, without our kernels and slower; a CPU always gives the same bits."""
    checkpoint_interval: int = Field(default=50, ge=1)
    """Steps between checkpoints inside a stage."""
    priors: PriorsConfig = PriorsConfig()
    """The priors and the networks that measure."""
    intake: IntakeConfig = IntakeConfig()
    """Before all others, for a user's own mesh: reading it."""
    reference: ReferenceConfig = ReferenceConfig()
    """The reference picture."""
    nerf: NerfConfig = NerfConfig()
    """The density field."""
    neus: NeusConfig = NeusConfig()
    """The signed distance field."""
    dmtet: DmtetConfig = DmtetConfig()
    """The mesh."""
    polish: PolishConfig = PolishConfig()
    """The mesh under the normal prior."""
    texture: TextureConfig = TextureConfig()
    """The colours."""
    export: ExportConfig = ExportConfig()
    """The asset."""

    @model_validator(mode="after")
    def _depth_is_known(self) -> Self:
        for name in ("nerf", "neus"):
            if getattr(self, name).anchors.depth.largest > 0 and self.priors.depth is None:
                raise ValueError(
                    f"{name}.anchors.depth needs the reference's depth; name an estimator, priors.depth.source=FOLDER"
                )
        return self
