"""What `dreampolish up` and `down` are made of: processes, their records, settings, deployments and their parameters' schemas."""

import importlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import yaml
from typer.testing import CliRunner

from flows.cli import app
from flows.runs.parameters import override_lines
from flows.service.backends.pool import BATCH_QUEUE, POOL, RUN_QUEUE
from flows.service.deployments import DEPLOYMENTS
from flows.service.environment import quiet_environment
from flows.service.marks import all_marks, at_work, note_run
from flows.service.processes import (
    MARK,
    ProcessMark,
    Service,
    live_url,
    log_path,
    mark_of,
    own_mark,
    read_service,
    refuse_taken_port,
    remove_settings_file,
    start,
    stop,
    stop_runs,
    wait_until_ready,
    write_service,
    write_settings_file,
)
from flows.service.secret import make_secret
from schemas.config.presets import ConfigError, load_config
from stages.runtime.errors import StageError
from stages.runtime.files import PROJECT

SLEEP = ["-c", "import time; time.sleep(60)"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def dead_mark() -> ProcessMark:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        mark = mark_of(process.pid)
    assert mark is not None
    return mark


def test_a_process_is_known_by_more_than_its_number() -> None:
    assert own_mark().alive
    assert not dead_mark().alive
    assert not ProcessMark(own_mark().pid, "another boot:1").alive
    assert not ProcessMark(own_mark().pid, "").alive


def test_a_service_is_started_once_noted_and_stopped_with_its_children(store: Path) -> None:
    child = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"
    )
    service = start(store, "worker", ["-c", child], {}, "")
    assert read_service(store, "worker") == service
    process = psutil.Process(service.process.pid)
    while not process.children():
        time.sleep(0.02)
    (grandchild,) = process.children()
    stop(store, service)
    assert not service.alive
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE
    assert read_service(store, "worker") is None
    stop(store, service)


def test_what_ignores_the_request_is_killed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.service.processes.STOP_LIMIT_S", 0.3)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    service = start(store, "worker", ["-c", deaf], {}, "")
    while "deaf" not in log_path(store, "worker").read_text():
        time.sleep(0.02)
    stop(store, service)
    assert not service.alive


def test_runs_are_asked_once_and_waited_for(store: Path, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    run = (
        "import signal, sys, time, pathlib\n"
        f"note = pathlib.Path({str(heard)!r})\n"
        "def on(number, frame):\n note.open('a').write('x'); time.sleep(0.5); note.open('a').write('done'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, on); note.open('a').write('up '); time.sleep(60)"
    )
    worker = start(store, "worker", ["-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {run!r}])"], {}, "")
    while not heard.exists():
        time.sleep(0.02)
    assert stop_runs(worker) == 1
    assert heard.read_text() == "up xdone"
    stop(store, worker)


def test_a_server_is_waited_for_and_one_that_ends_is_told(store: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = start(store, "server", ["-m", "http.server", str(port), "--bind", "127.0.0.1"], {}, url)
    wait_until_ready(store, server, "/")
    assert live_url(store, "server") == url
    with pytest.raises(StageError, match=f"cannot have {url}.*--port {port + 10}"):
        refuse_taken_port("server", url, port)
    stop(store, server)
    refuse_taken_port("server", url, port)
    broken = start(store, "mlflow", ["-c", "raise SystemExit('no room for a database')"], {}, url)
    with pytest.raises(StageError, match="MLflow server ended at once: no room for a database"):
        wait_until_ready(store, broken, "/")


def test_stale_records_are_no_servers(store: Path) -> None:
    write_service(store, Service("server", dead_mark(), f"http://127.0.0.1:{free_port()}"))
    assert live_url(store, "server") is None
    write_service(store, Service("server", own_mark(), f"http://127.0.0.1:{free_port()}"))
    assert live_url(store, "server") is None, "a process that does not listen is no server"
    (store / "services/server.json").write_text("{torn")
    assert read_service(store, "server") is None


def test_commands_use_the_servers_of_their_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"),
        *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    ):
        monkeypatch.setenv(name, "unset")
        monkeypatch.delenv(name)
    import os

    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        write_service(store, Service("server", own_mark(), url))
        write_service(store, Service("mlflow", own_mark(), url))
        secret, _ = make_secret(store)
        monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere.example/api")
        quiet_environment(store)
        assert "PREFECT_API_AUTH_STRING" not in os.environ, "another server is not told our secret"
        monkeypatch.delenv("PREFECT_API_URL")
        quiet_environment(store)
        assert os.environ["PREFECT_API_AUTH_STRING"] == secret
        assert f"{os.environ['MLFLOW_TRACKING_USERNAME']}:{os.environ['MLFLOW_TRACKING_PASSWORD']}" == secret
        assert os.environ["PREFECT_API_URL"] == f"{url}/api"
        assert os.environ["MLFLOW_TRACKING_URI"] == url
        monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
        quiet_environment(store)
        assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:1/api", "what a user set counts"


def test_the_settings_file_is_read_by_prefect_and_leaves_a_users_own_alone(tmp_path: Path) -> None:
    import tomllib

    server = Service("server", own_mark(), "http://127.0.0.1:4321")
    assert write_settings_file(tmp_path, server, "dreampolish:s3cret")
    path = tmp_path / "prefect.toml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith(MARK)
    assert tomllib.loads(path.read_text()) == {"api": {"url": "http://127.0.0.1:4321/api", "auth_string": "dreampolish:s3cret"}}
    remove_settings_file(tmp_path, None)
    assert path.exists(), "its server runs"
    remove_settings_file(tmp_path, server.process)
    assert not path.exists()
    write_settings_file(tmp_path, Service("server", dead_mark(), server.url), "dreampolish:s3cret")
    remove_settings_file(tmp_path, None)
    assert not path.exists(), "its server is gone"
    path.write_text("[api]\n")
    assert not write_settings_file(tmp_path, server, "dreampolish:s3cret")
    remove_settings_file(tmp_path, server.process)
    assert path.read_text() == "[api]\n"


@pytest.mark.usefixtures("store")
def test_down_without_up_is_no_mistake() -> None:
    ended = CliRunner().invoke(app, ["down"])
    assert (ended.exit_code, ended.stdout.strip()) == (0, "nothing was running")


def test_a_taken_port_is_one_line_and_nothing_is_left(store: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = CliRunner().invoke(app, ["up", "--port", str(port)])
    assert ended.exit_code == 2
    assert f"cannot have http://127.0.0.1:{port}" in ended.stderr.splitlines()[-1]
    assert list((store / "services").glob("*.json")) == []


def test_two_servers_on_one_port_are_told_so(store: Path) -> None:
    ended = CliRunner().invoke(app, ["up", "--port", "4311", "--mlflow-port", "4311"])
    assert ended.exit_code == 2
    assert ended.stderr.splitlines()[-1] == (
        "the Prefect server and the MLflow server cannot both have port 4311; name another: dreampolish up --port 4311 --mlflow-port 4312"
    )
    assert not store.exists()


def deployments() -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]}


def test_every_deployment_is_a_flow_by_module_path() -> None:
    from prefect import Flow

    content = (PROJECT / "prefect.yaml").read_text()
    assert set(deployments()) == set(DEPLOYMENTS)
    assert str(PROJECT) not in content
    assert yaml.safe_load(content)["pull"] == [], "left out, Prefect writes this machine's path into every deployment"
    for entry in deployments().values():
        module, _, name = entry["entrypoint"].rpartition(".")
        function = getattr(importlib.import_module(module), name)
        assert isinstance(function, Flow)
        assert function.name == ("dreampolish-priors" if entry["name"] == "priors" else "dreampolish")
        assert entry["work_pool"]["name"] == POOL
    queues = {name: entry["work_pool"]["work_queue_name"] for name, entry in deployments().items()}
    assert queues.pop("batch") == BATCH_QUEUE, "a batch would wait for the place that it holds itself"
    assert set(queues.values()) == {RUN_QUEUE}


def refused(entry: str, parameters: dict[str, Any]) -> bool:
    """Whether the server would refuse parameters: it holds them against this very schema before it makes a run."""
    from prefect.utilities.callables import parameter_schema

    module, _, name = deployments()[entry]["entrypoint"].rpartition(".")
    schema = parameter_schema(getattr(importlib.import_module(module), name)).model_dump_for_openapi()
    return not jsonschema.Draft202012Validator(schema).is_valid(json.loads(json.dumps(parameters)))


@pytest.mark.parametrize(
    "parameters",
    [
        {"prompt": "a table"},
        {"prompt": "a table", "preset": "smoke", "overrides": None},
        {"prompt": "a table", "overrides": {"texture": {"steps": 9}, "seed": 7, "nerf.steps": 3}},
        {
            "prompt": "a table",
            "overrides": {"texture": {"lambda_realistic": 0.8}, "texture.lambda_stable": {"start": 1, "end": 0}},
        },
        {"prompt": "a table", "run": "0123abcd"},
    ],
)
def test_right_parameters_are_taken(parameters: dict[str, Any]) -> None:
    assert not refused("full", parameters)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"prompt": ""},
        {"prompt": "!!!"},
        {"prompt": "x" * 301},
        {"prompt": "a table", "preset": "smoky"},
        {"prompt": "a table", "overrides": ["texture.steps=9"]},
        {"prompt": "a table", "overrides": {"stepps": 9}},
        {"prompt": "a table", "overrides": {"texture": {"stepps": 9}}},
        {"prompt": "a table", "overrides": {"texture": {"steps": "many"}}},
        {"prompt": "a table", "overrides": {"texture.steps": -1}},
        {"prompt": "a table", "run": "../../etc/passwd"},
    ],
)
def test_wrong_parameters_are_refused_before_a_run_exists(parameters: dict[str, Any]) -> None:
    assert refused("full", parameters)


STUDY = {"name": "x", "question": "?", "prompts": ["a chair"], "matrix": {"texture.steps": [1, 2]}}


@pytest.mark.parametrize(
    ("entry", "parameters", "taken"),
    [
        ("batch", {"prompts": ["a chair", "a table"]}, True),
        ("batch", {"prompts": "/etc/shadow"}, False),
        ("batch", {"prompts": []}, False),
        ("full", {"prompt": "a chair", "image": "0" * 64}, True),
        ("full", {"prompt": "a chair", "image": ""}, False),
        ("ablation", {"study": "polish"}, True),
        ("ablation", {"study": STUDY}, True),
        ("ablation", {"study": "/etc/passwd"}, False),
        ("ablation", {"study": "../x"}, False),
        ("ablation", {"study": {**STUDY, "file": "x"}}, False),
    ],
)
def test_parameters_carry_values_not_files(entry: str, parameters: dict[str, Any], taken: bool) -> None:
    assert refused(entry, parameters) != taken


def test_overrides_are_the_same_settings_in_both_forms() -> None:
    lines = override_lines({"texture": {"steps": 9}, "nerf.steps": 3, "device": "cpu"})
    assert lines == ["texture.steps=9", "nerf.steps=3", 'device="cpu"']
    assert override_lines(None) == []
    assert load_config("smoke", PROJECT / "configs", lines) == load_config(
        "smoke", PROJECT / "configs", ["texture.steps=9", "nerf.steps=3", "device=cpu"]
    )
    with pytest.raises(ConfigError):
        load_config("smoke", PROJECT / "configs", override_lines({"texture": {"stepps": 1}}))


@pytest.mark.prefect
@pytest.mark.xdist_group("prefect")
@pytest.mark.usefixtures("prefect_server")
def test_a_flow_is_marked_while_it_runs(store: Path) -> None:
    from prefect import flow

    @flow(name="marked", persist_result=False)
    @at_work
    def marked(fail: bool) -> list[tuple[str, str, bool]]:
        note_run(store, "0123abcd")
        if fail:
            raise RuntimeError("out of luck")
        return [(mark.flow, mark.run, mark.process.alive) for mark in all_marks(store)]

    assert marked(fail=False) == [("marked", "0123abcd", True)]
    with pytest.raises(RuntimeError):
        marked(fail=True)
    assert all_marks(store) == []
    assert at_work(lambda: 1)() == 1, "outside a flow it is a plain function"


@pytest.mark.prefect
@pytest.mark.xdist_group("prefect")
@pytest.mark.usefixtures("prefect_server")
def test_the_gpu_slot_is_taken_and_given_back_and_its_absence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from prefect import get_client

    from flows.service import deployments as services_gpu
    from flows.service.backends.pool import make_slot

    def held() -> int:
        with get_client(sync_client=True) as client:
            return client.read_global_concurrency_limit_by_name(services_gpu.GPU_SLOT).active_slots

    make_slot()
    make_slot()
    with services_gpu.gpu_slot(torch.device("cuda")):
        assert held() == 1
    assert held() == 0
    with services_gpu.gpu_slot(torch.device("cpu")):
        assert held() == 0
    monkeypatch.setattr(services_gpu, "GPU_SLOT", "no-such-slot")
    with pytest.raises(StageError, match="no GPU slot"), services_gpu.gpu_slot(torch.device("cuda")):
        pass
