"""Bytes of the tensors that are alive while something is computed: counted on any device, also on `meta`, where nothing is stored.

On `meta` a network of any size is walked through in seconds, without its weights. What is counted is the tensors themselves; a GPU's
allocator rounds and keeps more, and its libraries have workspaces of their own.
"""

import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """A context in which new storages are counted until they are freed.

    there: tensors of before, weights and inputs, whose views count nothing. now: bytes alive. peak: the most that were.

        with LiveBytes(network.parameters()) as live:
            loss = network(pictures).sum()
            saved = live.now
            loss.backward()
    """

    def __init__(self, there: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._there = [each.untyped_storage() for each in there]
        self._known = {storage._cdata for storage in self._there}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it allocated."""
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self._count(each)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive or key in self._known:
            return
        self.now += size
        self.peak = max(self.peak, self.now)

        def freed(_: Any) -> None:
            self._alive.pop(key, None)
            self.now -= size

        self._alive[key] = weakref.ref(storage, freed)
