"""The first signal ends everything within its time, wherever it arrives; the second ends it at once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

import stages.runtime.signals
from dreampolish.optim.checkpoints import Checkpoints
from dreampolish.optim.fit import FitInterruptedError, Term, fit
from flows.runs.chain import CHAIN
from flows.runs.create import new_run
from schemas.artifacts import Artifact, NerfArtifact, ReferenceArtifact, StageName
from schemas.config.run import Config
from stages.runtime.command import main
from stages.runtime.context import RunContext
from stages.runtime.signals import StoppedError, interrupted_by_sigterm, stop_on_signals
from stages.runtime.stage import Stage, open_stage

PROJECT = Path(__file__).parents[3]
StandIn = Callable[..., Artifact]


KEY = "0" * 64


def signalled_nerf(run: RunContext, number: int) -> NerfArtifact:
    """A stage without a fit that the signal meets half-way."""
    with open_stage("nerf", run, Config().nerf, [], KEY) as stage:
        os.kill(os.getpid(), number)
        field = stage.path("field.bin")
        field.write_bytes(b"field")
        return stage.publish(
            NerfArtifact, metrics={}, field=field, field_config={}, occupancy=field, steps=1, switch_reason="cap"
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stage_that_heard_nothing_is_finished_and_the_next_does_not_begin(run_context: RunContext, number: int) -> None:
    with stop_on_signals() as stop:
        parent = signalled_nerf(run_context, number)
        assert stop.requested
        with (
            pytest.raises(StoppedError, match="stopped before the neus stage"),
            open_stage("neus", run_context, Config().neus, [parent], KEY),
        ):
            pytest.fail("the next stage began")
    assert list((run_context.store / "nerf").glob("*/artifact.json"))
    assert not (run_context.store / "neus").exists()


def test_what_never_asks_is_interrupted(run_context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf() -> None:
        with open_stage("export", run_context, Config().export, [], KEY) as stage:
            stage.path("half.bin").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)

    monkeypatch.setattr(stages.runtime.signals, "GRACE_S", 0.1)
    started = time.monotonic()
    with pytest.raises(StoppedError):
        deaf()
    assert time.monotonic() - started < 10
    assert not list((run_context.store / "work").iterdir())


class Slow:
    """Watches a fit whose checkpoint takes longer than what never asks is given."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def on_step(self, step: int, values: Mapping[str, float]) -> str | None:
        os.kill(os.getpid(), signal.SIGINT)
        return None

    def stop_requested(self) -> bool:
        return self.stage.stop_requested()


def test_a_fit_that_heard_the_signal_is_left_to_write_its_checkpoint(
    run_context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages.runtime.signals, "GRACE_S", 0.2)
    save, weight = Checkpoints.save, torch.nn.Parameter(torch.zeros(1))

    def slowly(self: Checkpoints, step: int, state: Mapping[str, object]) -> None:
        time.sleep(0.5)
        save(self, step, state)

    def losses(step: int) -> dict[str, Term]:
        return {"square": Term(weight.square().sum(), 1.0)}

    def fitted() -> None:
        with open_stage("nerf", run_context, Config().nerf, [], KEY) as stage:
            optimizer = torch.optim.SGD([weight], lr=0.1)
            fit(losses, optimizer, lambda step: 1.0, 9, stage.generator, {}, stage.checkpoints, Slow(stage))

    monkeypatch.setattr(Checkpoints, "save", slowly)
    with pytest.raises(FitInterruptedError):
        fitted()
    assert list((run_context.store / "checkpoints").glob("nerf-*/step-00000001.json"))


def test_blocks_inside_one_another_share_the_signal_and_restore_every_handler() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]
    with stop_on_signals() as outer:
        with stop_on_signals() as inner:
            os.kill(os.getpid(), signal.SIGINT)
        assert outer is inner
        assert outer.requested
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with stop_on_signals() as fresh:
        assert not fresh.requested


def test_an_inner_block_hears_what_somebody_took_from_the_outer_one() -> None:
    def taken(number: int, frame: object) -> None:
        pytest.fail("the signal went to whoever took it")

    with stop_on_signals() as outer:
        signal.signal(signal.SIGTERM, taken)
        with stop_on_signals():
            pass
        assert signal.getsignal(signal.SIGTERM) is taken
        with stop_on_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            assert outer.requested
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_sigterm_interrupts_what_is_no_stage() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(StoppedError), interrupted_by_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.usefixtures("priors_folder")
def test_a_stopped_stage_command_says_how_to_go_on(
    store: Path, stand_ins: dict[StageName, StandIn], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def reference(stage: Stage, **given: object) -> ReferenceArtifact:
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            stage.progress(1, 2)

    stand_ins["reference"] = reference
    monkeypatch.setattr(stages.runtime.signals, "GRACE_S", 0.1)
    record = new_run(store, "a chair", "smoke", [], None)
    with pytest.raises(SystemExit) as ended:
        main(CHAIN["reference"], ["--run", record.run])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "reference: stopped; the same command goes on from there\n"


DEAF = """
import signal, socket, time
import flows.service.temporary_server as temporary
from prefect import flow
from prefect.settings import PREFECT_API_URL

started = temporary._started
children = []
temporary._started = lambda *told: children.append(started(*told)) or children[-1]

def meanwhile():
    assert children and children[0].poll() is None, "it was not started before"
    time.sleep(0.5)

@flow
def ask():
    return PREFECT_API_URL.value()

with temporary.temporary_server(meanwhile):
    children[0].send_signal(signal.SIGINT)
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
    url = ask()
    time.sleep(1)
    assert children[0].poll() is None, "the server heard Ctrl-C"
    assert url.startswith("http://127.0.0.1:"), url
assert children[0].poll() is not None, "the server was left behind"
"""

ORPHAN = """
import os, signal, sys
import flows.service.temporary_server as temporary

started = temporary._started

def told(*arguments):
    child = started(*arguments)
    print(child.pid, flush=True)
    return child

temporary._started = told
with temporary.temporary_server(lambda: None):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def inside(home: Path) -> dict[str, str]:
    """The environment of a command without a configured server."""
    kept = {key: value for key, value in os.environ.items() if key != "PREFECT_API_URL"}
    return {**kept, "PYTHONPATH": str(PROJECT), "PREFECT_HOME": str(home)}


@pytest.mark.slow
def test_the_temporary_server_boots_beside_the_imports_and_is_deaf_to_the_terminals_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DEAF]
    ended = subprocess.run(command, env=inside(tmp_path), capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_the_temporary_server_ends_with_a_command_that_was_killed(tmp_path: Path) -> None:
    # Not through pipes: the server would hold them open.
    with (tmp_path / "told").open("wb") as told:
        command = [sys.executable, "-c", ORPHAN]
        ended = subprocess.run(command, env=inside(tmp_path), stdout=told, stderr=subprocess.STDOUT, check=False)
    assert ended.returncode == -signal.SIGKILL, (tmp_path / "told").read_text()
    life = Path(f"/proc/{int((tmp_path / 'told').read_text())}/cmdline")
    until = time.monotonic() + 30
    while life.exists() and life.read_bytes():
        assert time.monotonic() < until, "the server outlived its command"
        time.sleep(0.1)


@pytest.mark.slow
def test_commands_that_start_together_on_a_new_home_all_get_a_server(tmp_path: Path) -> None:
    code = "from flows.service.temporary_server import temporary_server\nwith temporary_server(lambda: None): pass"
    command = [sys.executable, "-c", code]
    begun = [subprocess.Popen(command, env=inside(tmp_path), stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [one.communicate(timeout=180)[1] for one in begun]
    assert [one.returncode for one in begun] == [0, 0, 0], said


def test_a_configured_prefect_api_needs_no_temporary_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    import flows.service.temporary_server as temporary

    monkeypatch.setattr(temporary, "_started", lambda *_told: pytest.fail("a server was started"))
    loaded: list[int] = []
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}), temporary.temporary_server(lambda: loaded.append(1)):
        assert loaded == [1] and PREFECT_API_URL.value() == "http://127.0.0.1:1/api"


def test_a_temporary_server_that_ends_at_once_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    import flows.service.temporary_server as temporary

    monkeypatch.setattr(temporary, "_started", lambda *_told: subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"]))
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(temporary.ServerError, match="ended with 3"),
        temporary.temporary_server(lambda: None),
    ):
        pass
