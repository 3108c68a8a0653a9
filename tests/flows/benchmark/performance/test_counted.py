"""A run's work counted without weights: a network's operations as a CPU does them, and steps that add up."""

from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.rehearsal.operations import adapter_flop, network_flop
from dreampolish.priors.text.loading import load_text_prior
from flows.benchmark.performance.counted import COUNTED, counted, counted_figures, counted_table, operations
from schemas.config.presets import load_config
from schemas.config.run import Config
from stages.runtime.files import CONFIGS
from tests.support.hub_folders import write_marigold, write_stable_diffusion, write_zero123


def test_a_network_does_on_a_cpu_what_is_counted(tmp_path: Path) -> None:
    source = PriorSource(str(write_stable_diffusion(tmp_path)), None)
    found, prior = network_flop(source, 64), load_text_prior(source)
    noisy, t, text = torch.rand(1, 4, 8, 8), torch.zeros(1, dtype=torch.long), prior.embed(["a chair"])
    with sdpa_kernel(SDPBackend.MATH):  # torch does not count a CPU's fused attention
        with FlopCounterMode(display=False) as row:
            prior.predict_epsilon(noisy, t, text)
        with FlopCounterMode(display=False) as encode, torch.no_grad():
            prior.encode(torch.rand(1, 3, 64, 64))
    assert row.get_total_flops() == pytest.approx(found.row, rel=0.02)
    assert encode.get_total_flops() == pytest.approx(found.encode, rel=0.05)
    # The way back to the picture convolves once more; frozen weights get nothing.
    assert found.guided == pytest.approx(2 * found.encode, rel=0.1)
    assert 2 * found.row < adapter_flop(source, 64, 2) < 3.2 * found.row


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hub = tmp_path_factory.mktemp("hub")
    write_stable_diffusion(hub / "text")
    write_zero123(hub / "view")
    write_marigold(hub / "normals")
    return hub


def _config(hub: Path, *more: str) -> Config:
    sources = [f"priors.{role}.source={hub / role}" for role in ("text", "view", "normals")]
    return load_config("sd", CONFIGS, ["device=cpu", *sources, *more])


def test_steps_add_up(hub: Path) -> None:
    text, view = (network_flop(PriorSource(str(hub / role), None), 64) for role in ("text", "view"))
    one = operations(_config(hub))
    sides = one["nerf"] / (4 * text.row + text.guided + 2 * view.row + view.guided)
    # 5,000 steps, every second one guided, four views and from 3,000 on one.
    assert sides == pytest.approx(1500 * 4 + 1000 * 1)
    more = operations(_config(hub, "texture.steps=10000", "nerf.text.perp_neg_weight=0", "neus.view.weight=0"))
    assert more["texture"] == pytest.approx(2 * one["texture"])
    assert more["nerf"] == pytest.approx(7000 * (2 * text.row + text.guided + 2 * view.row + view.guided))
    assert more["neus"] == pytest.approx(one["neus"] * (4 * text.row + text.guided) / (one["nerf"] / 7000))
    assert (more["reference"], more["polish"]) == (one["reference"], one["polish"])
    plain = operations(_config(hub, "texture.objective=sds"))
    assert plain["texture"] == pytest.approx(5000 * 4 * (text.guided + 2 * text.row))


def test_a_preset_is_counted_in_tiny_widths() -> None:
    found = counted("sd-fast", [], "tiny", "sd", vram=8.0, tflops=2.0)
    assert [each.name for each in found] == list(COUNTED)
    assert all(each.seconds == pytest.approx(each.pflop * 500) and 0 < each.planned_gib <= 8 for each in found)
    lines = counted_table(found)
    assert len(lines) == 2 + len(COUNTED) + 1 and lines[-1].startswith("| whole run |")
    assert counted_figures(found)["projected_seconds"] == pytest.approx(sum(each.seconds for each in found))
