"""The server of the pages of runs: reads a store, changes no run. `python -m flows.report.live.server PORT` is that of `dreampolish up`.

Every path asks for the secret and looks at Host and Origin, as Prefect's and MLflow's do (flows/service/apps.py).
"""

import os
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from flows.report.live.pages import charts_html, index_page, rows_html, run_page, strip_bytes
from flows.report.live.state import curves_now, mesh_path, report_of, result_pictures, view_of
from flows.service.apps import HOST, Guard
from flows.service.secret import WATCH_SECRET
from schemas.artifacts import StageName
from schemas.runs import ALL_STAGES, RunRecord
from stages.runtime.errors import StageError
from stages.runtime.files import store_folder
from stages.runtime.records import read_record
from stages.runtime.tracking.live import live_folder, look
from stages.runtime.tracking.notices import read_notices

CLOSED = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
REPORT_POLICY = "sandbox allow-scripts allow-downloads"
"""A report runs its own script alone, away from this server's other pages."""

Answer = Callable[[RunRecord, Request], Response]


def watch_app(store: Path, port: int, secret: str) -> Guard:
    """The pages behind the guard."""
    return Guard(pages(store), port, secret)


def pages(store: Path) -> Starlette:
    """The pages without a guard; GET and HEAD alone."""

    def of_run(answer: Answer) -> Callable[[Request], Response]:
        def endpoint(request: Request) -> Response:
            try:
                record = read_record(store, request.path_params["run"])
            except StageError as error:
                raise HTTPException(404, str(error)) from None
            return answer(record, request)

        return endpoint

    def index(request: Request) -> Response:
        return HTMLResponse(index_page(store, read_notices(store)), headers=CLOSED)

    def rows(request: Request) -> Response:
        return HTMLResponse(rows_html(store), headers=CLOSED)

    runs: dict[str, Answer] = {
        "": lambda record, _: HTMLResponse(run_page(record, store), headers=CLOSED),
        "/state": partial(_state, store),
        "/charts/{stage}": partial(_charts, store),
        "/pictures/{stage}/{name}": partial(_picture, store),
        "/views/{stage}": partial(_views, store),
        "/mesh/{stage}": partial(_mesh, store),
        "/report": lambda record, _: _file(report_of(record), "text/html", {"content-security-policy": REPORT_POLICY}),
    }
    routes = [Route(f"/runs/{{run}}{path}", of_run(answer)) for path, answer in runs.items()]
    return Starlette(routes=[Route("/", index), Route("/rows", rows), *routes], exception_handlers={HTTPException: _refused})


def _state(store: Path, record: RunRecord, request: Request) -> Response:
    look(store, record.run)
    return JSONResponse(asdict(view_of(record, store)), headers=CLOSED)


def _charts(store: Path, record: RunRecord, request: Request) -> Response:
    return HTMLResponse(charts_html(curves_now(record, store, _stage(request))), headers=CLOSED)


def _picture(store: Path, record: RunRecord, request: Request) -> Response:
    """The newest picture of a stage that goes on."""
    stage, name = _stage(request), request.path_params["name"]
    if re.fullmatch(r"[a-z0-9_~]{1,60}", name) is None:
        raise HTTPException(404, "no such picture")
    return _file(live_folder(store, record.run) / f"{stage}-{name}.png", "image/png", {})


def _views(store: Path, record: RunRecord, request: Request) -> Response:
    """A stage's views side by side: of its result, else of the result so far."""
    stage = _stage(request)
    paths = result_pictures(record, store, stage) if stage in record.stages else []
    if paths:
        return Response(strip_bytes(tuple(paths)), media_type="image/webp", headers=CLOSED)
    return _file(live_folder(store, record.run) / f"{stage}-views.png", "image/png", {})


def _mesh(store: Path, record: RunRecord, request: Request) -> Response:
    return _file(mesh_path(record, store, _stage(request)), "model/gltf-binary", {})


def _stage(request: Request) -> StageName:
    found = next((name for name in ALL_STAGES if name == request.path_params["stage"]), None)
    if found is None:
        raise HTTPException(404, "no such stage")
    return found


def _file(path: Path | None, kind: str, headers: dict[str, str]) -> Response:
    if path is None or not path.is_file() or path.is_symlink():
        raise HTTPException(404, "there is none yet")
    return FileResponse(path, media_type=kind, headers={**CLOSED, **headers})


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", status_code=error.status_code, headers=CLOSED)


def serve(store: Path, port: int, secret: str) -> None:
    """Be the server until SIGTERM or Ctrl-C. Imports uvicorn."""
    import uvicorn

    uvicorn.run(watch_app(store, port, secret), host=HOST, port=port, log_level="warning")


if __name__ == "__main__":
    serve(store_folder(), int(sys.argv[1]), os.environ.pop(WATCH_SECRET))
