"""Strangers are kept out of what `dreampolish up` and single commands start, and who knows the secret is let in."""

import asyncio
import base64
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from flows.service.apps import Guard
from flows.service.processes import Service, own_mark, write_settings_file
from flows.service.secret import export_line, make_secret, new_secret, read_secret, secret_path
from stages.runtime.files import PROJECT

SECRET = "dreampolish:s3cret"
HOST = {"host": "127.0.0.1:4200"}
BASIC = {"authorization": "Basic " + base64.b64encode(SECRET.encode()).decode()}
PICTURE = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
LINK = {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answered(headers: Mapping[str, str], secret: str | None = None, method: str = "GET", kind: str = "http") -> Any:
    """The status with which a guarded application answers; for a websocket, what it does."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200} if kind == "http" else {"type": "websocket.accept"})

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "method": method, "path": "/", "headers": raw}
    asyncio.run(Guard(app, 4200, secret)(scope, None, send))  # type: ignore[arg-type]
    return sent[0].get("status", sent[0]["type"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (HOST, 200),
        ({"host": "localhost:4200"}, 200),
        ({}, 403),
        ({"host": "evil.example:4200"}, 403),
        ({"host": "127.0.0.1:4201"}, 403),
        ({"host": "127.0.0.1:4200.evil.example"}, 403),
        ({**HOST, "origin": "http://127.0.0.1:4200"}, 200),
        ({**HOST, **PICTURE, "origin": "http://localhost:4200"}, 200),
        ({**HOST, "origin": "http://evil.example"}, 403),
        ({**HOST, "origin": "http://127.0.0.1:8000"}, 403),
        ({**HOST, "origin": "null"}, 403),
        ({**HOST, **PICTURE}, 403),
        ({**HOST, **PICTURE, "sec-fetch-site": "same-site"}, 403),
        ({**HOST, **PICTURE, "sec-fetch-site": "same-origin"}, 200),
        ({**HOST, **LINK}, 200),
        ({**HOST, **LINK, "sec-fetch-dest": "iframe"}, 403),
    ],
)
def test_only_requests_meant_for_the_server_get_in(headers: Mapping[str, str], status: int) -> None:
    assert answered(headers) == status
    socket_end = "websocket.accept" if status == 200 and headers.get("sec-fetch-mode") != "navigate" else "websocket.close"
    assert answered(headers, kind="websocket") == socket_end


def test_a_form_of_another_site_does_not_get_in() -> None:
    assert answered({**HOST, **LINK}, method="POST") == 403


def test_a_doubled_header_counts_as_none() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pytest.fail("let in")

    async def send(message: Any) -> None:
        assert message.get("status", 403) == 403

    headers = [(b"host", b"127.0.0.1:4200"), (b"host", b"evil.example")]
    asyncio.run(Guard(app, 4200)({"type": "http", "method": "GET", "headers": headers}, None, send))  # type: ignore[arg-type]


def test_the_guards_own_secret() -> None:
    wrong = {"authorization": "Basic " + base64.b64encode(b"dreampolish:guess").decode()}
    assert [answered({**HOST, **given}, SECRET) for given in ({}, wrong, BASIC)] == [401, 401, 200]
    assert answered({**BASIC, "host": "evil.example"}, SECRET) == 403, "a browser sends what it remembers"
    assert answered({**HOST, **BASIC, "origin": "http://evil.example"}, SECRET) == 403
    assert answered(HOST, SECRET, kind="websocket") == "websocket.close"


def test_the_secret_is_made_once_and_is_its_owners_alone(store: Path) -> None:
    assert read_secret(store) is None
    secret, fresh = make_secret(store)
    assert fresh and len(secret) > 50
    assert make_secret(store) == (secret, False)
    path = secret_path(store)
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    path.chmod(0o644)
    make_secret(store)
    assert path.stat().st_mode & 0o777 == 0o600
    for broken in ("", "dreampolish:", "somebody:else", "dreampolish:a b"):
        path.write_text(broken)
        assert read_secret(store) is None
    assert make_secret(store)[1], "one that cannot be used is made anew"
    assert new_secret() != new_secret()


def test_the_export_line_is_a_shells(store: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a store; with 'odd' name"
    secret, _ = make_secret(odd)
    line = export_line(odd, "http://127.0.0.1:1/api")
    assert secret not in line
    shown = subprocess.run(["sh", "-c", f"{line}; env"], capture_output=True, text=True, check=True).stdout
    assert f"PREFECT_API_AUTH_STRING={secret}" in shown.splitlines()


def test_git_does_not_see_the_settings_file(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "other.txt").touch()
    for _ in range(2):
        write_settings_file(inner, Service("server", own_mark(), "http://127.0.0.1:1"), SECRET)
    seen = subprocess.run(["git", "status", "--short", "-uall"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert seen.stdout == "?? inner/other.txt\n"
    assert (tmp_path / ".git/info/exclude").read_text().count("/inner/prefect.toml") == 1


INSIDE = """
import httpx
from prefect import flow
from prefect.settings import PREFECT_API_URL
from flows.service.temporary_server import temporary_server

@flow
def ask():
    api = PREFECT_API_URL.value()
    return [
        httpx.post(f"{api}/flows/filter", json={}).status_code,
        httpx.post(f"{api}/flows/filter", json={}, headers={"host": "evil.example"}).status_code,
        httpx.get(f"{api}/health", headers={"origin": "http://evil.example"}).status_code,
    ]

with temporary_server(lambda: None):
    print(ask())
"""


@pytest.mark.slow
def test_the_temporary_server_of_a_command_is_closed_too(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_API")}
    inside = {**environment, "PYTHONPATH": str(PROJECT), "PREFECT_HOME": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", INSIDE], env=inside, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == "[401, 403, 403]", ended.stderr


class Running:
    """What `dreampolish up` started in a folder of its own, and commands in its environment."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root, root / "store"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        self.environment = {**kept, "PYTHONPATH": str(PROJECT), "DREAMPOLISH_STORE": str(self.store)}
        self.prefect, self.mlflow = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.watch = ""

    def python(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *arguments]
        inside = {**self.environment, **environment}
        return subprocess.run(command, cwd=self.root, env=inside, capture_output=True, text=True, timeout=600, check=False)

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.python("-m", "flows.cli", *arguments)

    @property
    def auth(self) -> tuple[str, str]:
        user, _, password = (read_secret(self.store) or "").partition(":")
        return user, password


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Real servers and a real worker, once for the module."""
    services = Running(tmp_path_factory.mktemp("up"))
    ports = [url.rpartition(":")[2] for url in (services.prefect, services.mlflow)]
    begun = services.command("up", "--port", ports[0], "--mlflow-port", ports[1], "--watch-port", str(free_port()), "--json")
    try:
        assert begun.returncode == 0, begun.stderr
        services.watch = json.loads(begun.stdout.splitlines()[-1])["watch"]
        yield services
    finally:
        services.command("down")


@pytest.mark.slow
@pytest.mark.xdist_group("up")
def test_strangers_are_refused_on_every_path(running: Running) -> None:
    guarded = ["/", "/health", "/version", "/static/x", "/api/2.0/mlflow/experiments/search", "/api/3.0/mlflow/server-info"]
    assert {httpx.get(running.mlflow + path).status_code for path in guarded} == {401}
    with httpx.Client(base_url=f"{running.prefect}/api", timeout=60) as stranger:
        assert stranger.get("/version").status_code == 401
        assert stranger.post("/deployments/filter", json={}).status_code == 401
        assert stranger.post("/deployments/filter", json={}, auth=("dreampolish", "guess")).status_code == 401
        let_in = stranger.post("/deployments/filter", json={}, auth=running.auth)
        assert {entry["name"] for entry in let_in.json()} >= {"full", "batch"}
    assert httpx.get(f"{running.mlflow}/version", auth=running.auth).status_code == 200
    for path in ("/", "/rows", "/runs/abcd1234", "/runs/abcd1234/state", "/static/x"):
        assert httpx.get(running.watch + path).status_code == 401
        assert httpx.get(running.watch + path, auth=("dreampolish", "guess")).status_code == 401
    assert "No runs yet" in httpx.get(running.watch, auth=running.auth).text


@pytest.mark.slow
@pytest.mark.xdist_group("up")
def test_strangers_pages_are_refused_even_with_the_secret(running: Running) -> None:
    foreign = [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}, PICTURE]
    for url in (
        f"{running.prefect}/api/version",
        f"{running.prefect}/api/health",
        running.prefect,
        f"{running.mlflow}/health",
        running.watch,
    ):
        for headers in foreign:
            answer = httpx.get(url, headers=headers, auth=running.auth)
            assert answer.status_code == 403
            assert not [name for name in answer.headers if name.startswith("access-control")]
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    assert httpx.options(f"{running.prefect}/api/deployments/filter", headers=asked).status_code == 403
    own = httpx.options(f"{running.prefect}/api/deployments/filter", headers={**asked, "origin": running.prefect})
    assert own.headers["access-control-allow-origin"] == running.prefect


@pytest.mark.slow
@pytest.mark.xdist_group("up")
def test_the_drive_by_of_a_web_page_makes_no_run(running: Running) -> None:
    """What ../shared/cases/service/drive_by.html does, with the headers that its browser sends."""
    with httpx.Client(base_url=f"{running.prefect}/api", timeout=60) as client:
        (full,) = [d for d in client.post("/deployments/filter", json={}, auth=running.auth).json() if d["name"] == "full"]
        body = {
            "parameters": {"prompt": "a red chair"},
            "job_variables": {"command": "sh -c id"},
            "state": {"type": "SCHEDULED"},
        }
        path = f"/deployments/{full['id']}/create_flow_run"
        page = {"origin": "http://127.0.0.1:8765", "sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}
        assert client.post(path, json=body, headers=page).status_code == 403
        assert client.post(path, json=body).status_code == 401
        assert client.post("/flow_runs/count", json={}, auth=running.auth).json() == 0


@pytest.mark.slow
@pytest.mark.xdist_group("up")
def test_priors_are_registered_and_a_crash_is_told(running: Running) -> None:
    models = httpx.get(f"{running.mlflow}/api/2.0/mlflow/registered-models/search", auth=running.auth, timeout=60).json()
    aliases = {model["name"]: [each["alias"] for each in model["aliases"]] for model in models["registered_models"]}
    assert aliases == {f"dreampolish-{part}": ["home"] for part in ("text", "view", "normals", "judge", "autoencoder")}
    with httpx.Client(base_url=f"{running.prefect}/api", timeout=60, auth=running.auth) as client:
        (flow,) = client.post("/flows/filter", json={"limit": 1}).raise_for_status().json()
        made = client.post("/flow_runs/", json={"flow_id": flow["id"], "name": "lost"}).raise_for_status().json()
        crashed = {"state": {"type": "CRASHED", "name": "Crashed", "message": "its process is gone"}, "force": True}
        client.post(f"/flow_runs/{made['id']}/set_state", json=crashed).raise_for_status()
        until = time.monotonic() + 120
        while "lost crashed" not in (told := httpx.get(running.watch, auth=running.auth, timeout=60).text):
            assert time.monotonic() < until, "no notice"
            time.sleep(2)
        assert "its process is gone" in told
        client.delete(f"/flow_runs/{made['id']}").raise_for_status()


@pytest.mark.slow
@pytest.mark.xdist_group("up")
def test_a_stranger_cannot_listen_to_events(running: Running) -> None:
    from websockets.sync.client import connect

    page = running.prefect.replace("http", "ws")
    with connect(f"{page}/api/events/out", subprotocols=["prefect"]) as listening:  # type: ignore[list-item]
        listening.send(json.dumps({"type": "auth", "token": None}))
        with pytest.raises(Exception, match="1008"):
            listening.recv(timeout=30)
    with pytest.raises(Exception, match="403"):
        connect(f"{page}/api/events/out", origin="http://evil.example")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.xdist_group("up")
def test_a_deployed_run_works_and_the_secret_is_in_no_other_file(running: Running) -> None:
    parameters = ["--param", "prompt=a wooden table", "--param", "preset=smoke"]
    ran = running.python("-m", "prefect", "deployment", "run", "dreampolish/full", *parameters, "--watch")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = httpx.post(
        f"{running.mlflow}/api/2.0/mlflow/runs/search", json={"experiment_ids": ["0", "1"]}, auth=running.auth, timeout=60
    )
    assert len(found.json()["runs"]) > 1, "the run told MLflow of its stages"
    doctor = running.command("doctor")
    assert "MLflow" not in doctor.stdout and "Prefect" not in doctor.stdout, doctor.stdout
    password = running.auth[1].encode()
    encoded = base64.b64encode(":".join(running.auth).encode())
    holding = [
        path for path in running.store.rglob("*") if path.is_file() and any(s in path.read_bytes() for s in (password, encoded))
    ]
    assert holding == [secret_path(running.store)]


@pytest.mark.slow
@pytest.mark.xdist_group("up")
def test_doctor_tells_a_wrong_and_a_missing_secret_from_a_missing_server(running: Running) -> None:
    path = secret_path(running.store)
    kept = path.read_text()
    try:
        path.write_text("dreampolish:another\n")
        assert f"the Prefect server at {running.prefect} runs, but does not take the secret" in running.command("doctor").stdout
        path.unlink()
        assert f"the Prefect server at {running.prefect} runs, but its secret is missing" in running.command("doctor").stdout
    finally:
        path.write_text(kept)
    path.chmod(0o644)
    assert f"chmod 600 {path}" in running.command("doctor", "--mend").stdout
    assert path.stat().st_mode & 0o777 == 0o600
    elsewhere = {"DREAMPOLISH_STORE": str(running.root / "other"), "PREFECT_API_URL": f"{running.prefect}/api"}
    (running.root / "other").mkdir()
    told = running.python("-m", "flows.cli", "doctor", **elsewhere, PREFECT_API_AUTH_STRING="dreampolish:old")
    assert "asks for a secret and PREFECT_API_AUTH_STRING is wrong" in told.stdout
    gone = running.python("-m", "flows.cli", "doctor", **{**elsewhere, "PREFECT_API_URL": "http://127.0.0.1:9/api"})
    assert "gives no answer" in gone.stdout


@pytest.mark.slow
@pytest.mark.xdist_group("up")
def test_elsewhere_the_export_line_lets_one_in(running: Running, tmp_path: Path) -> None:
    line = export_line(running.store, f"{running.prefect}/api")
    listing = f"{line}; {shlex.quote(sys.executable)} -m prefect deployment ls"
    told = subprocess.run(
        ["sh", "-c", listing], cwd=tmp_path, env=running.environment, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0 and "dreampolish/full" in told.stdout
