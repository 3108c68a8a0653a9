"""What the tests share: one thread, no network, one Prefect server a session, and a tiny stand-in for every stage."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import get_args

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
from pydantic import BaseModel

from flows.runs.chain import CHAIN
from schemas.artifacts import (
    AnyMesh,
    Artifact,
    AssetArtifact,
    IntakeArtifact,
    NerfArtifact,
    ReferenceArtifact,
    ScoresArtifact,
    SdfArtifact,
    StageName,
    artifact_class_of,
)
from schemas.config.run import Config, PriorsConfig
from stages.runtime.context import RunContext
from stages.runtime.keys.code import Code
from stages.runtime.stage import Stage
from tests.support.s3_server import BUCKET, free_port, is_installed, s3_server

torch.set_num_threads(1)


# Shared machines are noisy: a property is checked, never timed.
settings.register_profile("untimed", deadline=None, derandomize=True)
settings.load_profile("untimed")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one group must run on one worker; versions of pytest and pytest-xdist that do not fit pass over groups without a word."""
    if hasattr(config, "workerinput") and config.getoption("loadgroup", default=False):
        alone = [item.nodeid for item in items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
        assert not alone, f"pytest-xdist finds no groups: {alone[:3]}"


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """One Prefect server for the session; tests that use it carry `pytest.mark.xdist_group("prefect")`."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """The URL of a bucket on an S3 server of this session; tests that use it are left out where none is installed."""
    if not is_installed():
        pytest.skip("needs moto[server] and s3fs")
    with s3_server(free_port()) as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield f"s3://{BUCKET}"


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


StandIn = Callable[..., Artifact]
"""A stage's function: called with the stage and its arguments by name."""


@pytest.fixture
def stand_ins(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[StageName, StandIn]:
    """Functions that write a few bytes in place of every stage's own, by name; a test may replace them. Keys, tasks and store are real."""
    table: dict[StageName, StandIn] = {name: _stand_in(name, calls) for name in CHAIN}
    for name, task in CHAIN.items():
        monkeypatch.setattr(task, "_checked", _called_from(table, name))
        if task._scorer is not None:
            monkeypatch.setattr(task, "_scorer", StandInScorer())
    monkeypatch.setattr("stages.runtime.stage.function_code", lambda function, name: fixed_code(name))
    return table


def fixed_code(name: str) -> Code:
    """A digest that no source changes."""
    return Code(name, frozenset(), frozenset())


def _called_from(table: Mapping[StageName, StandIn], name: StageName) -> StandIn:
    return lambda stage, **given: table[name](stage, **given)


class StandInScorer:
    """Eight plain pictures and a figure."""

    def key(self, run: RunContext, artifact: Artifact, reference: Artifact, settings: BaseModel) -> str:
        return hashlib.sha256(f"{artifact.fingerprint} {run.priors.clip}".encode()).hexdigest()

    def compute(self, stage: Stage, artifact: Artifact, reference: Artifact, settings: BaseModel) -> ScoresArtifact:
        views = [_png(stage.path(f"view-{index}.png"), 30 * index) for index in range(8)]
        return stage.publish(ScoresArtifact, metrics={"psnr": 20.0}, previews=views)


@pytest.fixture
def config() -> Config:
    """The defaults."""
    return Config()


def _stand_in(name: StageName, calls: list[str]) -> StandIn:
    """A function that returns the real artifact class."""

    def compute(stage: Stage, **given: object) -> Artifact:
        calls.append(name)
        stage.log(1, {"psnr": 20.0})
        stage.progress(1, 1)
        artifact_class = artifact_class_of(name)
        return stage.publish(artifact_class, metrics={}, **_fields(stage, artifact_class, given))

    return compute


def _fields(stage: Stage, artifact_class: type[Artifact], inputs: dict[str, object]) -> dict[str, object]:
    """Small valid contents for each artifact class."""
    payload = stage.path("payload.bin")
    payload.write_bytes(
        torch.randint(0, 256, (64,), generator=stage.generator, dtype=torch.uint8).numpy().tobytes()
        + stage.fingerprint.encode()
    )
    mesh = {"mesh": payload, "color_field": payload, "color_config": {}, "n_vertices": 4, "n_faces": 4}
    field = {"field": payload, "field_config": {}, "steps": 1, "switch_reason": "step cap 1"}
    picture = _png(stage.path("picture.png"), 30)
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
        **dict.fromkeys(get_args(AnyMesh), mesh),
        IntakeArtifact: {
            **mesh,
            "given": payload,
            "placement": {"up": "y", "front_deg": 0, "center": (0, 0, 0), "scale": 1, "metres_per_unit": 1},
            "only": "",
            "has_colors": True,
            "previews": [picture] * 8,
        },
        AssetArtifact: {
            "glb": payload,
            "textures": {},
            "turntable": picture,
            "n_vertices": 4,
            "n_faces": 4,
            "glb_bytes": 64,
        },
    }
    return by_class[artifact_class]


def _png(path: Path, level: int) -> Path:
    Image.new("RGB", (16, 16), (level, level, level)).save(path)
    return path


@pytest.fixture
def priors_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prior folders that exist: the stand-in stages never open them."""
    monkeypatch.setattr("flows.runs.create.check_priors", lambda config: None)
