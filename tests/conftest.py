"""What the tests share: one thread, no network, one Prefect server a session, and seven tiny stand-in stages for tests of the plumbing."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

_PREFECT_HOME = tempfile.TemporaryDirectory(prefix="prefect-")
# Before torch, prefect and mlflow are imported anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")

from flows.service.environment import quiet_environment

os.environ["PREFECT_HOME"] = _PREFECT_HOME.name
# No store there: servers that run for the checkout's own store are not the tests'.
quiet_environment(Path(_PREFECT_HOME.name))

import pytest
import torch
from hypothesis import settings
from PIL import Image

from schemas.artifacts import (
    Artifact,
    AssetArtifact,
    MeshArtifact,
    NerfArtifact,
    PolishedMeshArtifact,
    ReferenceArtifact,
    SdfArtifact,
    StageName,
    TexturedMeshArtifact,
)
from schemas.config.run import Config, PriorsConfig
from stages.runtime.command import ARTIFACTS, StageFunction
from stages.runtime.context import RunContext
from stages.runtime.stage import Stage, open_stage

torch.set_num_threads(1)


# Shared machines are noisy: a property is checked, never timed.
settings.register_profile("untimed", deadline=None, derandomize=True)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One Prefect server for the session; tests that use it carry `pytest.mark.xdist_group("prefect")`."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store; the working folder is its parent, so outputs/ lies beside it."""
    monkeypatch.setenv("DREAMPOLISH_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


@pytest.fixture(scope="session")
def empty_tracker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracker's database with its tables made, which takes seconds, once a session."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("tracker") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracker(store: Path, empty_tracker: Path) -> str:
    """The URI of an empty tracker inside the store."""
    store.mkdir()
    shutil.copyfile(empty_tracker, store / "mlflow.db")
    return f"sqlite:///{store}/mlflow.db"


@pytest.fixture
def run_context(store: Path) -> RunContext:
    """A run on the CPU without a tracker."""
    return RunContext(
        run_id="0123abcd", store=store, seed=0, device="cpu", threads=1, checkpoint_interval=2, priors=PriorsConfig()
    )


@pytest.fixture
def calls() -> list[str]:
    """The names of stand-in stages that really computed, in order."""
    return []


@pytest.fixture
def stand_ins(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> Mapping[StageName, StageFunction]:
    """Stages that write a few bytes through the real context. Flows look stages up here while the fixture is in use."""
    table: dict[StageName, StageFunction] = {name: _stand_in(name, calls) for name in ARTIFACTS}
    monkeypatch.setattr("flows.chain.stage_function", table.__getitem__)
    monkeypatch.setattr("flows.runs.chain.stage_function", table.__getitem__)
    monkeypatch.setattr("stages.runtime.stage.code_digest", lambda module, root: module)
    return table


@pytest.fixture
def config() -> Config:
    """The defaults."""
    return Config()


def _stand_in(name: StageName, calls: list[str]) -> StageFunction:
    """A stage that reads its parents as the real one does, and returns the real artifact class."""

    def compute(run: RunContext, config: object, parents: list[Artifact], inputs: dict[str, object]) -> Artifact:
        with open_stage(name, run, config, parents=parents, inputs=inputs) as stage:  # type: ignore[arg-type]
            if (done := stage.cached(ARTIFACTS[name])) is not None:
                return done
            calls.append(name)
            stage.log(1, {"psnr": 20.0})
            stage.progress(1, 1)
            return stage.publish(ARTIFACTS[name], metrics={"psnr": 20.0}, **_fields(stage, ARTIFACTS[name], inputs))

    def first(prompt: str, image: Path | None, config: object, run: RunContext) -> Artifact:
        return compute(run, config, [], {"prompt": prompt, "image": None if image is None else image.name})

    by_parents: dict[str, Callable[..., Artifact]] = {
        "reference": first,
        "nerf": lambda reference, config, run: compute(run, config, [reference], {}),
        "neus": lambda reference, nerf, config, run: compute(run, config, [reference, nerf], {}),
        "dmtet": lambda reference, neus, config, run: compute(run, config, [reference, neus], {}),
        "polish": lambda reference, dmtet, config, run: compute(run, config, [reference, dmtet], {}),
        "texture": lambda reference, polish, config, run: compute(run, config, [reference, polish], {}),
        "export": lambda reference, texture, config, run: compute(run, config, [reference, texture], {}),
    }
    return by_parents[name]


def _fields(stage: Stage, artifact_class: type[Artifact], inputs: dict[str, object]) -> dict[str, object]:
    """Small valid contents for each artifact class."""
    previews = [_png(stage.path(f"view-{index}.png"), 30 * index) for index in range(8)]
    payload = stage.path("payload.bin")
    payload.write_bytes(torch.randint(0, 256, (64,), generator=stage.generator, dtype=torch.uint8).numpy().tobytes())
    mesh = {"mesh": payload, "color_field": payload, "color_config": {}, "n_vertices": 4, "n_faces": 4}
    field = {"field": payload, "field_config": {}, "steps": 1, "switch_reason": "step cap 1"}
    picture = previews[0]
    by_class: dict[type[Artifact], dict[str, object]] = {
        ReferenceArtifact: {
            "image": picture,
            "image_rgba": picture,
            "mask": picture,
            "normals": payload,
            "candidates": None if inputs.get("image") is not None else picture,
            "prompt": str(inputs.get("prompt", "")),
            "elevation_deg": 10.0,
            "is_user_image": inputs.get("image") is not None,
        },
        NerfArtifact: {**field, "occupancy": payload},
        SdfArtifact: field,
        MeshArtifact: mesh,
        PolishedMeshArtifact: mesh,
        TexturedMeshArtifact: mesh,
        AssetArtifact: {
            "glb": payload,
            "textures": {},
            "turntable": picture,
            "n_vertices": 4,
            "n_faces": 4,
            "glb_bytes": 64,
        },
    }
    return {**by_class[artifact_class], "previews": previews}


def _png(path: Path, level: int) -> Path:
    Image.new("RGB", (16, 16), (level, level, level)).save(path)
    return path


@pytest.fixture
def priors_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prior folders that exist: the stand-in stages never open them."""
    monkeypatch.setattr("flows.runs.create.check_priors", lambda config: None)
