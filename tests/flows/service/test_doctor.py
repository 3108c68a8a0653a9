"""What the doctor finds, and what it mends."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Pending, Running, Scheduled
from typer.testing import CliRunner

from flows.cli import app
from flows.runs.create import new_run
from flows.service import marks as services_marks
from flows.service.doctor import prefect_runs
from flows.service.doctor.findings import Finding
from flows.service.doctor.installation import findings, mend
from flows.service.marks import FlowMark, all_marks
from flows.service.processes import ProcessMark, Service, mark_of, own_mark, write_service
from flows.service.up import crash_left_behind
from schemas.service import ServiceSettings
from stages.runtime.tracking.journal import Journal, place_from_store, run_id_at_tracker

pytestmark = pytest.mark.usefixtures("priors_folder")


@pytest.fixture(autouse=True)
def server_or_none(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session's server may run already; only tests that ask for it see it."""
    if "prefect_server" not in request.fixturenames:
        monkeypatch.setattr("flows.service.deployments.prefect_url", lambda: None)


def lines(store: Path) -> list[str]:
    return [finding.line for finding in findings(store)]


def dead_process() -> ProcessMark:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        mark = mark_of(process.pid)
    assert mark is not None
    return mark


def test_a_new_installation_has_nothing_wrong(store: Path) -> None:
    assert lines(store) == []
    ended = CliRunner().invoke(app, ["doctor"])
    assert (ended.exit_code, ended.stdout.strip()) == (0, "nothing is wrong")


def test_services_that_ended_are_named_with_the_command(store: Path) -> None:
    for name in ("server", "mlflow", "worker"):
        write_service(store, Service(name, dead_process(), "http://127.0.0.1:1"))
    found = lines(store)
    assert [line.partition(" is gone")[0] for line in found] == ["the Prefect server", "the MLflow server", "the worker"]
    assert all(line.endswith("; dreampolish up") for line in found)
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 1
    half = CliRunner().invoke(app, ["doctor", "--mend"])
    assert half.exit_code == 1, "the worker is still gone"
    assert [line.partition(" is gone")[0] for line in lines(store)] == ["the worker"]


def test_a_server_that_does_not_answer_is_named(store: Path) -> None:
    write_service(store, Service("mlflow", own_mark(), "http://127.0.0.1:1"))
    assert lines(store) == [
        "the MLflow server runs but does not answer at http://127.0.0.1:1; dreampolish down, then dreampolish up"
    ]


def test_a_run_that_goes_on_is_not_unfinished(store: Path) -> None:
    run = new_run(store, "a chair", "smoke", [], None).run
    assert lines(store) == [f"run {run} (a chair) is unfinished; dreampolish resume {run}"]
    services_marks._write(store, FlowMark(str(uuid4()), "dreampolish", own_mark(), run))
    assert lines(store) == []


@pytest.mark.parametrize("role", ["read", "write"])
def test_a_dead_process_lock_of_dvc_is_found_and_removed(store: Path, tmp_path: Path, role: str) -> None:
    lock = tmp_path / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True)
    holder = {"pid": os.getpid(), "cmd": "dvc repro"}
    lock.write_text(json.dumps({"/somewhere": {role: [holder] if role == "read" else holder}}))
    assert lines(store) == [], "its holder lives"
    holder["pid"] = dead_process().pid
    lock.write_text(json.dumps({"/somewhere": {role: [holder] if role == "read" else holder}}))
    (line,) = lines(store)
    assert "DVC's lock" in line
    assert line.endswith(f"rm {lock}")
    assert mend(findings(store))[0].startswith("mended: DVC's lock")
    assert not lock.exists()


def test_a_low_disk_is_told(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.service.doctor.installation.LOW_DISK_BYTES", 2**62)
    (line,) = lines(store)
    assert "free at" in line


@pytest.mark.usefixtures("tracker")
def test_runs_left_open_in_mlflow_are_closed_and_those_that_go_on_are_not(store: Path, tracker: str) -> None:
    from mlflow import MlflowClient

    run, place = new_run(store, "a chair", "smoke", [], None).run, place_from_store(store, tracker)
    folder = store / "journals" / run
    for name in ("run", "nerf-0123456789ab"):
        journal = Journal(folder, name, name, {"prompt": '"status":"FINISHED"'})
        journal.metrics(1, {"nerf/psnr": 20.0})
        assert journal.send(place)
    (store / "locks").mkdir()
    with (store / "locks" / f"run-{run}").open("ab") as one, (store / "locks/nerf-0123456789abcdef").open("ab") as two:
        fcntl.flock(one, fcntl.LOCK_EX)
        fcntl.flock(two, fcntl.LOCK_EX)
        assert not any("open in MLflow" in line for line in lines(store)), "both are being computed"
    (finding,) = (finding for finding in findings(store) if "open in MLflow" in finding.line)
    assert "(nerf-0123456789ab, run)" in finding.line
    mend([finding])
    client = MlflowClient(tracking_uri=tracker)
    assert [client.get_run(run_id_at_tracker(folder, name)).info.status for name in ("run", "nerf-0123456789ab")] == [
        "KILLED"
    ] * 2
    assert not any("open in MLflow" in line for line in lines(store))


def started_run(folder: Path, state: str, process: str | None) -> FlowRun:
    """A flow run of the pool in a state, with the process that its worker noted, if it got so far."""
    from prefect import get_client

    from flows.service.backends.pool import POOL, make_pool
    from flows.text_to_3d import text_to_3d

    make_pool(ServiceSettings())
    with get_client(sync_client=True) as client:
        made = client.create_flow_run(
            text_to_3d, parameters={"prompt": "a chair"}, state=Scheduled(), work_pool_name=POOL, work_queue_name="default"
        )
        client.set_flow_run_state(made.id, {"Pending": Pending, "Running": Running}[state](), force=True)
        if process is not None:
            client.update_flow_run(made.id, infrastructure_pid=process)
        return client.read_flow_run(made.id)


def states(*runs: FlowRun) -> list[str | None]:
    from prefect import get_client

    with get_client(sync_client=True) as client:
        return [client.read_flow_run(run.id).state_name for run in runs]


def no_answer(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://127.0.0.1:1")
    return httpx.HTTPStatusError("no answer", request=request, response=httpx.Response(status, request=request))


class Asked:
    """A question whose first attempts fail."""

    def __init__(self, *failures: httpx.HTTPError) -> None:
        self.failures, self.times = list(failures), 0

    def __call__(self) -> list[Finding]:
        self.times += 1
        if self.failures:
            raise self.failures.pop(0)
        return [Finding("no worker is up")]


@pytest.mark.parametrize("failures", [(), (httpx.ReadTimeout("late"),), (no_answer(503), httpx.ConnectError("gone"))])
def test_a_server_that_gives_no_answer_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, failures: tuple[httpx.HTTPError, ...]
) -> None:
    monkeypatch.setattr(prefect_runs, "PAUSES_S", (0.0, 0.0))
    question = Asked(*failures)
    assert [finding.line for finding in prefect_runs.asked_again(question)] == ["no worker is up"]
    assert question.times == len(failures) + 1


@pytest.mark.parametrize(("status", "times"), [(401, 1), (503, 3)])
def test_a_server_that_refuses_is_asked_once_and_one_that_stays_away_three_times(
    monkeypatch: pytest.MonkeyPatch, status: int, times: int
) -> None:
    monkeypatch.setattr(prefect_runs, "PAUSES_S", (0.0, 0.0))
    question = Asked(*[no_answer(status)] * 4)
    with pytest.raises(httpx.HTTPStatusError):
        prefect_runs.asked_again(question)
    assert question.times == times


class TestServed:
    """With a Prefect server."""

    pytestmark = [pytest.mark.prefect, pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_server")]

    def test_a_killed_run_becomes_crashed(self, store: Path) -> None:
        from prefect import get_client
        from prefect.states import Running

        from flows.text_to_3d import text_to_3d

        with get_client(sync_client=True) as client:
            killed = client.create_flow_run(text_to_3d, parameters={"prompt": "a chair"}, state=Running())
            client.set_flow_run_state(killed.id, Running(), force=True)
        services_marks._write(store, FlowMark(str(killed.id), "dreampolish", dead_process(), "0123abcd"))
        found = [finding for finding in findings(store) if "killed" in finding.line]
        assert len(found) == 1
        assert "run 0123abcd was killed" in found[0].line
        assert found[0].line.endswith("dreampolish resume 0123abcd")
        assert mend(found)[0].startswith("mended: run 0123abcd")
        with get_client(sync_client=True) as client:
            assert client.read_flow_run(killed.id).state.name == "Crashed"
        assert all_marks(store) == []

    @pytest.mark.parametrize("state", ["Pending", "Running"])
    def test_a_start_whose_process_is_gone_is_a_crash(self, store: Path, tmp_path: Path, state: str) -> None:
        """Its worker was killed as well, so nobody else would ever tell Prefect, and its place in the queue would be taken for good."""
        killed = started_run(tmp_path, state, str(dead_process().pid))
        living = started_run(tmp_path, state, str(os.getpid()))
        store.mkdir()
        found = [finding for finding in findings(store) if killed.name in finding.line]
        assert [finding.line for finding in found] == [
            f"flow run {killed.name} is {state} in Prefect, but its process is gone, and its place in the queue is taken; "
            "dreampolish doctor --mend"
        ]
        assert not any(living.name in line for line in lines(store))
        mend(found)
        assert states(killed, living) == ["Crashed", state]

    def test_a_start_that_its_worker_did_not_survive_is_a_crash(self, store: Path, tmp_path: Path) -> None:
        taken = started_run(tmp_path, "Pending", None)
        write_service(store, Service("worker", dead_process(), ""))
        assert any(taken.name in line for line in lines(store)), "no worker is left that could start it"
        write_service(store, Service("worker", own_mark(), ""))
        assert not any(taken.name in line for line in lines(store)), "this worker was up before, and is starting it"

    def test_up_crashes_what_a_killed_worker_left_behind(self, store: Path, tmp_path: Path) -> None:
        starting, running = (started_run(tmp_path, state, str(dead_process().pid)) for state in ("Pending", "Running"))
        store.mkdir()
        services_marks._write(store, FlowMark(str(running.id), "dreampolish", dead_process(), "f123abcd"))
        told = crash_left_behind(store)
        assert states(starting, running) == ["Crashed", "Crashed"]
        assert any("run f123abcd was killed while it ran" in line and "dreampolish resume f123abcd" in line for line in told)
        assert any(starting.name in line and line.endswith("it is marked crashed") for line in told)
        assert crash_left_behind(store) == []

    def test_what_a_server_lacks_is_told_with_the_command(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("flows.service.doctor.prefect_runs.POOL", "no-such-pool")
        monkeypatch.setattr("flows.service.doctor.prefect_runs.GPU_SLOT", "no-such-slot")
        store.mkdir()
        lacking = [line for line in lines(store) if "flow run" not in line]
        assert [line.partition(":")[0].partition(",")[0] for line in lacking] == [
            "Prefect has no work pool no-such-pool",
            "Prefect has no GPU slot no-such-slot",
            "Prefect does not have the deployments full",
        ]
        assert all(line.endswith("dreampolish up") for line in lacking)

    def test_no_worker_a_paused_pool_and_a_dead_slot_holder_are_told(self, store: Path, tmp_path: Path) -> None:
        from prefect import get_client

        from flows.service.backends.pool import GPU_SLOT, make_pool, make_slot
        from flows.service.deployments import pause_pool_without_others

        make_pool(ServiceSettings())
        make_slot()
        pause_pool_without_others(store)
        with get_client(sync_client=True) as client:
            client.increment_concurrency_slots(names=[GPU_SLOT], slots=1, mode="concurrency")
        store.mkdir()
        found = findings(store)
        assert any("is paused" in finding.line for finding in found)
        assert any(finding.line.startswith("no worker is up") for finding in found)
        (held,) = (finding for finding in found if "GPU slot is held" in finding.line)
        mend([held])
        assert not any("GPU slot is held" in line for line in lines(store))
        make_pool(ServiceSettings())
        assert not any("is paused" in line for line in lines(store))
