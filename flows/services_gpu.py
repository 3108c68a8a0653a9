"""The GPU slot: a run on a GPU holds it from its first stage to its last, so that two runs never share the memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stages.errors import StageError

GPU_SLOT = "dreampolish-gpu"
LEASE_S = 60
"""A dead holder blocks for this long at most."""


@contextmanager
def gpu_slot(device: torch.device) -> Iterator[None]:
    """Hold the slot while a GPU is used; on the CPU nothing is asked.

    With a server of its own (`dreampolish up`) the slot must be there, else StageError; without one it is made on the spot.
    """
    if device.type == "cpu":
        yield
        return
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectNotFound

    from flows.services_setup import prefect_url

    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(GPU_SLOT)
        except ObjectNotFound:
            if prefect_url() is not None:
                raise StageError(f"Prefect has no GPU slot {GPU_SLOT}", None, "dreampolish up makes it") from None
            client.upsert_global_concurrency_limit_by_name(GPU_SLOT, 1)
    with concurrency(GPU_SLOT, occupy=1, lease_duration=LEASE_S, strict=True, raise_on_lease_renewal_failure=False):
        yield
