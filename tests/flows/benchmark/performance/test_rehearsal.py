"""A rehearsal of every stage in tiny widths: real classes, random numbers, figures that add up."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dreampolish.priors.folders.contents import contents_of
from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.rehearsal.architectures import FULL, FULL_XL, TINY, TINY_XL, Family, Sizes
from dreampolish.priors.rehearsal.clock import NetworkClock
from dreampolish.priors.rehearsal.folders import write_normals, write_text, write_view
from flows.benchmark.performance.rehearsal import figures, rehearse, table
from schemas.config.presets import ConfigError
from schemas.runs import STAGES


@pytest.mark.parametrize(
    ("family", "sizes", "name", "millions"),
    [
        ("sd", FULL, "Stable Diffusion 2 class", 866 + 84 + 340),
        ("sdxl", FULL_XL, "SDXL class", 2567 + 84 + 123 + 695),
        ("sd3", FULL_XL, "Stable Diffusion 3 class", 2470 + 84 + 124 + 695),
    ],
)
def test_full_sizes_are_those_that_the_models_are_known_by(
    tmp_path: Path, family: Family, sizes: Sizes, name: str, millions: int
) -> None:
    found = contents_of(PriorSource(str(write_text(tmp_path / "text", sizes, family, "holes")), None))
    assert found.family == name
    assert sum(found.parameters.values()) / 1e6 == pytest.approx(millions, rel=0.02)


def test_zero123_and_marigold_are_known_too(tmp_path: Path) -> None:
    view = contents_of(PriorSource(str(write_view(tmp_path / "view", FULL, "holes")), None))
    normals = contents_of(PriorSource(str(write_normals(tmp_path / "normals", FULL, "holes")), None))
    assert (view.role, view.image_size, normals.role, normals.image_size) == ("view", 256, "normals", 768)
    assert view.parameters["unet"] / 1e6 == pytest.approx(860, rel=0.01)
    assert view.parameters["cc_projection"] == (768 + 4) * 768 + 768


class Encoder(nn.Module):
    """Timed by its name."""

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.sin().square()


def test_the_clock_times_the_way_there_and_back() -> None:
    clock, encoder = NetworkClock(torch.device("cpu")), Encoder()
    pictures = torch.rand(400, 400, requires_grad=True)
    with clock.running():
        encoder(pictures * 2).sum().backward()
    assert len(clock.spans) == 2
    assert clock.seconds("autoencoders") > 0
    assert clock.seconds("networks") == 0
    encoder(pictures)
    assert len(clock.spans) == 2  # nothing is timed outside


def test_an_odd_number_of_steps_is_refused() -> None:
    with pytest.raises(ConfigError, match="even"):
        rehearse("sd", [], "tiny", "sd", steps=5, vram=None)


@pytest.mark.slow
def test_every_stage_is_rehearsed_in_tiny_widths() -> None:
    found = rehearse("sd", ["device=cpu"], "tiny", "sd", steps=4, vram=8.0)
    assert [each.name for each in found] == list(STAGES)
    by_name = {each.name: each for each in found}
    for name in ("nerf", "neus", "dmtet", "polish", "texture"):
        each = by_name[name]
        assert each.steps == 4 and each.step_seconds > 0
        assert each.planned_gib is not None
        assert each.projected_seconds > each.step_seconds * 200  # the preset's own steps
        assert 0 < each.network_share < 1
    assert by_name["texture"].autoencoder_share > 0
    lines = table(found)
    assert len(lines) == 2 + len(STAGES) + 1 and all(line.count("|") == 8 for line in lines)
    assert figures(found)["projected_seconds"] == sum(each.projected_seconds for each in found)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3"])
def test_tiny_folders_are_priors(tmp_path: Path, family: Family) -> None:
    folder = write_text(tmp_path / "text", TINY if family == "sd" else TINY_XL, family, "random")
    assert contents_of(PriorSource(str(folder), None)).role == "text"
