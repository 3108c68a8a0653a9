"""What a stage's watch logs: curves, pictures and the reference view's figures, without touching the training's draws."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import stages.runtime.tracking.progress
from dreampolish.metrics.pictures import psnr, ssim
from schemas.artifacts import NerfArtifact
from schemas.config.nerf import NerfConfig
from schemas.runs import StageRecord
from stages.results.observer import Preview, StageObserver, reference_figures
from stages.runtime.context import RunContext
from stages.runtime.stage import Stage, _record, open_stage
from stages.runtime.tracking.journal import Journal, Place
from stages.runtime.tracking.progress import StageProgress


def _journal(store: Path) -> list[dict]:
    (path,) = (store / "journals").glob("*/nerf-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def _publish(stage: Stage) -> None:
    payload = stage.path("payload.bin")
    payload.write_bytes(b"field")
    stage.publish(
        NerfArtifact,
        metrics={"psnr": 1.0},
        field=payload,
        field_config={},
        occupancy=payload,
        steps=40,
        switch_reason="step cap 40",
    )


@pytest.mark.parametrize(("interval", "shown"), [(50, range(2, 41, 2)), (1, range(1, 41))])
def test_the_reference_views_figures_are_a_curve_with_a_best(
    run_context: RunContext, store: Path, interval: int, shown: range
) -> None:
    generator = torch.Generator().manual_seed(0)
    reference = torch.rand(1, 16, 16, 3, generator=generator)
    noise = 0.1 * torch.randn(1, 16, 16, 3, generator=generator)
    shift = {"now": 0.0}

    def preview() -> Mapping[str, Tensor]:
        return {"view": (reference + shift["now"] * noise)[0], "normals": reference[0]}

    with open_stage("nerf", run_context, NerfConfig(), [], "0" * 64) as stage:
        before = stage.generator.get_state()
        watch = StageObserver(stage, 40, interval, Preview(preview), None, reference)
        for step in range(1, 41):
            shift["now"] = abs(step - 30) + 1.0
            assert watch.on_step(step, {"reference_rgb": 1.0 / step}) is None
        assert torch.equal(stage.generator.get_state(), before)
        _publish(stage)
        assert stage.published is not None
        _record(stage, stage.published, None)
    entries = _journal(store)
    curve = {entry["step"]: entry["metrics"]["nerf/psnr"] for entry in entries if "nerf/psnr" in entry.get("metrics", {})}
    assert sorted(curve) == list(shown)
    expected = float(psnr(reference + 11 * noise, reference))
    assert curve[20] == pytest.approx(expected, abs=1e-4)
    (final,) = [entry["metrics"] for entry in entries if "best/psnr" in entry.get("metrics", {})]
    assert final["best/psnr"] == pytest.approx(float(psnr(reference + noise, reference)), abs=1e-4)
    assert final["best/psnr"] > curve[40]
    assert final["best/ssim"] == pytest.approx(float(ssim(reference + noise, reference)), abs=1e-4)
    pictures = {entry["image"] for entry in entries if "image" in entry}
    assert pictures == {"nerf/view", "nerf/normals"}


def test_a_step_that_rendered_the_view_is_shown_without_drawing_it_again() -> None:
    drawn: list[int] = []

    def draw() -> Mapping[str, Tensor]:
        drawn.append(1)
        return {"view": torch.zeros(4, 4, 3)}

    shown = Preview(draw)
    assert float(shown.pictures()["view"].max()) == 0 and len(drawn) == 1
    rendered = torch.full((1, 4, 4, 3), 0.5, requires_grad=True)
    shown.keep(view=rendered, normals=rendered * 2)
    assert torch.equal(shown.pictures()["view"], torch.full((4, 4, 3), 0.5)) and len(drawn) == 1
    assert not any(picture.requires_grad for picture in shown.pictures().values())
    shown.keep()
    assert float(shown.pictures()["view"].max()) == 0 and len(drawn) == 2


def test_equal_pictures_have_no_psnr() -> None:
    picture = torch.rand(1, 16, 16, 3)
    assert reference_figures(picture, picture) == {"ssim": pytest.approx(1.0, abs=1e-5)}


def test_the_best_of_a_resumed_stage_counts_what_came_before(run_context: RunContext, store: Path) -> None:
    place = ("nerf", "nerf-0123", store, run_context.run_id, None, False)
    with open_stage("nerf", run_context, NerfConfig(), [], "0" * 64) as stage:
        _publish(stage)
        assert stage.published is not None
        first = StageProgress(*place)
        first.log(5, {"psnr": 30.0, "reference_rgb": 9.0})
        first.log(10, {"psnr": 20.0})
        second = StageProgress(*place)
        second.log(10, {"psnr": 99.0})  # computed again after a resume: the journal keeps the first
        second.log(15, {"psnr": 25.0, "sharpness": 7.0})
        done = StageRecord(
            name="nerf", state="resumed", seconds=1.0, fingerprint=stage.fingerprint, metrics=stage.published.metrics
        )
        second.finish(stage.published, done)
    lines = (store / "journals" / run_context.run_id / "nerf-0123.jsonl").read_text().splitlines()
    best = {
        key: value for line in lines for key, value in json.loads(line).get("metrics", {}).items() if key.startswith("best/")
    }
    assert best == {"best/psnr": 30.0}


@pytest.fixture
def told(run_context: RunContext, store: Path, monkeypatch: pytest.MonkeyPatch) -> StageProgress:
    """Of a stage whose tracker is due at every step and takes as long as the test wants."""
    monkeypatch.setattr(Journal, "send_is_due", lambda self: True)
    monkeypatch.setattr(Journal, "send", lambda self, place: True)
    return StageProgress("nerf", "nerf-0123", store, run_context.run_id, f"sqlite:///{store}/mlflow.db", False)


def _lines(store: Path, run_context: RunContext) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store / "journals" / run_context.run_id / "nerf-0123.jsonl").read_text().splitlines()]


def test_steps_do_not_wait_for_a_slow_tracker_and_the_journal_has_them_at_once(
    told: StageProgress, run_context: RunContext, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending, released, threads = threading.Event(), threading.Event(), []

    def slow(self: Journal, place: Place) -> None:
        threads.append(threading.current_thread())
        sending.set()
        assert released.wait(60)

    monkeypatch.setattr(Journal, "send_if_due", slow)
    told.log(1, {"psnr": 1.0})
    assert sending.wait(60)
    told.log(2, {"psnr": 2.0})
    curve = [line["metrics"]["nerf/psnr"] for line in _lines(store, run_context) if "metrics" in line]
    assert curve == [1.0, 2.0], "a step waited for the tracker, or is not on disk"
    assert len(threads) == 1 and threads[0] is not threading.current_thread()
    released.set()
    told.close()
    assert _lines(store, run_context)[-1]["status"] == "KILLED"


def test_progress_that_finds_the_thread_busy_is_told_at_the_next_step(
    told: StageProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, shares = threading.Event(), []
    monkeypatch.setattr(Journal, "send_if_due", lambda self, place: released.wait(60))
    monkeypatch.setattr(StageProgress, "_tell_prefect", lambda self, share, left: shares.append(share))
    told.log(10, {"psnr": 1.0})
    told.advance(10, 100)
    released.set()
    assert told._errand is not None
    told._errand.result(60)
    assert shares == []
    told.advance(11, 100)
    told.close()
    assert shares == [0.11]


def test_a_hung_tracker_cannot_keep_a_stopped_stage_from_saying_so(
    told: StageProgress, run_context: RunContext, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, answers = threading.Event(), []
    for limit in ("ERRAND_S", "LAST_S"):
        monkeypatch.setattr(stages.runtime.tracking.progress, limit, 0.05)
    monkeypatch.setattr(Journal, "send_if_due", lambda self, place: answers.append(released.wait(60)))
    told.log(1, {"psnr": 1.0})
    told.close()
    assert answers == [], "nobody waited for the tracker"
    assert _lines(store, run_context)[-1]["status"] == "KILLED"
    released.set()


def test_inside_a_task_run_the_next_stage_does_not_wait_for_the_last_send(
    told: StageProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, sent = threading.Event(), []
    monkeypatch.setattr(stages.runtime.tracking.progress, "in_a_task_run", lambda: True)
    monkeypatch.setattr(StageProgress, "_link_page", lambda self: "")
    monkeypatch.setattr(Journal, "send", lambda self, place: sent.append(released.wait(60)))
    told.close()
    assert sent == [] and not released.is_set()
    released.set()
    stages.runtime.tracking.progress.await_sends(60)
    assert sent == [True]
