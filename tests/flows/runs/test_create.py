"""Runs made from others: what is stale, what a resumed run computes, and how a stop is told. Without Prefect."""

import json
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreampolish.optim.fit import FitInterruptedError
from flows.cli.command import finish
from flows.mesh_to_3d.texture import GEOMETRY_STAGES
from flows.runs.chain import CHAIN
from flows.runs.create import derived_run, new_id, new_run, stale_stages, unique_names
from flows.runs.inputs import checked_prompt, plain_prompt
from flows.text_to_3d import text_to_3d
from schemas.artifacts import Artifact, StageName
from schemas.config.presets import ConfigError
from schemas.runs import STAGES, RunRecord
from stages.runtime.command import AnyStage, run_one
from stages.runtime.errors import StageError
from stages.runtime.keys.code import Code
from stages.runtime.records import read_record, write_record

pytestmark = pytest.mark.usefixtures("priors_folder")
Table = dict[StageName, Callable[..., Artifact]]


@pytest.fixture(autouse=True)
def plain(stand_ins: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages without Prefect; the tracker is away."""
    for task in CHAIN.values():
        monkeypatch.setattr(task, "task", without_prefect(task))
    monkeypatch.setattr("stages.runtime.tracking.journal.Journal._failure", lambda self, place, wait_s: OSError("away"))


def without_prefect(task: AnyStage) -> Any:
    """What a stage's task gives, outside of any flow."""
    return lambda call, return_state, **parents: task._as_task(call, **parents)


def compute(store: Path, run: str) -> RunRecord:
    text_to_3d.fn(prompt="-", run=run)
    return read_record(store, run)


def whole(store: Path) -> RunRecord:
    return compute(store, new_run(store, "a chair", "smoke", [], None).run)


def resumed(store: Path, run: str) -> RunRecord:
    return compute(store, run)


def alone(store: Path, table: Table, name: StageName, run: str, overrides: Sequence[str]) -> None:
    run_one(CHAIN[name], run, overrides, tracking_uri=None, show_progress=False)


def test_a_stage_computed_alone_makes_what_stands_on_the_older_one_stale(store: Path, stand_ins: Table) -> None:
    record = whole(store)
    assert stale_stages(record, store, STAGES) == []
    alone(store, stand_ins, "neus", record.run, ["neus.steps=7"])
    _, stale = derived_run(store, record.run, [], GEOMETRY_STAGES, reuse_stale=True)
    assert stale == list(GEOMETRY_STAGES[GEOMETRY_STAGES.index("dmtet") :])
    _, stale = derived_run(store, record.run, ["seed=9"], GEOMETRY_STAGES, reuse_stale=True)
    assert stale == list(GEOMETRY_STAGES)


def changed_code(function: object, name: str) -> Code:
    return Code(name + ("!" if name == "dmtet" else ""), frozenset(), frozenset())


def test_changed_code_and_priors_are_stale_too(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = whole(store)
    monkeypatch.setattr("stages.runtime.stage.function_code", changed_code)
    assert stale_stages(record, store, GEOMETRY_STAGES) == ["dmtet", "polish"]


def test_a_stage_that_fails_leaves_the_runs_settings_alone(store: Path, stand_ins: dict) -> None:
    record = whole(store)

    def broken(stage: object, **given: object) -> Any:
        raise RuntimeError("out of luck")

    stand_ins["neus"] = broken
    with pytest.raises(RuntimeError, match="out of luck"):
        alone(store, stand_ins, "neus", record.run, ["neus.steps=7"])
    assert read_record(store, record.run) == read_record(store, record.run[:6]) == record


def test_settings_and_artifact_of_a_stage_enter_the_record_together(
    store: Path, stand_ins: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill right after the first write of the record finds both or neither."""
    record = whole(store)

    def killed(store: Path, record: RunRecord) -> None:
        write_record(store, record)
        raise KeyboardInterrupt

    monkeypatch.setattr("stages.runtime.records.write_record", killed)
    with pytest.raises(KeyboardInterrupt):
        alone(store, stand_ins, "neus", record.run, ["neus.steps=7"])
    after = read_record(store, record.run)
    assert after.config.neus.steps == 7
    assert after.stages["neus"].fingerprint != record.stages["neus"].fingerprint


@pytest.mark.parametrize("prompt", ["", "  ", "!!!", "42", "with the", "of 7 a", "a\x07chair"])
def test_a_prompt_without_a_word_that_names_something_is_refused(prompt: str) -> None:
    with pytest.raises(ConfigError, match="say what you want, as in: a red armchair"):
        checked_prompt(prompt)


@pytest.mark.parametrize("sign", ["\u200b", "\ufeff", "\u00ad", "\u200e", "\u200f", "\u202e", "\u2066", "\u200d", "\u2060"])
def test_format_characters_are_dropped(sign: str) -> None:
    assert checked_prompt(f"{sign}a red{sign} ch{sign}air{sign}") == "a red chair"
    with pytest.raises(ConfigError, match="empty"):
        checked_prompt(sign)


@pytest.mark.parametrize("prompt", ["cafe\u0301 table", "a chair\u2026", "a \u00bd table", "e\u200b\u0301clair", "\ufb01sh"])
def test_a_plain_prompt_stays_as_it_is(prompt: str) -> None:
    plain = plain_prompt(prompt)
    assert plain != prompt
    assert plain_prompt(plain) == plain


def test_no_run_id_can_be_read_as_a_number() -> None:
    ids = {new_id() for _ in range(2000)}
    assert len(ids) == 2000
    for each in ids:
        assert re.fullmatch(r"[a-f][0-9a-f]{7}", each)
        # What `prefect deployment run --param run=...` does before it takes a value for text.
        with pytest.raises(json.JSONDecodeError):
            json.loads(each)


def test_unique_names_neither_collide_nor_vanish() -> None:
    assert unique_names(["chair", "lamp"]) == ["chair", "lamp"]
    assert unique_names(["chair", "chair", "chair-2", "chair"]) == ["chair", "chair-3", "chair-2", "chair-4"]


def test_a_prompt_may_be_in_any_script() -> None:
    assert checked_prompt("  2  red   chairs ") == "2 red chairs"
    assert checked_prompt("椅子") == "椅子"
    assert checked_prompt("\uff21 \uff43\uff48\uff41\uff49\uff52") == "A chair"


@pytest.mark.parametrize(
    ("prompt", "overrides"),
    [
        ("a golden desk lamp", []),
        ("two red chairs", []),
        ("a traffic light", []),
        ("a child's bed", []),
        ("a woman", []),
        ("a yellow submarine", ["reference.unknown_words=allow"]),
    ],
)
def test_a_prompt_that_names_a_known_thing_or_may_name_another_makes_a_run(
    store: Path, prompt: str, overrides: list[str]
) -> None:
    assert new_run(store, prompt, "home", overrides, None).prompt == prompt


def test_beside_a_picture_any_known_word_will_do(store: Path, tmp_path: Path) -> None:
    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[20:44, 20:44] = 80
    Image.fromarray(picture).save(tmp_path / "box.png")
    record = new_run(store, "a wooden yurt", "home", [], tmp_path / "box.png")
    assert record.image is not None
    assert (store / "inputs" / record.image).read_bytes() == (tmp_path / "box.png").read_bytes()
    with pytest.raises(ConfigError, match="never seen any of: yurt"):
        new_run(store, "a yurt", "home", [], tmp_path / "box.png")


def test_an_interrupted_texture_run_is_resumed_as_it_was_begun(store: Path, stand_ins: dict, calls: list[str]) -> None:
    record = whole(store)
    derived, stale = derived_run(store, record.run, ["neus.steps=7", "texture.steps=3"], GEOMETRY_STAGES, reuse_stale=True)
    assert stale == list(GEOMETRY_STAGES[GEOMETRY_STAGES.index("neus") :])
    texture = stand_ins["texture"]

    def stopped(**_: object) -> None:
        raise FitInterruptedError(2)

    stand_ins["texture"] = lambda stage, **given: stopped()
    with pytest.raises(FitInterruptedError):
        compute(store, derived.run)
    stand_ins["texture"] = texture
    calls.clear()
    done = resumed(store, derived.run)
    assert calls == ["texture", "export"]
    assert {name: done.stages[name].fingerprint for name in GEOMETRY_STAGES} == {
        name: record.stages[name].fingerprint for name in GEOMETRY_STAGES
    }


@pytest.mark.parametrize("blocking", ["outputs", "outputs/a-chair-{run}"])
def test_outputs_are_tried_before_any_stage(store: Path, calls: list[str], blocking: str) -> None:
    record = new_run(store, "a chair", "smoke", [], None)
    path = Path(blocking.format(run=record.run))
    if path.name == "outputs":
        path.rmdir()
    path.write_text("mine")
    with pytest.raises(StageError, match=f"{path} is no folder; move it away, or call this in another folder"):
        compute(store, record.run)
    assert calls == []
    path.unlink()
    assert compute(store, record.run).output is not None


def test_where_outputs_cannot_be_written_there_is_no_run(store: Path) -> None:
    Path("outputs").write_text("mine")
    with pytest.raises(StageError, match="outputs is no folder"):
        new_run(store, "a chair", "smoke", [], None)
    assert not (store / "runs").exists()


def test_a_stop_names_the_run_that_was_stopped(
    store: Path, stand_ins: dict, calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    record = new_run(store, "a chair", "smoke", [], None)
    nerf = stand_ins["nerf"]

    def signalled(stage: Any, **given: Any) -> Any:
        new_run(store, "another chair", "smoke", [], None)
        artifact = nerf(stage, **given)
        os.kill(os.getpid(), signal.SIGTERM)
        return artifact

    stand_ins["nerf"] = signalled
    with pytest.raises(SystemExit) as ended:
        finish(lambda store: {"output": compute(store, record.run).output}, False)
    assert ended.value.code == 130
    assert capsys.readouterr().err == f"stopped before the neus stage; go on with: dreampolish resume {record.run}\n"
    assert calls == ["reference", "nerf"]
    stand_ins["nerf"] = nerf
    assert resumed(store, record.run).output is not None
    assert calls == list(STAGES)


def test_a_stopped_training_is_not_told_to_resume_a_run(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole(store)

    def training(store: Path) -> dict[str, Any]:
        raise FitInterruptedError(5)

    with pytest.raises(SystemExit) as ended:
        finish(training, False, again="the same command")
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith("stopped after step 5; checkpoint written; go on with: the same command\n")


def test_a_stop_that_could_not_be_reported_is_still_a_stop(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = new_run(store, "a chair", "smoke", [], None)

    def stopped(store: Path) -> dict[str, Any]:
        try:
            error = FitInterruptedError(5)
            error.add_note(f"dreampolish resume {record.run}")
            raise error
        except FitInterruptedError:
            # As Prefect's client does without its server.
            raise ConnectionError("connection refused")

    with pytest.raises(SystemExit) as ended:
        finish(stopped, False)
    assert ended.value.code == 130
    told = capsys.readouterr().err
    assert told == f"stopped after step 5; checkpoint written; go on with: dreampolish resume {record.run}\n"


def test_the_second_of_two_resumes_waits_and_computes_nothing(store: Path, calls: list[str]) -> None:
    record = new_run(store, "a chair", "smoke", [], None)
    # A fork each: the lock is between processes.
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                resumed(store, record.run)
                (store / f"calls-{os.getpid()}").write_text("\n".join(calls))
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    counts = sorted(len(path.read_text().split()) for path in store.glob("calls-*"))
    assert counts == [0, len(STAGES)]
    assert tuple(read_record(store, record.run).stages) == STAGES
