"""Notices, the block that writes them, and the automations: what `up` registers is what Prefect takes."""

import asyncio
import json
from pathlib import Path
from uuid import uuid4

import yaml
from prefect.cli.deploy._triggers import _initialize_deployment_triggers
from prefect.utilities.schema_tools.hydration import HydrationContext, hydrate

from flows.runs.notices import AUTOMATION, DreampolishNotices, automation
from flows.runs.parameters import override_lines
from flows.service.processes import private_folder, services_folder
from stages.runtime.files import PROJECT
from stages.runtime.tracking.notices import notices_path, read_notices


def test_the_block_writes_to_its_owners_log_alone(store: Path) -> None:
    private_folder(services_folder(store))
    block = DreampolishNotices()
    assert "notify" in block.get_block_capabilities()
    asyncio.run(block.notify("it is Crashed", "a chair\x1b[2J crashed"))
    asyncio.run(block.notify("it is Pending", "a table is stuck"))
    with notices_path(store).open("a") as file:
        file.write("{torn\n")
    assert notices_path(store).stat().st_mode & 0o777 == 0o600
    assert [notice["subject"] for notice in read_notices(store)] == ["a table is stuck", "a chair\\x1b[2J crashed"]


def test_without_a_log_there_are_no_notices(store: Path) -> None:
    assert read_notices(store) == []


def test_the_automation_waits_for_crashes_and_for_runs_that_do_not_begin_or_end() -> None:
    made = automation(uuid4())
    triggers = made.trigger.triggers
    assert made.name == AUTOMATION
    assert [(sorted(each.after), each.posture.value) for each in triggers] == [
        ([], "Reactive"),
        (["prefect.flow-run.Pending"], "Proactive"),
        (["prefect.flow-run.Running"], "Proactive"),
    ]
    assert all(each.for_each == {"prefect.resource.id"} for each in triggers), "each run is looked at alone"
    assert made.actions[0].type == "send-notification"


def test_new_priors_are_measured_with_the_sources_that_the_event_names() -> None:
    document = yaml.safe_load((PROJECT / "prefect.yaml").read_text())
    spec = next(entry for entry in document["deployments"] if entry["name"] == "benchmark")["triggers"]
    (trigger,) = _initialize_deployment_triggers("benchmark", spec)
    assert trigger.expect == {"dreampolish.priors.registered"}
    overrides = {"priors": {"text": {"source": "models/home/text"}}}
    given = trigger.parameters["overrides"]
    template = given["value"]["template"]
    assert template == "{{ event.payload.overrides | tojson }}"
    rendered = {**given, "value": json.dumps(overrides)}
    assert hydrate({"overrides": rendered}, HydrationContext()) == {"overrides": overrides}
    assert override_lines(overrides) == ['priors.text.source="models/home/text"']
