"""The output folder, outputs/<slug>-<id>/, with asset.glb, contact_sheet.png, the turntable, report.html, run.json and, of a prompt's
reference, candidates.png."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image

from dreampolish.scene.pictures import read_picture, resize, sheet
from flows.report.facts import MAX_SIDE, artifacts_of, candidates_path, facts_of_run, sheet_paths
from flows.report.page import run_page, write_page
from flows.runs.create import new_output_folder
from schemas.artifacts import AssetArtifact
from schemas.runs import ALL_STAGES, RunRecord
from stages.runtime.command import open_recorded
from stages.runtime.files import OUTPUTS_ELSEWHERE, disk_errors_in_one_line, for_the_user
from stages.runtime.records import relative_to, write_record
from stages.runtime.store import LocalStore

TILE = 128
"""Pixels of a view's side on the contact sheet."""
OURS = ("asset.glb", "contact_sheet.png", "candidates.png", "turntable.*", "report.html", "run.json")
SHOWN = ("asset.glb", "report.html", "contact_sheet.png", "candidates.png", "turntable.*")


def write_output(record: RunRecord, store: LocalStore, outputs: Path) -> RunRecord:
    """Write the output folder of a run that has an asset, at once, and note it in the run's record, which is returned."""
    artifacts = artifacts_of(record, store.root)
    asset = open_recorded(AssetArtifact, record, store.root)
    target = new_output_folder(record, outputs)
    done = record.model_copy(update={"output": str(target.resolve())})
    with for_the_user(), disk_errors_in_one_line(outputs, OUTPUTS_ELSEWHERE), _in_place_of(target) as partial:
        folder = store.folder("export", asset.fingerprint)
        shutil.copyfile(folder / asset.glb.path, partial / "asset.glb")
        shutil.copyfile(folder / asset.turntable.path, partial / f"turntable{Path(asset.turntable.path).suffix}")
        for name, reference in asset.originals.items():
            # A user's mesh in the format that it came in.
            copied = partial / name
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / reference.path, copied)
        contact_sheet(record, store).save(partial / "contact_sheet.png")
        if (candidates := candidates_path(artifacts, store)) is not None:
            shutil.copyfile(candidates, partial / "candidates.png")
        write_page(partial / "report.html", run_page(facts_of_run(done, artifacts, store, MAX_SIDE)))
        (partial / "run.json").write_text(relative_to(target, done).model_dump_json(indent=1))
    write_record(store.root, done)
    return done


@contextmanager
def _in_place_of(target: Path) -> Iterator[Path]:
    """A new folder that takes a folder's place once the block has filled it; what is not ours in the older one stays.

    An error leaves the older one as it was, and nothing beside it. A kill leaves one of the two, whole.
    """
    partial, earlier = (target.with_name(f".{target.name}.{word}") for word in ("partial", "earlier"))
    if earlier.is_dir() and not target.exists():
        earlier.rename(target)  # a kill between the last two steps
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        if target.is_dir():
            _take_along(target, partial)
            shutil.rmtree(earlier, ignore_errors=True)
            target.rename(earlier)
        partial.rename(target)
        shutil.rmtree(earlier, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if earlier.is_dir() and not target.exists():
            earlier.rename(target)
        raise


def _take_along(before: Path, after: Path) -> None:
    """Copy what `dreampolish export` or the user laid into an output folder."""
    for path in before.iterdir():
        if any(path.match(name) for name in OURS):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, after / path.name, symlinks=True)
        else:
            shutil.copy2(path, after / path.name, follow_symlinks=False)


def shown_files(record: RunRecord) -> list[Path]:
    """Those files of a run's output folder that its page at the tracker shows."""
    folder = Path(record.output or "")
    return [path for name in SHOWN for path in sorted(folder.glob(name))] if record.output is not None else []


def contact_sheet(record: RunRecord, store: LocalStore) -> Image.Image:
    """Eight views for each stage of a run, the reference or a user's pictures on top."""
    rows: list[tuple[str, torch.Tensor]] = []
    for name in ALL_STAGES:
        if paths := sheet_paths(name, record, store):
            eight = paths[:: max(1, len(paths) // 8)][:8]
            rows.append((name, torch.cat([resize(read_picture(path)[None, ..., :3], TILE) for path in eight])))
    return sheet(rows, 1)
