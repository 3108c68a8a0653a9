"""Worker and run killed by SIGKILL while the run starts: the next one must get its place in the queue.

    python tests/faults/starts.py [--store FOLDER]

A power failure does the same. The run is taken by the worker, then its process imports the stages, then it is Running; it is killed in
each of these. After each, `doctor` must name it, `up` must mark it crashed, and the next run must get out of the queue.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.append(str(Path(__file__).parents[2]))
from stages.runtime.files import PROJECT

MOMENTS: dict[str, Callable[[dict[str, Any], list[psutil.Process]], bool]] = {
    "taken": lambda run, children: run["state"]["type"] == "PENDING",
    "starting": lambda run, children: run["state"]["type"] == "PENDING" and bool(run["infrastructure_pid"]) and bool(children),
    "running": lambda run, children: run["state"]["type"] == "RUNNING",
}
LIMIT_S = 900.0
"""For a run to get to its moment, and for the next one to begin."""


class Service:
    """`up` over a store, on ports of its own."""

    def __init__(self, store: Path) -> None:
        self.store, self.folder = store, store.parent
        self.folder.mkdir(parents=True, exist_ok=True)
        ports = [str(self._free_port()) for _ in range(3)]
        self.up = ("up", "--port", ports[0], "--mlflow-port", ports[1], "--watch-port", ports[2])
        self._must(*self.up)
        user, _, password = (store / "services" / "secret").read_text().strip().partition(":")
        api = f"http://127.0.0.1:{ports[0]}/api"
        self.client = httpx.Client(base_url=api, auth=(user, password), timeout=120, trust_env=False)

    @staticmethod
    def _free_port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`dreampolish ARGUMENT...`."""
        bare = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        environment = {**bare, "DREAMPOLISH_STORE": str(self.store), "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-m", "flows.cli", *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)

    def _must(self, *arguments: str) -> str:
        ended = self.command(*arguments)
        if ended.returncode != 0:
            raise SystemExit(f"{arguments[0]} ended with {ended.returncode}: {ended.stderr}")
        return ended.stderr

    def submit(self) -> str:
        """A smoke run; its id in Prefect."""
        deployments = self.client.post("/deployments/filter", json={}).raise_for_status().json()
        full = next(each["id"] for each in deployments if each["name"] == "full")
        body = {"parameters": {"prompt": "a wooden table", "preset": "smoke"}, "state": {"type": "SCHEDULED"}}
        return str(self.client.post(f"/deployments/{full}/create_flow_run", json=body).raise_for_status().json()["id"])

    def read(self, run: str) -> dict[str, Any]:
        """A flow run."""
        found: dict[str, Any] = self.client.get(f"/flow_runs/{run}").raise_for_status().json()
        return found

    def family(self) -> list[psutil.Process]:
        """The worker, and below it the processes of runs."""
        noted = json.loads((self.store / "services" / "worker.json").read_text())
        worker = psutil.Process(noted["process"]["pid"])
        return [worker, *worker.children(recursive=True)]


def wrong_after(service: Service, moment: str) -> list[str]:
    """Kill a run at a moment; what is wrong afterwards, in a line each."""
    run = service.submit()
    state: dict[str, Any] = {}

    def has_come() -> bool:
        state.update(service.read(run))
        return MOMENTS[moment](state, service.family()[1:])

    if not _waited(has_come):
        return [f"{moment}: the run stayed {state['state']['name']}"]
    for process in service.family():
        process.kill()
    killed_as, wrong = service.read(run)["state"]["name"], list[str]()
    if not any(word in service.command("doctor").stdout for word in (state["name"], "was killed while it ran")):
        wrong.append(f"{moment}: doctor does not name the {killed_as} run")
    service._must(*service.up)
    if (now := service.read(run)["state"]["name"]) != "Crashed":
        wrong.append(f"{moment}: after `up` the {killed_as} run is {now}")
    following = service.submit()
    if not _waited(lambda: service.read(following)["state"]["type"] in ("PENDING", "RUNNING", "COMPLETED")):
        wrong.append(f"{moment}: the next run waits for ever")
    service.client.post(f"/flow_runs/{following}/set_state", json={"state": {"type": "CANCELLED"}, "force": True})
    for process in service.family()[1:]:
        process.kill()
    return wrong


def _waited(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


def killed_starts(store: Path, moments: list[str]) -> list[str]:
    """What is wrong after a kill at each moment; the services are stopped at the end."""
    service = Service(store)
    try:
        return [line for moment in moments for line in wrong_after(service, moment)]
    finally:
        service.command("down")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", type=Path, help="without it, a new one that is removed again")
    parser.add_argument("--moments", nargs="*", choices=MOMENTS, default=list(MOMENTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="starts-") as root:
        found = killed_starts((options.store or Path(root) / "store").resolve(), options.moments)
    sys.stderr.write("\n".join([*found, f"{len(options.moments)} starts killed, {len(found)} wrong"]) + "\n")
    sys.exit(1 if found else 0)
