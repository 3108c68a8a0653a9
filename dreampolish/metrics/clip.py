"""Real CLIP as a judge (protocols.ImageTextScorer): any CLIPModel of transformers, from a folder or a pinned hub id.

Figures named `clip_*` come from here alone; the embedded judge's are called `alignment`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer

from dreampolish.priors.folders.architectures import checked_transformers
from dreampolish.priors.folders.loading import open_transformers
from dreampolish.priors.folders.source import PriorError, PriorSource, json_object

MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP's pictures (source: openai/CLIP)."""


class ClipScorer:
    """Cosines of CLIP's projected embeddings."""

    name = "clip"

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._device = next(model.parameters()).device

    @torch.no_grad()
    def embed_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit feature vectors of square pictures in [0, 1], of any size; no gradient."""
        side = int(self._model.config.vision_config.image_size)
        images = images.to(self._device).float()
        if images.shape[-2:] != (side, side):
            images = F.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        mean, deviation = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
        features = self._model.visual_projection(
            self._model.vision_model(pixel_values=(images - mean) / deviation).pooler_output
        )
        return F.normalize(features, dim=1).cpu()

    @torch.no_grad()
    def embed_texts(self, prompts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit feature vectors of texts; longer ones than the tower reads are cut."""
        limit = int(self._model.config.text_config.max_position_embeddings)
        tokens = self._tokenizer(list(prompts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
        known = {name: tokens[name].to(self._device) for name in ("input_ids", "attention_mask")}
        features = self._model.text_projection(self._model.text_model(**known).pooler_output)
        return F.normalize(features, dim=1).cpu()


@lru_cache(maxsize=1)
def load_clip(source: PriorSource, device: torch.device) -> ClipScorer:
    """Open a CLIP; kept open for the next call. PriorError in one line for anything that is no CLIP with safetensors."""
    folder = source.folder()
    check_clip(source)
    try:
        model = open_transformers(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except PriorError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise PriorError(f"the CLIP {folder} cannot be opened: {str(error).splitlines()[0]}") from error
    return ClipScorer(model.to(device), tokenizer)


def check_clip(source: PriorSource) -> None:
    """PriorError, in one line and by headers alone, for anything that is no CLIP with safetensors."""
    folder = source.folder()
    kind = str(json_object(folder / "config.json").get("model_type"))
    if kind != "clip":
        raise PriorError(f"{folder} is a {kind} model, no CLIP: clip_* figures come from a CLIPModel only")
    checked_transformers(folder)
