"""`--preset sd` through all seven stages, on folders in the layouts of public models: real classes made tiny, random weights."""

from pathlib import Path

import pytest
import torch

from flows.runs.chain import CHAIN
from flows.runs.create import new_run
from schemas.artifacts import Artifact, StageName
from schemas.runs import STAGES
from stages.runtime.command import arguments_from_record
from stages.runtime.context import context_of
from tests.support.flow_folders import write_sd3, write_sdxl
from tests.support.hub_folders import write_marigold, write_stable_diffusion, write_zero123
from tests.support.set_folders import write_imagedream, write_zero123plus
from tests.support.tiny_priors import write_picture

STEPPED = ("nerf", "neus", "dmtet", "polish", "texture")
GEOMETRY = ("nerf", "neus", "dmtet")
SMALL = (
    "device=cpu",
    "threads=1",
    "reference.size=64",
    "reference.normal_steps=1",
    *(f"{name}.steps=4" for name in STEPPED),
    *(f"{name}.grid={{n_levels: 4, log2_table_size: 10, hidden_size: 16}}" for name in GEOMETRY),
    *(f"{name}.{part}=32" for name in GEOMETRY for part in ("reference_size", "guidance_size")),
    *(f"{name}.guidance_views=1" for name in GEOMETRY),
    *(f"{name}.{part}=16" for name in ("nerf", "neus") for part in ("occupancy_resolution", "samples_per_ray")),
    "nerf.finer={begin: 0.5, size: 48, views: 1}",
    "nerf.jittered_points=64",
    "neus.conversion_resolution=24",
    "neus.conversion_steps=20",
    "dmtet.tet_resolution=14",
    "dmtet.color_fit_steps=2",
    "polish.size=32",
    "polish.views=1",
    "polish.estimator_steps=1",
    "polish.color_fit_steps=2",
    "texture.size=32",
    "texture.views=1",
    "texture.lora_rank=2",
    "export.triangle_budget=200",
    "export.texture_size=128",
    "export.turntable_views=2",
    "export.turntable_size=16",
    *(f"{name}.preview={{size: 16, n_views: 2, interval: 2}}" for name in (*STEPPED, "export")),
)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion 2.1, XL and 3.5, Zero123-XL, Zero123++, ImageDream and Marigold."""
    hub = tmp_path_factory.mktemp("hub")
    write_stable_diffusion(hub / "sd21")
    write_sdxl(hub / "sdxl")
    write_sd3(hub / "sd35")
    write_zero123(hub / "zero123-xl")
    write_zero123plus(hub / "zero123plus-v1.2")
    write_imagedream(hub / "imagedream")
    write_marigold(hub / "marigold")
    return hub


SETS_ALONE = (
    *(f"{name}.view.weight=0" for name in GEOMETRY),
    *(f"{name}.targets={{rgb_weight: 100, mask_weight: 10, sampling_steps: 1, n_views: 4}}" for name in GEOMETRY),
)
"""Painted sets in place of score distillation from a single-view prior, which is not there."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "places", "more"),
    [
        ("sd", {"text": "sd21", "view": "zero123-xl"}, ()),
        ("sd-fast", {"text": "sd21", "view": "zero123-xl"}, ()),
        ("sd", {"text": "sdxl", "views": "zero123plus-v1.2"}, SETS_ALONE),
        ("sd", {"text": "sd35", "views": "imagedream"}, SETS_ALONE),
    ],
    ids=["sd21-zero123", "fast", "sdxl-zero123plus", "sd35-imagedream"],
)
def test_the_preset_makes_an_asset(hub: Path, store: Path, preset: str, places: dict[str, str], more: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    sources = [f"priors.{role}.source={hub / name}" for role, name in {**places, "normals": "marigold"}.items()]
    picture = write_picture(hub / f"{preset}.png")
    overrides = [*SMALL, *sources, *more, "priors.text.image_size=64"]
    record = new_run(store=store, prompt="a chair", preset=preset, overrides=overrides, image=picture)
    run = context_of(record, store, None, show_progress=False)
    done: dict[StageName, Artifact] = {}
    for name in STAGES:
        done[name] = CHAIN[name].compute(run, **arguments_from_record(CHAIN[name], record, store, done))
    figures = {name: artifact.metrics for name, artifact in done.items()}
    assert figures["nerf"]["steps"] == 4
    assert figures["texture"]["realistic_norm"] > 0
    assert figures["texture"]["stable_norm"] > 0
    assert figures["texture"]["lora_loss"] > 0
    assert done["export"].n_faces > 0  # type: ignore[attr-defined]
    assert all(value == value for each in figures.values() for value in each.values())
