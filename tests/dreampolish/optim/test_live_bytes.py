"""Bytes of living tensors, against sums by hand and against what autograd says that it saves."""

import torch
from torch import Tensor, nn

from dreampolish.optim.live_bytes import LiveBytes

MIB = 2**20


def saved_bytes(network: nn.Module, pictures: Tensor) -> int:
    """What autograd keeps for the way back, by its own hooks, weights left out, each storage once."""
    known = {each.untyped_storage().data_ptr() for each in network.parameters()} | {pictures.untyped_storage().data_ptr()}
    found: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = network(pictures)
    assert kept.requires_grad
    return sum(found.values())


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 8, 3, padding=1), nn.SiLU(), nn.Flatten(1))


def test_a_sum_by_hand() -> None:
    with LiveBytes() as live:
        one = torch.zeros(MIB // 4)
        two = one * 2
        view = two[:10]
        assert live.now == 2 * MIB
        del one, two
        assert live.now == MIB  # the view holds it
        del view
        assert live.now == 0
    assert live.peak == 2 * MIB


def test_what_is_there_before_counts_nothing() -> None:
    there = torch.zeros(MIB // 4)
    with LiveBytes([there]) as live:
        assert len(there.view(-1, 4).t()) == 4
    assert live.peak == 0


def test_a_graph_on_meta_is_what_autograd_saves_on_a_cpu() -> None:
    real = network()
    pictures = torch.rand(2, 3, 16, 16, requires_grad=True)
    measured = saved_bytes(real, pictures)
    with torch.device("meta"):
        outline = network()
        shown = torch.empty(2, 3, 16, 16, requires_grad=True)
    with LiveBytes([*outline.parameters(), shown]) as live:
        result = outline(shown)
        counted = live.now
    assert counted == measured + result.nbytes  # the result itself is alive, and nothing needs it
    assert live.peak >= counted
