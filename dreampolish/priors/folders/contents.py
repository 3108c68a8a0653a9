"""What a prior's folder is: its role, family, sizes and licence, by its configs and the headers of its weights alone."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreampolish.priors.folders.architectures import checked_diffusers, checked_transformers
from dreampolish.priors.folders.families import TRANSFORMERS, refuse_other_scheduler, transformer_family
from dreampolish.priors.folders.licences import licences_of
from dreampolish.priors.folders.projection import checked_projection, refuse_other_tower, refuse_other_width
from dreampolish.priors.folders.source import PriorError, PriorSource, json_object
from dreampolish.priors.folders.weights import Tensors

Role = Literal["text", "view", "views", "normals"]

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")
AUTOENCODERS, UNETS = ("AutoencoderKL", "PatchAutoencoder"), ("UNet2DConditionModel",)
PREDICTIONS = ("epsilon", "v_prediction")
STABLE_NORMAL = "StableNormal"
"""Beginning of the pipeline that StableNormal's folders name."""
GIB = 2**30


@dataclass(frozen=True)
class Contents:
    """A folder that can be opened. image_size: pixels of a side. parameters: numbers of each network, by component."""

    folder: Path
    role: Role
    family: str
    image_size: int
    prediction: str
    parameters: Mapping[str, int]
    stored_bytes: int
    licences: tuple[str, ...]
    variants: tuple[str, ...]

    def memory_gib(self, bytes_a_number: int) -> float:
        """What the networks' weights take in memory, GiB."""
        return sum(self.parameters.values()) * bytes_a_number / GIB

    def told(self) -> str:
        """One line about the folder."""
        licence = ", ".join(self.licences) or "licence not named"
        halves = f", stored as {' and '.join(self.variants)}" if self.variants else ""
        size = sum(self.parameters.values()) / 1e6
        return (
            f"{self.family}, {self.image_size} px, {self.prediction}; {size:,.0f} M parameters, "
            f"{self.stored_bytes / GIB:.2f} GiB on disk{halves}, {self.memory_gib(2):.2f} GiB in memory at float16; {licence}"
        )


def contents_of(source: PriorSource) -> Contents:
    """What a prior is. PriorError in one line where something is missing, damaged, or of a kind that cannot be used here."""
    folder = source.folder()
    if source.has("transformer"):
        return _of_transformer(source)
    if not source.has("unet"):
        raise PriorError(_why_no_network(source, folder))
    unet, vae = (json_object(source.component(name) / "config.json") for name in ("unet", "vae"))
    role, family = _role(source, unet, vae)
    found = {
        "unet": checked_diffusers(source.component("unet"), UNETS)[2],
        "vae": checked_diffusers(source.component("vae"), AUTOENCODERS)[2],
        **(_of_view(source, unet) if role == "view" else of_text_towers(source, _encoders(unet))),
    }
    return summed_up(
        source=source,
        role=role,
        family=family,
        image_size=_image_size(source, role, unet, vae),
        prediction=prediction_of(source),
        found=found,
    )


def summed_up(
    source: PriorSource, role: Role, family: str, image_size: int, prediction: str, found: Mapping[str, Tensors]
) -> Contents:
    """A folder's contents, by its components' tensors."""
    return Contents(
        folder=source.folder(),
        role=role,
        family=family,
        image_size=image_size,
        prediction=prediction,
        parameters={name: tensors.n_parameters for name, tensors in found.items()},
        stored_bytes=sum(tensors.stored_bytes for tensors in found.values()),
        licences=tuple(licences_of(source.folder())),
        variants=tuple(sorted({tensors.variant for tensors in found.values() if tensors.variant})),
    )


def _why_no_network(source: PriorSource, folder: Path) -> str:
    inside = sorted(path.name for path in folder.iterdir())
    if any(entry.endswith((".ckpt", ".safetensors")) for entry in inside):
        return (
            f"{folder} holds single files, not components: `dreampolish priors convert FILE OUT` turns one of Zero123's into a "
            "folder; of other models take the folder in diffusers layout"
        )
    return f"{folder} has no unet/: it is no prior in diffusers layout, or its folder is incomplete; fetch it again"


def _role(source: PriorSource, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> tuple[Role, str]:
    """(role, family) by the components, the class that the index names and the U-Net's channels."""
    name, latent = str(source.index().get("_class_name", "")), int(vae.get("latent_channels", 4))
    channels, ours = int(unet.get("in_channels", 4)), vae.get("_class_name") == "PatchAutoencoder"
    if source.has("cc_projection"):
        return "view", "embedded view prior" if ours else "Zero123 class"
    if name.startswith(STABLE_NORMAL):
        raise PriorError(
            f"{source.location} is a {name} (StableNormal), whose refining part is not opened here: take its one-step part, a "
            "yoso-normal folder (YOSONormalsPipeline), or a Marigold normals folder"
        )
    if channels == 2 * latent:
        if name.startswith("Marigold") and name != "MarigoldNormalsPipeline":
            raise PriorError(f"{source.location} is a {name}, which draws no normals: take a Marigold *normals* folder")
        return "normals", "embedded normal prior" if ours else "Marigold normals"
    if channels != latent:
        raise PriorError(
            f"{source.location} has a U-Net of {channels} input channels for latents of {latent}: "
            "it is an inpainting, depth or upscaling model, which no stage uses"
        )
    if unet.get("addition_embed_type") == "text_time":
        return "text", "SDXL class"
    by_width = {768: "Stable Diffusion 1 class", 1024: "Stable Diffusion 2 class"}
    plain = by_width.get(unet.get("cross_attention_dim", 0), "latent diffusion")
    return "text", "embedded text prior" if ours else plain


def _encoders(unet: Mapping[str, Any]) -> tuple[str, ...]:
    return ("text_encoder", "text_encoder_2") if unet.get("addition_embed_type") == "text_time" else ("text_encoder",)


def of_text_towers(source: PriorSource, encoders: tuple[str, ...]) -> dict[str, Tensors]:
    """Headers of text towers, each with its vocabulary beside it. PriorError where something is missing."""
    for name in encoders:
        tokenizer = source.component(name.replace("text_encoder", "tokenizer"))
        if not any((tokenizer / each).is_file() for each in TOKENIZER_FILES):
            raise PriorError(f"{tokenizer} holds no vocabulary ({', '.join(TOKENIZER_FILES)}): fetch it again")
    return {name: checked_transformers(source.component(name))[2] for name in encoders}


def _of_transformer(source: PriorSource) -> Contents:
    """A text prior of rectified flow."""
    config, vae = (json_object(source.component(name) / "config.json") for name in ("transformer", "vae"))
    family = transformer_family(config, source.location)
    refuse_other_scheduler(source.component("scheduler"))
    encoders = (*family.encoders, *(name for name in family.optional if source.has(name)))
    found = {
        "transformer": checked_diffusers(source.component("transformer"), tuple(TRANSFORMERS))[2],
        "vae": checked_diffusers(source.component("vae"), AUTOENCODERS)[2],
        **of_text_towers(source, encoders),
    }
    return summed_up(
        source=source,
        role="text",
        family=family.name,
        image_size=family.latent_side(config) * pixels_a_latent(vae),
        prediction="rectified flow",
        found=found,
    )


def _of_view(source: PriorSource, unet: Mapping[str, Any]) -> dict[str, Tensors]:
    """The pose projection, which must fit the U-Net, and the picture tower, which must fit the projection."""
    projection = checked_projection(source)
    refuse_other_width(source, projection, unet)
    found = {"cc_projection": projection.tensors}
    folder = source.component("cc_projection")
    if json_object(folder / "config.json").get("context", "image_embedding") == "image_embedding":
        _, tower, found["image_encoder"] = checked_transformers(source.component("image_encoder"))
        refuse_other_tower(source, projection, tower)
    return found


def prediction_of(source: PriorSource) -> str:
    """What the network predicts, by its scheduler; PriorError for what is not known here."""
    folder = source.component("scheduler")
    kind = str(json_object(folder / "scheduler_config.json").get("prediction_type", "epsilon"))
    if kind not in PREDICTIONS:
        raise PriorError(f"{folder} predicts '{kind}': only {' and '.join(PREDICTIONS)} are known")
    return kind


def _image_size(source: PriorSource, role: Role, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> int:
    if role == "normals" and source.index().get("default_processing_resolution"):
        return int(source.index()["default_processing_resolution"])
    return math.prod((int(unet.get("sample_size") or 64), pixels_a_latent(vae)))


def pixels_a_latent(vae: Mapping[str, Any]) -> int:
    """Pixels of a latent."""
    return int(vae.get("patch_size", 2 ** (len(vae.get("block_out_channels", (1,) * 4)) - 1)))
