"""Sums done by hand, pages made of numbers, figures of pictures."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from flows.ablation.cell import best_figures, differences
from flows.ablation.document import shape_counts, study_text, verdicts, write_page
from flows.ablation.figures import picture_figures
from flows.ablation.flow import stretch_factor
from flows.ablation.plan import nested
from flows.ablation.statistics import (
    BY_KEY,
    CellResult,
    StageResult,
    StudyResult,
    between_groups,
    figure_table,
    paired,
    read_result,
    seed_spreads,
    write_result,
)
from schemas.config.presets import ConfigError, merged
from schemas.config.run import Config
from stages.nerf import _empty_scene
from stages.results.surfaces import View
from stages.runtime.errors import StageError


def cell(variant: str, subject: str, seed: int, group: str = "", **figures: float) -> CellResult:
    stages = {"nerf": StageResult("computed", 10.0, "f"), "neus": StageResult("cached", 5.0, "g")}
    return CellResult(
        variant,
        subject,
        prompt=f"a {subject}",
        group=group,
        seed=seed,
        run=f"{variant}{subject}{seed}",
        until="texture",
        figures=dict(figures),
        stages=stages,
    )


CELLS = [
    cell("a", "table", 0, psnr=10.0),
    cell("a", "table", 1, psnr=14.0),
    cell("a", "chair", 0, psnr=20.0),
    cell("b", "table", 0, psnr=11.0),
    cell("b", "table", 1, psnr=16.0),
    cell("b", "chair", 0, psnr=23.0),
    cell("b", "chair", 1, psnr=99.0),
]


def study_result(cells: list[CellResult], **study: object) -> StudyResult:
    content = {"name": "trial", "question": "Which?", "prompts": ["a table"], "variants": {"a": {}, "b": {}}, **study}
    return StudyResult(
        content, id="01234567", date="2026-01-01", machine="a machine", versions="torch 2", overrides=["threads=1"], cells=cells
    )


def test_means_spreads_and_paired_differences_by_hand() -> None:
    means, spreads, table = study_result(CELLS).means, seed_spreads(figure_table(CELLS)), figure_table(CELLS)
    assert means.at["a", "psnr"] == pytest.approx(44 / 3)
    assert math.isnan(means.at["a", "chamfer"])
    # One subject of two seeds: 10 and 14.
    assert spreads.at["a", "psnr"] == pytest.approx(8**0.5)
    # Pooled: ((11, 16): sum of squares 12.5) and ((23, 99): 2888), one degree of freedom each.
    assert spreads.at["b", "psnr"] == pytest.approx(((12.5 + 2888) / 2) ** 0.5)
    change = paired(table, "b", "a", "psnr")
    # Differences 3, 1, 2; chair with seed 1 has no partner. t(0.975, 2) = 4.302653.
    assert change is not None
    assert (change.mean, change.pairs) == (2.0, 3)
    assert change.error == pytest.approx(3**-0.5)
    assert (change.low, change.high) == pytest.approx((2 - 4.302653 * 3**-0.5, 2 + 4.302653 * 3**-0.5), abs=1e-5)
    assert change.verdict(BY_KEY["psnr"]) == 0
    assert replace(change, low=0.1).verdict(BY_KEY["psnr"]) == 1
    assert replace(change, low=0.1).verdict(BY_KEY["chamfer"]) == -1
    single = paired(figure_table(CELLS[2:6]), "b", "a", "psnr")
    assert single is not None
    assert (single.mean, single.pairs, single.verdict(BY_KEY["psnr"])) == (3.0, 1, 0)
    assert math.isnan(single.error)
    assert paired(table, "b", "a", "ssim") is None


def test_groups_are_compared_over_subjects_not_cells() -> None:
    cells = [
        cell("a", "table", 0, "seen", psnr=10.0),
        cell("a", "table", 1, "seen", psnr=20.0),
        cell("a", "chair", 0, "seen", psnr=17.0),
        cell("a", "barrel", 0, "new", psnr=8.0),
        cell("a", "snowman", 0, "new", psnr=12.0),
    ]
    found = between_groups(figure_table(cells), "a", "psnr", first="seen", second="new")
    assert found is not None
    assert (found.first, found.second, found.difference, found.counts) == (16.0, 10.0, -6.0, (2, 2))
    # Variances of the subjects' means: 2 and 8.
    assert found.error == pytest.approx((2 / 2 + 8 / 2) ** 0.5)
    assert between_groups(figure_table(cells), "a", "psnr", first="seen", second="other") is None


def test_steps_are_stretched_to_the_same_seconds() -> None:
    results = [
        cell("like", "table", 0, seconds=15.0),
        cell("full", "table", 0, seconds=45.0),
        cell("full", "x", 0, seconds=900.0),
    ]
    # nerf took 10 of the 15 seconds: 5 stay, 40 are left for it.
    assert stretch_factor(results, "like", "full", ["nerf"]) == 4.0
    assert stretch_factor(results, "like", "full", ["nerf", "neus"]) == 3.0
    with pytest.raises(StageError, match="has seconds to compare"):
        stretch_factor(results, "like", "x", ["nerf"])
    with pytest.raises(StageError, match="takes longer than"):
        stretch_factor([*results, cell("fast", "table", 0, seconds=4.0)], "like", "fast", ["nerf"])


def test_sentences_follow_from_the_numbers() -> None:
    cells = [cell(v, s, 0, psnr=p, chamfer=c) for v, s, p, c in (
        ("a", "x", 10, 0.010), ("a", "y", 12, 0.012), ("a", "z", 14, 0.011),
        ("b", "x", 11.0, 0.011), ("b", "y", 13.1, 0.011), ("b", "z", 15.1, 0.012),
    )]  # fmt: skip
    lines = verdicts(study_result(cells))
    assert lines[0] == "Best mean by each figure: PSNR, dB: b (13.07); Chamfer, 1/1000: a (11.0)."
    assert lines[1] == "**b** against a: better in PSNR, dB +1.07 ± 0.03, and no clear difference in Chamfer, 1/1000."
    text = study_text(
        study_result([*cells, replace(cells[0], seed=1, figures={}, error="the field is empty")]), "##", ["![p](p.png)"]
    )
    rows = re.sub(" +", " ", text)
    assert "| b | **+1.07 ± 0.03 (3)** | +0.3 ± 0.7 (3) |" in rows
    assert "| a | 3 | 12.00 | 11.0 |" in rows
    assert "- **a**, x, seed 1: the field is empty" in text
    assert text.rstrip().endswith("![p](p.png)")
    noted = replace(study_result(cells), notes=["The code was changed."])
    assert "- **The code was changed.**" in study_text(noted, "#", [])


def test_a_study_of_rough_shapes_counts_what_fell_and_shows_each() -> None:
    cells = [
        cell("none", "ball 1 %", 0, normal_angle_deg=10.0, roughness_deg=12.0, chamfer=0.008),
        cell("none", "box 1 %", 0, normal_angle_deg=20.0, roughness_deg=14.0, chamfer=0.009),
        cell("smooth", "ball 1 %", 0, normal_angle_deg=5.0, roughness_deg=-1.0, chamfer=0.007),
        cell("smooth", "box 1 %", 0, normal_angle_deg=21.0, roughness_deg=3.0, chamfer=0.008),
    ]
    found = study_result(cells, **ROUGH)
    assert shape_counts(found) == [
        "**smooth** against none: normals, deg fell in 1 of 2; roughness, deg fell in 2 of 2; Chamfer, 1/1000 fell in 2 of 2."
    ]
    text = study_text(found, "#", [])
    assert re.search(r"\| ball 1 % +\| +10.0 / 12.0 / 8.0 +\| +5.0 / -1.0 / 7.0 +\|", text)
    assert "- **smooth** against none: normals, deg fell in 1 of 2" in text
    assert "Each shape" not in study_text(study_result(CELLS), "#", [])


ROUGH: dict[str, object] = {
    "prompts": [],
    "objects": ["ball", "box"],
    "on_true_meshes": True,
    "roughened": [0.01],
    "until": "polish",
    "variants": {"none": {"settings": {"polish.steps": 0}}, "smooth": {}},
}


def test_the_page_is_made_of_study_files_alone(tmp_path: Path) -> None:
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        write_result(folder / "study.json", study_result(CELLS, name=name))
        Image.new("RGB", (30, 20), "red").save(folder / "sheet.png")
    assert read_result(tmp_path / "first") == study_result(CELLS, name="first")
    page = write_page([tmp_path / "first", tmp_path / "second"], tmp_path / "docs" / "studies" / "index.md")
    text = page.read_text()
    assert text.index("## first") < text.index("## second")
    assert "](first.jpg)" in text
    assert (tmp_path / "docs" / "studies" / "second.jpg").is_file()
    with pytest.raises(ConfigError, match="two of the folders hold the study first"):
        write_page([tmp_path / "first", tmp_path / "first"], page)
    (tmp_path / "first" / "study.json").write_text('{"cells": 3}')
    with pytest.raises(ConfigError, match="is no study's result"):
        write_page([tmp_path / "first"], page)


def test_pictures_tell_saturation_grain_and_drift() -> None:
    rgb = torch.tensor([0.5, 0.25, 0.25]).expand(16, 8, 8, 3).clone()
    views = View(rgb, torch.ones(16, 8, 8), torch.zeros(16, 8, 8, 3))
    figures = picture_figures(views, torch.tensor([0.5, 0.25, 0.55]))
    assert figures == pytest.approx({"saturation": 0.5, "grain": 0.0, "colour_drift": 0.3})
    # From behind: azimuths 101.25 to 258.75 degrees, views 4 to 11.
    rgb[4:12, :, ::2] = 0.0
    checked = picture_figures(views, torch.tensor([0.25, 0.125, 0.125]))
    assert checked["colour_drift"] == pytest.approx(0.0, abs=1e-6)
    # Horizontal neighbours differ by 1/3 in grey, vertical ones not: half the pairs of half the views.
    assert checked["grain"] == pytest.approx(1 / 3 / 4)
    assert picture_figures(View(rgb, torch.zeros(16, 8, 8), rgb), torch.ones(3)) == {}


def test_a_nerf_of_no_steps_is_a_solid_ball() -> None:
    config = merged(Config(), {"nerf": {"steps": 0, "occupancy_resolution": 24}}, []).nerf
    scene = _empty_scene(config, torch.Generator().manual_seed(0))
    scene.update_occupancy(0, early_steps=1)
    with torch.no_grad():
        inside, outside = scene.field.density(torch.zeros(1, 3)), scene.field.density(torch.full((1, 3), 0.6))
    assert float(inside) > 20
    assert float(outside) < 0.5
    assert bool(scene.occupancy.state_dict()["occupied"].any())


def test_differences_name_whole_settings() -> None:
    changed = merged(Config(), {"seed": 4}, ["texture.lambda_stable=2", "nerf.steps=7", "reference.elevation_deg=3"])
    assert differences(Config(), changed) == ["nerf.steps=7", "texture.lambda_stable=2.0"]
    assert nested({"a.b": 1, "a.c": 2}) == {"a": {"b": 1, "c": 2}}


# From here on: plans and the flow.


def test_best_figures_come_from_whoever_computed(tmp_path: Path) -> None:
    class Made:
        stage, fingerprint = "texture", "0123456789abcdef"

    for run, value in (("first", 21.0), ("second", 20.0)):
        (tmp_path / run).mkdir()
        line = json.dumps({"t": 1, "step": 0, "metrics": {"best/psnr": value, "final/psnr": 30.0}})
        (tmp_path / run / "texture-0123456789ab.jsonl").write_text(line + '\n{"t": 2, "metr')
    assert best_figures(tmp_path, [Made()]) == {"best/texture/psnr": 21.0}
