"""A tracker's database and files that move with their store: nothing in them names the store's own place.

MLflow keeps absolute folders unless its server hands the files out, which it calls `mlflow-artifacts:/`. A server of `up` does so from
`<store>/mlartifacts`; without one, files are laid there directly. `mlflow ui` called in the store's folder finds them too.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from PIL import Image
from sqlalchemy import make_url

LOCATION = "mlflow-artifacts:/"
"""Where an experiment's files lie, for MLflow: in the folder that its server hands out."""
DATABASE = "mlflow.db"


def run_folder(artifacts: Path, run: str) -> Path:
    """Where a server that hands out `artifacts` looks for a run's files."""
    return artifacts / run / "artifacts"


def lay_down(local: Path, folder: Path) -> None:
    """Copy a file into a folder under its own name, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{local.name}.{os.getpid()}.partial"
    try:
        shutil.copyfile(local, partial)
        partial.replace(folder / local.name)
    finally:
        partial.unlink(missing_ok=True)


def make_relocatable(database: Path, experiment: str) -> None:
    """Rewrite the absolute folders that earlier versions gave an experiment and its runs; without any, nothing is written.

    Only folders of the form `<anywhere>/mlartifacts[/<run>/artifacts]` are: their files lie beside the database, wherever it is now.
    """
    if not database.is_file():
        return
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        try:
            found = connection.execute(
                "SELECT experiment_id FROM experiments WHERE name = ? AND artifact_location LIKE 'file:%/mlartifacts'",
                [experiment],
            ).fetchall()
        except sqlite3.OperationalError:
            return  # a database without tables yet
        for (identity,) in found:
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", [LOCATION, identity])
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || run_uuid || '/artifacts' "
                "WHERE experiment_id = ? AND artifact_uri LIKE 'file:%/mlartifacts/' || run_uuid || '/artifacts'",
                [LOCATION, identity],
            )


def file_of(uri: str) -> Path | None:
    """The file of a SQLite URI; None for any other."""
    url = make_url(uri)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


Keep = Callable[[Path, str], None]
"""Takes a local file into a folder (empty: the top) of a run's files at the tracker."""


def send_files(client: Any, run: str, folder: Path, entries: Sequence[Mapping[str, Any]], artifacts: Path | None) -> None:
    """Send those pictures and files of a journal's entries that are still in its folder.

    client: MLflow's. artifacts: the folder that the tracker's server hands out, where that is on this machine.
    """
    held = [entry for entry in entries if "file" in entry and (folder / entry["file"]).exists()]
    if not held:
        return
    keep = keeper(client, run, artifacts)
    for entry in held:
        if "image" in entry:
            _send_image(keep, folder / entry["file"], entry)
        elif "artifact" in entry:
            _send_file(keep, folder / entry["file"], entry["artifact"])


def keeper(client: Any, run: str, artifacts: Path | None) -> Keep:
    """What takes a file, under its own name, into a folder of a run's files."""
    if artifacts is None or not client.get_run(run).info.artifact_uri.startswith(LOCATION):
        return lambda local, inside: client.log_artifact(run, str(local), inside or None)
    files = run_folder(artifacts, run)
    return lambda local, inside: lay_down(local, files / inside)


def _send_image(keep: Keep, file: Path, entry: Mapping[str, Any]) -> None:
    """Under the names that MLflow's picture grid reads, but derived from the entry, so that sending twice stores once."""
    name = f"{entry['image'].replace('/', '~')}+step+{entry['step']}+timestamp+{entry['t']}+{file.stem}"
    with Image.open(file, formats=["PNG"]) as picture:
        for filename in (f"{name}.png", f"{name}+compressed.webp"):
            local = file.with_name(filename)
            picture.save(local, lossless=True, method=0) if filename.endswith(".webp") else picture.save(local)
            keep(local, "images")
            local.unlink()


def _send_file(keep: Keep, held: Path, name: str) -> None:
    """A file under its own name, at the top of the run's artifacts."""
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / name
        shutil.copyfile(held, local)
        keep(local, "")
