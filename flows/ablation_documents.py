"""docs/studies.md: what the studies showed, written from their study.json files alone."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from flows.ablation_report import study_text
from flows.ablation_results import StudyResult, read_result
from schemas.presets import ConfigError
from stages.disk import disk_errors_in_one_line, write_atomically

LARGEST_SIDE = 6000
"""Pixels of a sheet's longer side on the page."""
HEAD = """# Studies

Written by `dreampolish studies` from the studies' own results; not to be edited by hand. `dreampolish ablate NAME` runs one anew."""


def write_page(folders: Sequence[Path], page: Path) -> Path:
    """The page and, beside it, each study's plot and contact sheet; its path. Raises ConfigError where a study cannot be read."""
    results = [(folder, read_result(folder)) for folder in folders]
    names = [result.spec.name for _, result in results]
    twice = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if twice is not None:
        raise ConfigError(f"two of the folders hold the study {twice}; name one of them")
    with disk_errors_in_one_line(page.parent):
        page.parent.mkdir(parents=True, exist_ok=True)
        sections = [study_text(result, "##", _pictures(folder, result, page.parent)) for folder, result in results]
        write_atomically(page, "\n".join([HEAD + "\n", *sections]).encode())
    return page


def _pictures(folder: Path, result: StudyResult, target: Path) -> list[str]:
    """Copies of a study's pictures beside the page, and their links."""
    links = []
    name = result.spec.name
    if (folder / "plot.png").is_file():
        write_atomically(target / f"study-{name}-plot.png", (folder / "plot.png").read_bytes())
        links.append(f"![{name}: figures](study-{name}-plot.png)")
    if (folder / "sheet.png").is_file():
        with Image.open(folder / "sheet.png", formats=["PNG"]) as sheet:
            picture = sheet.convert("RGB")
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
        picture.save(target / f"study-{name}.jpg", quality=85, optimize=True)
        told = "Every cell from the same eight views; the truth, or the reference, on top of each block:"
        links.append(f"{told}\n\n![{name}: all cells](study-{name}.jpg)")
    return links
