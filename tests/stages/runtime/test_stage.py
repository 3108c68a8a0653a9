"""Opening a stage: look-up, determinism, resumption, stops, and every way it may fail."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dreampolish.optim.fit import DivergedError, FitInterruptedError, Term, fit
from schemas.artifacts import NerfArtifact, SdfArtifact
from schemas.config.run import Config
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError
from stages.runtime.stage import Stage, _record, open_stage
from tests.support.damage import overwrite

KEY = "0" * 64


class Watch:
    """Stops a fit after a step by the real signal."""

    def __init__(self, stage: Stage, stop_after: int | None) -> None:
        self.stage, self.stop_after = stage, stop_after

    def on_step(self, step: int, values: Mapping[str, float]) -> str | None:
        self.stage.log(step, values)
        self.stage.progress(step, 9)
        if step == self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)
        return None

    def stop_requested(self) -> bool:
        return self.stage.stop_requested()


def nerf(run: RunContext, stop_after: int | None = None) -> NerfArtifact:
    """A tiny real computation: noisy descent of one linear layer."""
    with open_stage("nerf", run, Config().nerf, [], KEY) as stage:
        if (done := stage.cached(NerfArtifact)) is not None:
            _finish(stage, done)
            return done
        layer = torch.nn.Linear(3, 1)

        def losses(step: int) -> dict[str, Term]:
            points = torch.randn(8, 3, generator=stage.generator)
            return {"square": Term((layer(points) - 1).square().mean(), 1.0)}

        optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
        watch = Watch(stage, stop_after)
        fit(losses, optimizer, lambda step: 1.0, 9, stage.generator, {"layer": layer}, stage.checkpoints, watch)
        save_file(layer.state_dict(), stage.path("field.safetensors"))
        field = stage.path("field.safetensors")
        done = stage.publish(
            NerfArtifact, metrics={"psnr": 1.0}, field=field, field_config={}, occupancy=field, steps=9, switch_reason="cap"
        )
        _finish(stage, done)
        return done


def _finish(stage: Stage, artifact: NerfArtifact) -> None:
    stage.checkpoints.clear()
    _record(stage, artifact, None)


def neus(run: RunContext, parent: NerfArtifact) -> dict[str, torch.Tensor]:
    with open_stage("neus", run, Config().neus, [parent], "1" * 64) as stage:
        state = load_file(stage.locate(parent, parent.field))
        field = stage.path("sdf.safetensors")
        save_file(state, field)
        stage.publish(SdfArtifact, metrics={}, field=field, field_config={}, steps=1, switch_reason="cap")
    return state


def other_store(run: RunContext, tmp_path: Path) -> RunContext:
    return run.model_copy(update={"store": tmp_path / "other"})


def test_the_second_call_is_a_hit_and_every_computation_is_the_same(run_context: RunContext, tmp_path: Path) -> None:
    first = nerf(run_context)
    assert nerf(run_context) == first
    torch.manual_seed(123)
    again = nerf(other_store(run_context, tmp_path))
    assert again.fingerprint == first.fingerprint
    assert again.field.sha256 == first.field.sha256
    seeded = other_store(run_context, tmp_path / "seeded").model_copy(update={"seed": 1})
    assert nerf(seeded).field.sha256 != first.field.sha256


def test_an_interrupted_stage_resumes_to_the_same_bits(run_context: RunContext, tmp_path: Path) -> None:
    whole = nerf(other_store(run_context, tmp_path))
    with pytest.raises(FitInterruptedError):
        nerf(run_context, stop_after=5)
    assert list((run_context.store / "checkpoints").glob("nerf-*/step-00000005.json"))
    assert not list((run_context.store / "work").iterdir())
    assert nerf(run_context).field.sha256 == whole.field.sha256
    assert not list((run_context.store / "checkpoints").iterdir())


def test_the_second_signal_kills() -> None:
    script = (
        "import os, signal\nfrom stages.runtime.signals import stop_on_signals\n"
        "with stop_on_signals() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    assert stop.requested\n    print('first survived', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print('second survived', flush=True)\n"
    )
    project = Path(__file__).parents[3]
    ended = subprocess.run([sys.executable, "-c", script], cwd=project, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGTERM
    assert ended.stdout == "first survived\n"


def test_a_parent_is_handed_over_verified(run_context: RunContext) -> None:
    parent = nerf(run_context)
    assert set(neus(run_context, parent)) == {"weight", "bias"}


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_damaged_parent_is_refused_in_one_line(run_context: RunContext, damage: str) -> None:
    parent = nerf(run_context)
    path = run_context.store / "nerf" / parent.fingerprint / parent.field.path
    content = path.read_bytes()
    match damage:
        case "flip":
            overwrite(path, content[:-1] + bytes([content[-1] ^ 1]))
        case "truncate":
            overwrite(path, content[:-1])
        case "remove":
            path.unlink()
    with pytest.raises(StageError, match="run the nerf stage again") as caught:
        neus(run_context, parent)
    assert "\n" not in str(caught.value)


def test_a_damaged_own_result_is_computed_anew(run_context: RunContext) -> None:
    first = nerf(run_context)
    path = run_context.store / "nerf" / first.fingerprint / first.field.path
    overwrite(path, b"damaged")
    assert nerf(run_context).field == first.field
    assert path.read_bytes() != b"damaged"


def test_bad_ends_publish_nothing(run_context: RunContext) -> None:
    config = Config().nerf

    def attempt(metrics: dict[str, float], write: bool) -> None:
        with open_stage("nerf", run_context, config, [], KEY) as stage:
            field = stage.path("field.bin")
            if write:
                field.write_bytes(b"x")
            stage.publish(
                NerfArtifact, metrics=metrics, field=field, field_config={}, occupancy=field, steps=1, switch_reason=""
            )

    with pytest.raises(StageError, match="metrics.psnr is nan.*try another seed"):
        attempt({"psnr": float("nan")}, True)
    with pytest.raises(StageError, match=r"did not write field\.bin"):
        attempt({"psnr": 1.0}, False)
    with pytest.raises(StageError, match="ended without a result"), open_stage("nerf", run_context, config, [], KEY):
        pass
    with (
        pytest.raises(StageError, match="loss 'x' became nan at step 3"),
        open_stage("nerf", run_context, config, [], KEY),
    ):
        raise DivergedError("loss 'x' became nan at step 3")
    with (
        pytest.raises(StageError, match="No space left on device, .* free"),
        open_stage("nerf", run_context, config, [], KEY) as stage,
    ):
        raise OSError(28, "No space left on device", str(stage.path("field.bin")))
    assert not (run_context.store / "nerf").exists()
    assert not list((run_context.store / "work").iterdir())


def test_two_processes_compute_one_artifact_once(run_context: RunContext) -> None:
    pids = []
    for _ in range(3):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                told, publish = run_context.store / "computed", Stage.publish

                def counted(self: Stage, *arguments: object, **fields: object) -> object:
                    told.mkdir(parents=True, exist_ok=True)
                    (told / str(os.getpid())).touch()
                    return publish(self, *arguments, **fields)  # type: ignore[arg-type]

                Stage.publish = counted  # type: ignore[method-assign, assignment]
                nerf(run_context.model_copy(update={"run_id": str(os.getpid())}))
                code = 0
            finally:
                os._exit(code)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    assert len(list((run_context.store / "computed").iterdir())) == 1
    assert len(list((run_context.store / "nerf").iterdir())) == 1
    assert not list((run_context.store / "work").iterdir())
    assert nerf(run_context).steps == 9


def test_figures_and_pictures_of_a_resumed_stage_are_journalled_once(run_context: RunContext) -> None:
    with pytest.raises(FitInterruptedError):
        nerf(run_context, stop_after=5)
    nerf(run_context)
    journal = next((run_context.store / "journals" / run_context.run_id).glob("nerf-*.jsonl"))
    steps = [line for line in journal.read_text().splitlines() if "nerf/square" in line]
    assert len(steps) == 9


def test_a_resumed_stage_tells_what_all_of_it_took(run_context: RunContext) -> None:
    with pytest.raises(FitInterruptedError):
        nerf(run_context, stop_after=5)
    costs = next((run_context.store / "checkpoints").rglob("costs.json"))
    noted = json.loads(costs.read_text())
    assert set(noted) >= {"5"}
    costs.write_text(json.dumps({step: {"seconds": 1000.0, "peak_memory": 2**50} for step in noted}))
    done = nerf(run_context)
    assert 1000 < done.seconds < 2000
    assert done.peak_memory == 2**50
    assert not costs.parent.exists()


def test_a_figure_that_is_not_finite_ends_no_stage_by_itself(run_context: RunContext) -> None:
    def diverge() -> None:
        with open_stage("nerf", run_context, Config().nerf, [], KEY) as stage:
            stage.log(3, {"lora_loss": float("nan"), "psnr": 1.0})
            raise DivergedError("loss 'x' became nan at step 4")

    with pytest.raises(StageError, match="loss 'x' became nan"):
        diverge()
    journal = next((run_context.store / "journals" / run_context.run_id).glob("nerf-*.jsonl")).read_text()
    assert "nerf/psnr" in journal and "nerf/lora_loss" not in journal


def test_why_a_stage_handed_over_is_told(run_context: RunContext) -> None:
    nerf(run_context)
    journal = next((run_context.store / "journals" / run_context.run_id).glob("nerf-*.jsonl")).read_text()
    tags = [json.loads(line)["tags"] for line in journal.splitlines() if "tags" in json.loads(line)]
    assert tags[-1]["switch_reason"] == "cap"


def test_a_result_found_in_the_store_leads_to_the_run_with_its_curves(run_context: RunContext) -> None:
    other, third = (run_context.model_copy(update={"run_id": run}) for run in ("0000beef", "0000cafe"))
    nerf(run_context)
    (origin,) = (run_context.store / "journals" / run_context.run_id).glob("nerf-*.jsonl")
    for unreadable in ("00000000", "00000001"):
        (run_context.store / "journals" / unreadable).mkdir()
    (run_context.store / "journals" / "00000000" / origin.name).mkdir()
    (run_context.store / "journals" / "00000001" / origin.name).write_bytes(b'{"t": 1, "tags": 3}\n\xff{\n')
    nerf(other)
    nerf(third)
    told = {}
    for run in (run_context, other, third):
        journal = next((run_context.store / "journals" / run.run_id).glob("nerf-*.jsonl")).read_text()
        told[run.run_id] = [json.loads(line)["tags"] for line in journal.splitlines() if "tags" in json.loads(line)][-1]
    assert "computed_in" not in told[run_context.run_id]
    assert told["0000beef"]["computed_in"] == told["0000cafe"]["computed_in"] == run_context.run_id
    assert run_context.run_id in told["0000cafe"]["mlflow.note.content"]


def test_a_result_whose_journal_is_gone_leads_nowhere(run_context: RunContext) -> None:
    nerf(run_context)
    shutil.rmtree(run_context.store / "journals")
    nerf(run_context.model_copy(update={"run_id": "0000beef"}))
    (journal,) = (run_context.store / "journals" / "0000beef").glob("nerf-*.jsonl")
    assert '"cached"' in journal.read_text() and "computed_in" not in journal.read_text()


def test_pictures_are_kept_beside_the_journal(run_context: RunContext) -> None:
    with pytest.raises(StageError), open_stage("nerf", run_context, Config().nerf, [], KEY) as stage:
        stage.image("view", 3, np.full((4, 4, 3), 0.5, np.float32))
    assert len(list((run_context.store / "journals").rglob("*nerf~view-000003.png"))) == 1


def test_an_absent_device_is_refused(run_context: RunContext) -> None:
    missing = run_context.model_copy(update={"device": f"cuda:{torch.cuda.device_count()}"})
    with pytest.raises(StageError, match="no device cuda"):
        nerf(missing)
