"""Automations of a store's Prefect server, and the notification block they speak through.

`dreampolish-notices` is the default block: it writes a line to `<store>/services/notices.log`, which `dreampolish up`'s page of runs
shows, and tells nobody outside. The automation for new priors stands in prefect.yaml, beside the deployment that it runs; a notification
is none of a deployment's triggers, so this one is registered here. What a user changed in it since stays.
"""

from datetime import timedelta
from typing import Any

from prefect.blocks.abstract import NotificationBlock

from stages.runtime.files import store_folder
from stages.runtime.tracking.notices import write_notice

BLOCK = "dreampolish-notices"
AUTOMATION = "dreampolish: a run crashed or is stuck"
START_LIMIT = timedelta(minutes=15)
"""A run that a worker has taken and that has not begun by then is stuck."""
RUN_LIMIT = timedelta(hours=24)
"""So is one that has not ended by then."""
ENDS = tuple(f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled"))
SUBJECT = (
    "{{ flow_run.name or 'a flow run that was deleted' }} {{ 'crashed' if 'Crashed' in (event.event or '') else 'is stuck' }}"
)
BODY = """\
State {{ flow_run.state.name or 'unknown' }}, {{ flow_run.state.message or 'without a message' }} (flow run {{ flow_run.id }}).
dreampolish doctor says what mends it."""


class DreampolishNotices(NotificationBlock):
    """Write notices to the log of notices of this server's store."""

    _block_type_name = "DreamPolish Notices"
    _block_type_slug = "dreampolish-notices"
    _description = "Writes to services/notices.log of the store whose server this is; tells nobody outside."

    async def notify(self, body: str, subject: str | None = None) -> None:
        """Append a line."""
        write_notice(store_folder(), subject or "", body)


def register_automations() -> None:
    """Make the block and the automation that speaks through it, unless they are there. Prefect's client must know the server."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound

    with get_client(sync_client=True) as client:
        if client.read_automations_by_name(AUTOMATION):
            return
        try:
            block = client.read_block_document_by_name(BLOCK, DreampolishNotices.get_block_type_slug()).id
        except ObjectNotFound:
            saved: Any = DreampolishNotices().save(BLOCK, overwrite=True)
            block = saved
        client.create_automation(automation(block))


def automation(block: Any) -> Any:
    """A run crashed, was taken and has not begun, or has not ended: a notification. block: the notification block's document."""
    from prefect.events.actions import SendNotification
    from prefect.events.schemas.automations import AutomationCore, CompoundTrigger, EventTrigger, Posture

    runs: dict[str, Any] = {"match": {"prefect.resource.id": "prefect.flow-run.*"}, "for_each": {"prefect.resource.id"}}
    crashed = EventTrigger(expect={"prefect.flow-run.Crashed"}, posture=Posture.Reactive, threshold=1, **runs)
    waiting = EventTrigger(
        after={"prefect.flow-run.Pending"},
        expect={"prefect.flow-run.Running", *ENDS},
        posture=Posture.Proactive,
        within=START_LIMIT,
        **runs,
    )
    lasting = EventTrigger(
        after={"prefect.flow-run.Running"}, expect=set(ENDS), posture=Posture.Proactive, within=RUN_LIMIT, **runs
    )
    return AutomationCore(
        name=AUTOMATION,
        description="Tells the block of notices. To tell Slack, an e-mail address or a webhook: edit the action, choose another block.",
        trigger=CompoundTrigger(triggers=[crashed, waiting, lasting], require="any", within=None),
        actions=[SendNotification(block_document_id=block, subject=SUBJECT, body=BODY)],
    )
