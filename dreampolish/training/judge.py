"""Training of the judge: `python -m dreampolish.training.judge RENDERS SPLIT JUDGE_FOLDER`.

The trunk's features of training pictures are computed once (with blur and noise, since the judge will see imperfect renders);
the two heads are then fitted on them by symmetric InfoNCE with several positives a row. The folder must hold trunk.safetensors.
"""

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from dreampolish.data.batches import RenderedViews
from dreampolish.data.captions import CaptionKeys, compose_caption, keys_of_captions, parse_caption, positives
from dreampolish.metrics.judge import AlignmentScorer, SentenceEncoder, judge_from_config, load_weights, retrieval_hits
from dreampolish.metrics.judge_network import LiteTrunk
from dreampolish.optim.checkpoints import Checkpoints
from dreampolish.optim.fit import Term, fit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class JudgeSettings:
    """Sizes and budgets: samples, pictures whose features are computed; steps and batch of the heads' fit; logit_scale, the
    fixed inverse temperature; dropout; learning_rate; weight_decay; width and embedding of the heads; seed."""

    samples: int
    steps: int
    batch: int
    logit_scale: float
    dropout: float
    learning_rate: float
    weight_decay: float
    width: int
    embedding: int
    seed: int


@dataclass(frozen=True)
class Samples:
    """N pictures: trunk features (N, F), sentence embeddings (N, S) and keys of their captions."""

    features: Float[Tensor, "n f"]
    sentences: Float[Tensor, "n s"]
    keys: CaptionKeys


def contrastive_loss(
    images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"], positive: Bool[Tensor, "n n"], logit_scale: float
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE; a row's own pair is the target and its other positives are left out of the denominator."""
    others = positive & ~torch.eye(len(images), dtype=torch.bool)
    logits = (logit_scale * images @ texts.T).masked_fill(others, float("-inf"))
    own = torch.arange(len(images))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


DEGRADED_SHARE, LARGEST_NOISE = 1 / 3, 0.06
"""Share of pictures that lose resolution, the same that gain noise, and its largest standard deviation. [choice]"""


def degraded(images: Float[Tensor, "b 3 h w"], generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
    """Pictures of which a third lose resolution and a third gain noise (standard deviation up to 0.06)."""
    n, size = len(images), images.shape[-1]
    small = F.interpolate(images, (size // 2, size // 2), mode="area")
    blurred = F.interpolate(small, (size, size), mode="bilinear", align_corners=False)
    draw = torch.rand(n, 3, generator=generator)
    mixed = torch.where((draw[:, 0] < DEGRADED_SHARE).view(n, 1, 1, 1), blurred, images)
    strength = (LARGEST_NOISE * draw[:, 2] * (draw[:, 1] < DEGRADED_SHARE)).view(n, 1, 1, 1)
    return (mixed + strength * torch.randn(images.shape, generator=generator)).clamp(0, 1)


def collect_samples(views: RenderedViews, trunk: LiteTrunk, sentences: SentenceEncoder, n: int, seed: int) -> Samples:
    """Features and sentences of n training pictures, 32 at a time."""
    generator = torch.Generator().manual_seed(seed)
    features, found = [], []
    for _ in range(0, n, 32):
        images, captions = views.text_batch(32, generator)
        features.append(trunk(degraded(images, generator)).half())
        found += [parse_caption(caption) for caption in captions]
    nouns, colors = [noun for noun, _ in found], [color for _, color in found]
    texts = [compose_caption(noun, color or None, None) for noun, color in found]
    unique = sorted(set(texts))
    place = {text: row for row, text in enumerate(unique)}
    table = torch.cat([sentences.embed(unique[start : start + 64]) for start in range(0, len(unique), 64)])
    return Samples(torch.cat(features), table[[place[text] for text in texts]], keys_of_captions(nouns, colors))


class _Log:
    """Observer that logs the loss now and then."""

    def on_step(self, step: int, values: Mapping[str, float]) -> str | None:
        if step % 200 == 0:
            log.info("step %d: %s", step, values)
        return None

    def stop_requested(self) -> bool:
        return False


def train_heads(samples: Samples, settings: JudgeSettings, checkpoints: Checkpoints | None) -> nn.ModuleDict:
    """Fit the two heads ("image", "text") on samples; resumes from `checkpoints`."""
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        image_head, text_head = judge_from_config(vars(settings))
    features = samples.features.float()
    image_head.mean.copy_(features.mean(dim=0))
    image_head.deviation.copy_(features.std(dim=0).clamp(min=1e-3))
    heads = nn.ModuleDict({"image": image_head, "text": text_head}).train()
    optimizer = torch.optim.AdamW(heads.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)

    def losses(step: int) -> dict[str, Term]:
        rows = torch.randint(len(features), (settings.batch,), generator=generator)
        positive = positives(samples.keys[rows])
        images, texts = image_head(features[rows]), text_head(samples.sentences[rows])
        return {"contrastive": Term(contrastive_loss(images, texts, positive, settings.logit_scale), 1.0)}

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / 50) * 0.5 * (1 + float(np.cos(np.pi * step / settings.steps)))

    fit(
        losses=losses,
        optimizer=optimizer,
        learning_rate_factor=factor,
        steps=settings.steps,
        generator=generator,
        stateful={"heads": heads},
        checkpoints=checkpoints,
        observer=_Log(),
    )
    return heads.eval()


_COARSE_TEXT = (
    "chair armchair sofa table desk bed lamp cabinet bottle glass bin oven tree plant car piano camera phone toy umbrella"
)
COARSE = _COARSE_TEXT.split()
"""Class nouns for the coarse retrieval; an object's class is one that its noun ends with, or has as a synonym."""


def retrieval(scorer: AlignmentScorer, views: RenderedViews, seed: int) -> dict[str, float]:
    """R-precision at 1 of relit views in original colours: among all the split's names, and among coarse classes, with chance."""
    generator = torch.Generator().manual_seed(seed)
    nouns = sorted({views.nouns(place)[0] for place in range(len(views.entries))})
    images, objects = [], []
    for place in range(len(views.entries)):
        mine = np.flatnonzero((views.view_objects == place) & (views.fov_deg <= 45))[:6]
        images.append(scorer.embed_images(views.original_pictures(mine, generator)))
        objects += [place] * len(mine)
    vectors = torch.cat(images)
    figures = {"pictures": float(len(vectors))}
    for kind, words in (("names", nouns), ("classes", COARSE)):
        right = torch.tensor([[_is_called(views.nouns(place), word, kind == "classes") for word in words] for place in objects])
        usable = right.any(dim=1)
        texts = scorer.embed_texts([compose_caption(word, None, None) for word in words])
        hits = retrieval_hits(vectors[usable], texts, right[usable])
        figures |= {f"r_precision_{kind}": float(hits.float().mean()), f"chance_{kind}": float(right[usable].float().mean())}
        figures |= {f"n_{kind}": float(len(words)), f"pictures_{kind}": float(usable.sum())}
    return figures


def _is_called(nouns: Sequence[str], word: str, coarse: bool) -> bool:
    """Whether a word names an object: its noun, or, for classes, its noun's last word or a synonym of it."""
    return word in (noun.split()[-1] for noun in nouns) or word in nouns if coarse else word == nouns[0]


def write_judge(folder: Path, heads: nn.ModuleDict, settings: JudgeSettings, figures: Mapping[str, Any]) -> None:
    """config.json and heads.safetensors (fp16) beside the trunk."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in heads.state_dict().items()}, folder / "heads.safetensors")
    config = {"kind": "alignment", **vars(settings), "held_out": {k: round(float(v), 4) for k, v in figures.items()}}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def train_judge(renders: Path, split: Path, folder: Path, work: Path, settings: JudgeSettings) -> dict[str, float]:
    """Train, write and measure the judge; checkpoints and features lie in `work`. Answers the held-out figures."""
    trunk, sentences = LiteTrunk().eval(), SentenceEncoder()
    load_weights(trunk, load_file(folder / "trunk.safetensors"))
    samples = collect_samples(
        views=RenderedViews(renders, split, "train"), trunk=trunk, sentences=sentences, n=settings.samples, seed=settings.seed
    )
    heads = train_heads(samples, settings, Checkpoints(work, interval=200, keep=2))
    scorer = AlignmentScorer(trunk, heads["image"], heads["text"], sentences)  # type: ignore[arg-type]
    figures = retrieval(scorer, RenderedViews(renders, split, "held_out"), settings.seed)
    write_judge(folder, heads, settings, figures)
    return figures


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Train the embedded image-text judge.")
    parser.add_argument("renders", type=Path)
    parser.add_argument("split", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("work/judge"))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    settings = JudgeSettings(
        samples=5120,
        steps=400,
        batch=256,
        logit_scale=14.0,
        dropout=0.5,
        learning_rate=1e-3,
        weight_decay=0.05,
        width=384,
        embedding=192,
        seed=20,
    )
    log.info(
        "%s",
        train_judge(renders=options.renders, split=options.split, folder=options.folder, work=options.work, settings=settings),
    )


if __name__ == "__main__":
    main()
