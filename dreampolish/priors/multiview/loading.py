"""Priors that paint sets of views: which one a folder holds, by the pipeline that it names, and opening it."""

from collections.abc import Callable

from dreampolish.priors.estimators.yoso import CLASS, checked_control, side_of
from dreampolish.priors.folders.architectures import DIFFUSERS_BASE, checked_diffusers, checked_transformers
from dreampolish.priors.folders.contents import (
    AUTOENCODERS,
    UNETS,
    Contents,
    contents_of,
    of_text_towers,
    pixels_a_latent,
    prediction_of,
    summed_up,
)
from dreampolish.priors.folders.licences import licences_of
from dreampolish.priors.folders.source import PriorError, PriorSource, json_object
from dreampolish.priors.folders.weights import Tensors, tensors_of
from dreampolish.priors.multiview.imagedream import ImageDreamPrior, load_imagedream
from dreampolish.priors.multiview.imagedream_network import check_multiview_unet
from dreampolish.priors.multiview.zero123plus import Zero123PlusPrior, load_picture_input, load_ramp, load_zero123plus

LOADERS: dict[str, Callable[[PriorSource], Zero123PlusPrior | ImageDreamPrior]] = {
    "Zero123PlusPipeline": load_zero123plus,
    "MVDreamPipeline": load_imagedream,
}
"""By `_class_name` of the folder's model_index.json."""


def load_set_prior(source: PriorSource) -> Zero123PlusPrior | ImageDreamPrior:
    """A prior that paints sets. PriorError in one line for another kind of folder."""
    name = str(source.index().get("_class_name", ""))
    if name not in LOADERS:
        raise PriorError(
            f"{source.location} is {name or 'a folder without model_index.json'}: sets of views are painted by Zero123++ "
            "(Zero123PlusPipeline) and ImageDream (MVDreamPipeline)"
        )
    return LOADERS[name](source)


def contents_of_any(source: PriorSource) -> Contents:
    """What a prior's folder is, whether it paints sets of views or not. PriorError in one line where it cannot be used."""
    if (source.folder() / "model.onnx").is_file() and not source.has("unet"):
        return _of_onnx(source)
    readers = {"Zero123PlusPipeline": _of_zero123plus, "MVDreamPipeline": _of_imagedream, CLASS: _of_one_step}
    reader = readers.get(str(source.index().get("_class_name", "")))
    return contents_of(source) if reader is None else reader(source)


def _of_onnx(source: PriorSource) -> Contents:
    """A one-step normal network; nothing but its size is known without opening it."""
    folder = source.folder()
    return Contents(
        folder=folder,
        role="normals",
        family="one-step normals (ONNX)",
        image_size=0,
        prediction="normals",
        parameters={},
        stored_bytes=(folder / "model.onnx").stat().st_size,
        licences=tuple(licences_of(folder)),
        variants=(),
    )


def _of_one_step(source: PriorSource) -> Contents:
    found = {
        "unet": checked_diffusers(source.component("unet"), UNETS)[2],
        "controlnet": checked_control(source)[1],
        "vae": checked_diffusers(source.component("vae"), AUTOENCODERS)[2],
        **(of_text_towers(source, ("text_encoder",)) if source.has("text_encoder") else {}),
    }
    return summed_up(
        source=source,
        role="normals",
        family="StableNormal's one-step part",
        image_size=side_of(source),
        prediction="normals",
        found=found,
    )


def _of_zero123plus(source: PriorSource) -> Contents:
    found = {
        "unet": checked_diffusers(source.component("unet"), UNETS)[2],
        "vision_encoder": checked_transformers(source.component("vision_encoder"))[2],
        **_around(source),
    }
    load_ramp(source)
    load_picture_input(source, "feature_extractor_clip")
    size = load_picture_input(source, "feature_extractor_vae").size
    return summed_up(
        source=source, role="views", family="Zero123++", image_size=size, prediction=prediction_of(source), found=found
    )


def _of_imagedream(source: PriorSource) -> Contents:
    if not source.has("image_encoder"):
        raise PriorError(f"{source.location} has no image_encoder: it is MVDream's, which sees words only; take ImageDream's")
    _, tower, headers = checked_transformers(source.component("image_encoder"))
    check_multiview_unet(source, int(tower.hidden_size))
    found = {
        "unet": tensors_of(source.component("unet"), DIFFUSERS_BASE),
        "image_encoder": headers,
        **_around(source),
    }
    load_picture_input(source, "feature_extractor")
    vae, unet = (json_object(source.component(name) / "config.json") for name in ("vae", "unet"))
    return summed_up(
        source=source,
        role="views",
        family="ImageDream",
        image_size=int(unet["image_size"]) * pixels_a_latent(vae),
        prediction=prediction_of(source),
        found=found,
    )


def _around(source: PriorSource) -> dict[str, Tensors]:
    return {
        "vae": checked_diffusers(source.component("vae"), AUTOENCODERS)[2],
        **of_text_towers(source, ("text_encoder",)),
    }
