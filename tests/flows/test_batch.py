"""Many prompts: one run each, failures apart, the finished skipped."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.batch import BatchIncompleteError, batch, fit_queue, listed, prepared, read_prompts, refuse_without_worker
from flows.runs.create import new_run
from flows.runs.inputs import checked_prompt
from flows.text_to_3d import text_to_3d
from schemas.artifacts import Artifact, StageName
from schemas.config.presets import ConfigError
from schemas.runs import STAGES
from stages.runtime.errors import StageError
from stages.runtime.records import newest_records, read_record
from stages.runtime.stage import Stage

StandIn = Callable[..., Artifact]


def test_a_file_becomes_prompts_without_repetitions(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("\ufeffa red chair\n\n  a  table \n# a comment\na red chair\n", encoding="utf-8")
    assert read_prompts(path) == ["a red chair", "a table"]


@pytest.mark.parametrize(
    ("content", "words"), [(None, "cannot be read"), (b"\xff\xfe\x00", "UTF-8"), (b"\n# none\n", "holds no prompt")]
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        read_prompts(path)
    with pytest.raises(ConfigError, match="limit is 1000"):
        listed([f"chair {number}" for number in range(1001)], "the list")


@pytest.mark.usefixtures("priors_folder", "store")
def test_settings_that_would_fail_every_run_are_refused_before_any(store: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting"):
        prepared(store, ["a chair"], "smoke", ["nerf.stepps=1"])
    assert newest_records(store) == []


def _served(deployment: str, parameters: Mapping[str, Any], **_: Any) -> Any:
    """What a worker does with a submitted run, at once and in this process."""
    assert deployment == "dreampolish/full"
    state: Any = text_to_3d(**parameters, return_state=True)
    return SimpleNamespace(id=state.state_details.flow_run_id)


pooled = [pytest.mark.prefect, pytest.mark.xdist_group("prefect")]


class TestServed:
    """With a Prefect server, its pool and queues."""

    pytestmark = [*pooled, pytest.mark.usefixtures("prefect_server", "tracker", "stand_ins", "priors_folder")]

    @pytest.fixture(autouse=True)
    def pool(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from flows.service.backends.pool import make_pool
        from flows.service.deployments import _make_queues
        from schemas.service import ServiceSettings

        for _ in range(2):
            make_pool(ServiceSettings())
            _make_queues(1)
        monkeypatch.setattr("flows.batch.run_deployment", _served)
        monkeypatch.setattr("flows.batch.POLL_S", 0.05)

    def test_without_a_worker_nothing_begins(self, store: Path) -> None:
        with pytest.raises(StageError, match="no worker is up.*dreampolish up"):
            refuse_without_worker()
        with pytest.raises(StageError, match="no worker"):
            batch(prompts=["a chair"], preset="smoke")
        assert newest_records(store) == []

    def test_failures_are_apart_and_a_second_call_does_only_what_is_left(
        self, store: Path, calls: list[str], stand_ins: dict[StageName, StandIn], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flows.batch.online_workers", lambda client: ["one", "two"])
        whole = stand_ins["reference"]

        def unlucky(stage: Stage, **given: Any) -> Artifact:
            if "lamp" in given["prompt"]:
                raise StageError("the picture shows nothing", None, "use another seed")
            return whole(stage, **given)

        monkeypatch.setitem(stand_ins, "reference", unlucky)
        prompts = ["a chair", "a lamp", "!!!", "a dragon", "a table"]
        with pytest.raises(
            BatchIncompleteError, match="3 of 5 prompts failed, first 'a lamp': the picture shows nothing"
        ) as caught:
            batch(prompts=prompts, preset="smoke")
        first = caught.value.result
        assert [row["outcome"] for row in first["prompts"]] == ["done", "failed", "failed", "failed", "done"]
        assert "no readable words" in first["prompts"][2]["message"]
        assert "never seen any of: dragon" in first["prompts"][3]["message"]
        assert first["prompts"][3]["run"] == "", "what is refused at the door has no run"
        assert all((Path(row["message"]) / "asset.glb").is_file() for row in first["prompts"] if row["outcome"] == "done")
        calls.clear()
        monkeypatch.setitem(stand_ins, "reference", whole)
        second = batch(prompts=prompts[:2], preset="smoke")
        assert [row["outcome"] for row in second["prompts"]] == ["skipped", "done"]
        assert second["prompts"][1]["run"] == first["prompts"][1]["run"], "the run that failed goes on"
        assert calls == list(STAGES)
        third = batch(prompts=prompts[:2], preset="smoke", overrides={"texture": {"steps": 2}})
        assert [row["outcome"] for row in third["prompts"]] == ["done", "done"], "other settings, other runs"

    def test_what_another_machine_made_is_written_here(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("flows.batch.online_workers", lambda client: ["one"])
        monkeypatch.setattr("flows.batch.shared_url", lambda: "file:///shared")

        def served_elsewhere(deployment: str, parameters: Mapping[str, Any], **given: Any) -> Any:
            """Its outputs lie on that machine."""
            made = _served(deployment, parameters, **given)
            shutil.rmtree(read_record(store, parameters["run"]).output or "")
            return made

        monkeypatch.setattr("flows.batch.run_deployment", served_elsewhere)
        (done,) = batch(prompts=["a chair"], preset="smoke")["prompts"]
        assert done["outcome"] == "done"
        assert (Path(done["message"]) / "asset.glb").is_file()
        shutil.rmtree(done["message"])
        (skipped,) = batch(prompts=["a chair"], preset="smoke")["prompts"]
        assert skipped == {**done, "outcome": "skipped"}
        assert (Path(skipped["message"]) / "report.html").is_file()

    def test_a_stopped_batch_takes_back_what_has_not_begun(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from prefect import get_client
        from prefect.states import Scheduled

        monkeypatch.setattr("flows.batch.online_workers", lambda client: ["one"])
        submitted = []

        def scheduled(deployment: str, parameters: Mapping[str, Any], **_: Any) -> Any:
            with get_client(sync_client=True) as client:
                submitted.append(client.create_flow_run(text_to_3d, parameters=dict(parameters), state=Scheduled()).id)
            return SimpleNamespace(id=submitted[-1])

        def stopped(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("flows.batch.run_deployment", scheduled)
        monkeypatch.setattr("flows.batch.wait", stopped)
        with pytest.raises(KeyboardInterrupt):
            batch(prompts=["a chair", "a table"], preset="smoke")
        with get_client(sync_client=True) as client:
            assert [client.read_flow_run(each).state.name for each in submitted] == ["Cancelled"] * 2

    def test_as_many_runs_go_at_once_as_there_are_workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from prefect import get_client

        from flows.service.backends.pool import POOL, RUN_QUEUE

        with get_client(sync_client=True) as client:
            for workers, limit in ((3, 3), (2, 3)):
                monkeypatch.setattr("flows.batch.online_workers", lambda client, workers=workers: ["one"] * workers)
                fit_queue(client)
                assert client.read_work_queue_by_name(RUN_QUEUE, work_pool_name=POOL).concurrency_limit == limit


@pytest.mark.usefixtures("priors_folder")
@pytest.mark.parametrize("prompt", ["a cafe\u0301 chair", "a chair\u2026", "a \u00bd chair", "a\u200b chair", " a  chair "])
def test_a_prompt_is_found_again_however_it_is_written(store: Path, prompt: str) -> None:
    (first,) = prepared(store, listed([prompt], "the list"), "smoke", [])
    (again,) = prepared(store, listed([prompt, checked_prompt(prompt)], "the list"), "smoke", [])
    assert again.run == first.run != ""
    assert len(newest_records(store)) == 1


@pytest.mark.usefixtures("priors_folder")
def test_a_run_of_other_settings_is_not_taken_for_the_same(store: Path) -> None:
    new_run(store, "a chair", "smoke", ["seed=5"], None)
    same = new_run(store, "a chair", "smoke", [], None)
    (entry,) = prepared(store, ["a chair"], "smoke", [])
    assert (entry.run, entry.outcome) == (same.run, None)
