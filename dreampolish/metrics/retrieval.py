"""R-precision of rendered prompts: does the judge, given a picture and many names, pick what was asked for?

`python -m dreampolish.metrics.retrieval data/renders configs/data/split.json configs/data/held_out_names.txt` writes the names of the
held-out objects, one a line; the committed file needs no renders to be read.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from dreampolish.data.captions import compose_caption, keys_of_captions, nouns_of_entry, parse_caption, positives
from dreampolish.data.library import entry_from_fields
from dreampolish.data.split import read_split


def candidate_texts(prompts: Sequence[str], names: Sequence[str]) -> list[str]:
    """What a picture is compared with: all prompts, then the names as captions."""
    return [*prompts, *(compose_caption(name, None, None) for name in names)]


def right_texts(prompts: Sequence[str], names: Sequence[str]) -> Bool[Tensor, "p n"]:
    """Which candidate texts are right for each prompt: itself, and names of the same thing (`positives`: synonyms, same head)."""
    texts = candidate_texts(prompts, names)
    parsed = [parse_caption(text) for text in texts]
    fitting = positives(keys_of_captions([noun for noun, _ in parsed], [color for _, color in parsed]))[: len(prompts)]
    return fitting | torch.eye(len(prompts), len(texts), dtype=torch.bool)


def held_out_names(objects: Path, split_file: Path) -> list[str]:
    """The nouns of the held-out objects, sorted. objects: objects.json of the rendered data."""
    wanted = set(read_split(split_file)["held_out"])
    entries = [entry_from_fields(fields) for fields in json.loads(objects.read_text())]
    return sorted({nouns_of_entry(entry)[0] for entry in entries if entry.identifier in wanted})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Write the names of the held-out objects.")
    parser.add_argument("renders", type=Path)
    parser.add_argument("split", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    options.output.write_text("\n".join(held_out_names(options.renders / "objects.json", options.split)) + "\n")


if __name__ == "__main__":
    main()
