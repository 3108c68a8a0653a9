"""The command watch."""

import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import Json, Run, finish
from flows.runs.console import answer, say
from flows.service.apps import HOST
from flows.service.processes import live_url
from flows.service.secret import USER, new_secret, secret_path
from stages.runtime.records import read_record


def watch(
    run: Run,
    port: Annotated[int, typer.Option(min=0, max=65535, help="of the page, where `up` has none; 0: any that is free")] = 0,
    as_json: Json = False,
) -> None:
    """Show a run while it goes on, in a browser: views, curves and the mesh so far. Without `up`, until Ctrl-C."""
    ours: list[tuple[int, str]] = []

    def work(store: Path) -> dict[str, Any]:
        record = read_record(store, run)
        service = live_url(store, "watch")
        if service is not None:
            page = f"{service}/runs/{record.run}"
            if not as_json:
                answer(page)
                say(f"it asks for the user {USER} and, as password, what stands behind the colon in {secret_path(store)}")
            return {"run": record.run, "page": page}
        place, secret = _free(port), new_secret()
        ours.append((place, secret))
        # A browser takes user and password out of such an address and sends them to this server alone.
        page = f"http://{secret}@{HOST}:{place}/runs/{record.run}"
        if not as_json:
            answer(page)
            say("this page lives until Ctrl-C; its address holds a password of its own")
        return {"run": record.run, "page": page}

    def show(store: Path) -> dict[str, Any]:
        from flows.report.live.server import serve  # after the address is told: a second to import

        serve(store, *ours[0])
        return {}

    finish(work, as_json)
    if ours:
        finish(show, as_json=False)


def _free(port: int) -> int:
    """The port, or a free one for 0."""
    with socket.socket() as probe:
        probe.bind((HOST, port))
        return int(probe.getsockname()[1])
