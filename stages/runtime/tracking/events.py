"""What a run tells Prefect besides its states: events, which automations wait for and the event feed shows.

`dreampolish.asset.finished`, `dreampolish.stage.cached` and `dreampolish.run.stopped` concern the resource `dreampolish.run.<run>`;
`dreampolish.priors.registered` concerns `dreampolish.priors.<alias>`. Prefect adds the flow run to each.
"""

import logging
from collections.abc import Mapping
from typing import Any, Literal

Event = Literal["asset.finished", "stage.cached", "run.stopped", "priors.registered"]
PREFIX = "dreampolish."


def tell_prefect(event: Event, about: str, name: str, payload: Mapping[str, Any]) -> None:
    """Emit an event from inside a flow run; outside one nothing is told, and no trouble of a server's ends anything.

    about: the resource without the project's name, `run.<run>`. name: what people call it. payload: plain JSON values.
    """
    from prefect.context import FlowRunContext

    if FlowRunContext.get() is None:
        return
    from prefect.events import emit_event

    try:
        resource = {"prefect.resource.id": f"{PREFIX}{about}", "prefect.resource.name": name}
        # It is handed to a thread of Prefect's: nobody waits for a server here.
        emit_event(f"{PREFIX}{event}", resource=resource, payload=dict(payload))
    except Exception as error:
        logging.getLogger(__name__).debug("event not sent: %s", error)
