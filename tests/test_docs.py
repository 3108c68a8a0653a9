"""The pages' links, anchors and file names lead somewhere, and README stays one page."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

PAGES = [
    *(PROJECT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((PROJECT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED_PATH = re.compile(r"`((?:stages|dreampolish|flows|schemas|tests|configs|priors|benchmark|docs)/[\w./-]*)`")


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in LINK.findall(page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_named_files_exist(page: Path) -> None:
    named = NAMED_PATH.findall(page.read_text())
    assert [name for name in named if not (PROJECT / name).exists()] == []


def test_pictures_have_a_text_in_their_place() -> None:
    pictures = [(page.name, each) for page in PAGES for each in re.findall(r"!\[([^\]]*)\]\(", page.read_text())]
    assert [page for page, text in pictures if not text.strip()] == []
    assert len(pictures) >= 3


def test_readme_is_one_page() -> None:
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 120
