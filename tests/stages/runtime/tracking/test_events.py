"""Events to Prefect: from inside a flow run alone, and never a reason to fail."""

from typing import Any

import pytest
from prefect import flow

from stages.runtime.tracking.events import tell_prefect


def told(monkeypatch: pytest.MonkeyPatch, fails: bool) -> list[dict[str, Any]]:
    """What is emitted from now on."""
    found: list[dict[str, Any]] = []

    def emit(event: str, **given: Any) -> None:
        found.append({"event": event, **given})
        if fails:
            raise OSError("no server")

    monkeypatch.setattr("prefect.events.emit_event", emit)
    return found


def test_outside_a_flow_run_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(monkeypatch, fails=False)
    tell_prefect("run.stopped", "run.abcd1234", "a chair", {})
    assert found == []


@pytest.mark.prefect
@pytest.mark.xdist_group("prefect")
@pytest.mark.parametrize("fails", [False, True])
def test_a_flow_run_tells_and_goes_on(prefect_server: None, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    found = told(monkeypatch, fails)

    @flow
    def telling() -> int:
        tell_prefect("stage.cached", "run.abcd1234", "a chair", {"stage": "nerf"})
        return 7

    assert telling() == 7
    resource = {"prefect.resource.id": "dreampolish.run.abcd1234", "prefect.resource.name": "a chair"}
    assert found == [{"event": "dreampolish.stage.cached", "resource": resource, "payload": {"stage": "nerf"}}]
