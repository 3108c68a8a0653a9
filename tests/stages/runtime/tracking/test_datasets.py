"""Datasets of a run: journalled first, sent once, told apart by their content."""

import json
from pathlib import Path

from mlflow import MlflowClient

from stages.runtime.tracking.datasets import ReadData, files_data, split_data
from stages.runtime.tracking.journal import Journal, place_from_store, replay, run_id_at_tracker

DATA = ReadData("split", "held out", "ab" * 32, "configs/data/split.json", {"train": 2, "held_out": 1})


def test_a_dataset_is_sent_once_however_often_it_is_noted(store: Path, tracker: str) -> None:
    place, folder = place_from_store(store, tracker), store / "journals/study"
    for _ in range(2):
        journal = Journal(folder, "run", "a study", {})
        journal.reads(DATA)
        assert journal.send(place)
    assert (folder / "run.jsonl").read_text().count('"dataset"') == 1
    # As if the process had died between sending and noting so.
    sent = folder / "run.sent.json"
    sent.write_text(json.dumps({**json.loads(sent.read_text()), "sent": 0}))
    replay(folder, "run", place, 0.0)
    found = MlflowClient(tracking_uri=tracker).get_run(str(run_id_at_tracker(folder, "run"))).inputs.dataset_inputs
    assert [(each.dataset.name, each.dataset.digest, each.tags[0].value) for each in found] == [
        ("split", "ab" * 16, "held out")
    ]
    assert json.loads(found[0].dataset.profile) == {"train": 2, "held_out": 1, "sha256": "ab" * 32}


def test_a_split_counts_its_lists(tmp_path: Path) -> None:
    file = tmp_path / "split.json"
    file.write_text(json.dumps({"train": ["a", "b"], "held_out": ["c"], "seed": 3}))
    assert split_data(file, "configs/data/split.json", "held out").profile == {"train": 2, "held_out": 1}


def test_files_are_told_apart_by_names_and_contents(tmp_path: Path) -> None:
    for name, content in (("chair", b"1"), ("table", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mesh.glb").write_bytes(content)
    files = sorted(tmp_path.glob("*/mesh.glb"))
    data = files_data("benchmark", files, "benchmark/objects", "evaluation")
    assert data.profile == {"files": 2}
    assert data == files_data("benchmark", files[::-1], "benchmark/objects", "evaluation")
    files[0].write_bytes(b"3")
    assert data.digest != files_data("benchmark", files, "benchmark/objects", "evaluation").digest
