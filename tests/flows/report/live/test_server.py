"""The page of runs: closed to strangers, read-only, and true to what a run is doing."""

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from flows.cli import app
from flows.report.live.server import watch_app
from flows.report.live.state import WORDS, run_state, view_of
from flows.report.output import write_output
from flows.runs.chain import CHAIN
from flows.runs.create import new_run
from schemas.artifacts import StageName
from schemas.runs import STAGES, RunRecord
from stages.runtime.command import run_lock, run_one
from stages.runtime.records import read_record
from stages.runtime.signals import StopSignal
from stages.runtime.store import LocalStore
from stages.runtime.tracking.journal import Journal
from stages.runtime.tracking.live import LiveStage, live_folder
from stages.runtime.tracking.notices import write_notice

SECRET = "dreampolish:s3cret"
EVIL = 'a <script>alert("x")</script> chair & </script> <img src=x onerror=alert(1)>'
PORT = 4300
HOST = f"http://127.0.0.1:{PORT}"
AUTH = ("dreampolish", "s3cret")


@pytest.fixture
def record(store: Path, stand_ins: object, priors_folder: None) -> RunRecord:
    """A run that has got as far as its NeRF, and shows itself."""
    made = new_run(store, EVIL, "smoke", [], None)
    for name in ("reference", "nerf"):
        alone(name, made.run)
    live = LiveStage(store, made.run, "neus")
    live.progress(3, 12, 90.0)
    live.picture("view", np.zeros((8, 8, 3)))
    live.picture("views", np.ones((8, 32, 3)))
    live.mesh(b"glTF so far")
    journal = Journal(store / "journals" / made.run, "neus-0123456789ab", "neus", {})
    for step in (5, 10, 15):
        journal.metrics(step, {"neus/psnr": 10.0 + step, "neus/eikonal": 1.0 / step})
    return read_record(store, made.run)


@pytest.fixture
def client(store: Path) -> Iterator[TestClient]:
    """Who knows the secret."""
    with closing(TestClient(watch_app(store, PORT, SECRET), base_url=HOST)) as known:
        known.auth = AUTH
        yield known


def alone(name: StageName, run: str) -> None:
    run_one(CHAIN[name], run, [], tracking_uri=None, show_progress=False)


def paths_of(run: str) -> list[str]:
    inside = ["", "/state", "/charts/neus", "/pictures/neus/view", "/views/nerf", "/mesh/neus", "/report"]
    return ["/", "/rows", "/nothing", *(f"/runs/{run}{path}" for path in inside)]


def test_strangers_are_refused_on_every_path(store: Path, record: RunRecord, client: TestClient) -> None:
    stranger = TestClient(watch_app(store, PORT, SECRET), base_url=HOST)
    picture = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    foreign = [{"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}, picture]
    for path in paths_of(record.run):
        assert stranger.get(path).status_code == 401, path
        assert stranger.get(path, auth=("dreampolish", "guess")).status_code == 401, path
        for headers in foreign:
            answer = client.get(path, headers=headers)
            assert answer.status_code == 403, (path, headers)
            assert not [name for name in answer.headers if name.startswith("access-control")]
    assert not (live_folder(store, record.run) / "watched").exists(), "a refused look draws nothing"


def test_nothing_can_be_written(record: RunRecord, client: TestClient, store: Path) -> None:
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    for path in paths_of(record.run):
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert client.request(method, path).status_code in (404, 405), (method, path)
        client.get(path)
    after = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert {path.name for path in after.keys() - before.keys()} <= {"watched", f"run-{record.run}"}
    assert all(after[path] == content for path, content in before.items())


@pytest.mark.parametrize(
    "path",
    [
        "/runs/ffffffff",
        "/runs/%2e%2e%2f%2e%2e%2fetc",
        "/runs/*",
        "/runs/RUN/pictures/neus/..%2f..%2f..%2fservices%2fsecret",
        "/runs/RUN/pictures/neus/%2e%2e",
        "/runs/RUN/pictures/nothing/view",
        "/runs/RUN/views/scores",
        "/runs/RUN/mesh/..%2f..",
        "/runs/RUN/report",
    ],
)
def test_what_is_not_there_is_one_line(path: str, record: RunRecord, client: TestClient, store: Path) -> None:
    (store / "services").mkdir(exist_ok=True)
    (store / "services" / "secret").write_text(SECRET)
    answer = client.get(path.replace("RUN", record.run))
    assert answer.status_code == 404
    assert len(answer.text.strip().splitlines()) == 1 and SECRET not in answer.text


def test_a_link_in_the_place_of_a_picture_is_not_followed(record: RunRecord, client: TestClient, store: Path) -> None:
    picture = live_folder(store, record.run) / "neus-view.png"
    picture.unlink()
    picture.symlink_to("/etc/passwd")
    assert client.get(f"/runs/{record.run}/pictures/neus/view").status_code == 404


def test_a_run_that_goes_on_shows_itself_and_learns_that_it_is_watched(
    record: RunRecord, client: TestClient, store: Path
) -> None:
    with run_lock(store, record.run, StopSignal()):
        state = client.get(f"/runs/{record.run}/state").json()
    stages = {stage["name"]: stage for stage in state["stages"]}
    assert (state["state"], state["words"], state["report"]) == ("runs", "goes on", False)
    assert [stages[name]["state"] for name in STAGES] == ["computed", "computed", "runs", *["waits"] * 4]
    assert (stages["neus"]["share"], stages["neus"]["words"]) == (0.25, "step 3 of 12, 1 min 30 s left")
    assert set(stages["neus"]["shown"]) == {"view", "views"} and set(stages["reference"]["shown"]) == {"views"}
    assert state["mesh"][0] == "neus"
    assert client.get(f"/runs/{record.run}/mesh/neus").content == b"glTF so far"
    assert (live_folder(store, record.run) / "watched").exists()
    charts = client.get(f"/runs/{record.run}/charts/neus").text
    assert charts.count("<svg") == 2 and charts.index("psnr") < charts.index("eikonal")
    assert client.get(f"/runs/{record.run}/pictures/neus/view").headers["content-type"] == "image/png"
    assert client.get(f"/runs/{record.run}/views/nerf").headers["content-type"] == "image/webp"


def test_how_a_run_ended_is_told_and_what_goes_on_with_it(record: RunRecord, store: Path, tmp_path: Path) -> None:
    assert run_state(record, store) == "stopped", "killed: no last word, and nobody holds its lock"
    assert view_of(record, store).go_on_with == f"dreampolish resume {record.run}"
    Journal(store / "journals" / record.run, "run", "a chair", {}).end("FAILED")
    assert run_state(record, store) == "failed"
    for name in STAGES[2:]:
        alone(name, record.run)
    done = write_output(read_record(store, record.run), LocalStore(store), tmp_path / "outputs")
    view = view_of(done, store)
    assert (view.state, view.report, view.go_on_with, view.mesh is not None and view.mesh[0]) == (
        "finished",
        True,
        "",
        "export",
    )


def test_a_new_run_has_not_begun(store: Path, stand_ins: object, priors_folder: None) -> None:
    assert run_state(new_run(store, "a chair", "smoke", [], None), store) == "waits"


def test_the_report_is_shown_in_a_sandbox(record: RunRecord, client: TestClient, store: Path, tmp_path: Path) -> None:
    for name in STAGES[2:]:
        alone(name, record.run)
    write_output(read_record(store, record.run), LocalStore(store), tmp_path / "outputs")
    answer = client.get(f"/runs/{record.run}/report")
    assert record.run in answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox")


def test_prompts_and_notices_stay_text(record: RunRecord, client: TestClient, store: Path) -> None:
    (store / "services").mkdir(exist_ok=True)
    write_notice(store, "<b>a chair</b> crashed", "<script>alert(1)</script>")
    for path in ("/", "/rows", f"/runs/{record.run}"):
        source = client.get(path).text
        assert "<script>alert" not in source and "<img src=x" not in source and "<b>a chair" not in source, path
        assert record.run in source
        if path != "/rows":
            assert "unsafe-inline" not in source.partition("script-src")[2].partition('"')[0]
    assert "a chair&lt;/b&gt; crashed" in client.get("/").text
    assert WORDS["stopped"] in client.get("/rows").text


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_the_command_names_the_page_of_up(record: RunRecord, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.cli.watch.live_url", lambda store, name: "http://127.0.0.1:4300")
    told = invoke("watch", record.run[:5], "--json")
    page = f"http://127.0.0.1:4300/runs/{record.run}"
    assert json.loads(told.stdout) == {"run": record.run, "page": page}
    assert "services/secret" in invoke("watch", record.run).stderr


def test_without_up_the_command_is_the_server_with_a_password_of_its_own(
    record: RunRecord, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[int, str]] = []
    monkeypatch.setattr("flows.report.live.server.serve", lambda store, port, secret: served.append((port, secret)))
    told = invoke("watch", record.run)
    ((port, secret),) = served
    assert told.stdout.strip() == f"http://{secret}@127.0.0.1:{port}/runs/{record.run}"
    header = "Basic " + base64.b64encode(secret.encode()).decode()
    own = TestClient(watch_app(store, port, secret), base_url=f"http://127.0.0.1:{port}")
    assert own.get("/rows", headers={"authorization": header}).status_code == 200
    assert secret not in "".join(path.read_text(errors="replace") for path in store.rglob("*") if path.is_file())


def test_a_run_that_is_not_there_is_one_line(store: Path) -> None:
    told = invoke("watch", "ffffffff")
    assert (told.exit_code, len(told.stderr.strip().splitlines())) == (2, 1)
    assert "no single run 'ffffffff'" in told.stderr
