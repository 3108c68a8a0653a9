"""The benchmark: sums done by hand, figures of balls by closed forms, and a report that says what was measured."""

import dataclasses
import json
import math
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from dreampolish.assets.asset import plain_asset
from dreampolish.assets.writing.glb import write_glb
from dreampolish.metrics.retrieval import candidate_texts, right_texts
from flows.benchmark.assets.checks import Agreement
from flows.benchmark.flow import benchmark, mean_figures
from flows.benchmark.page import STEPS, Setting, report_text, write_report
from flows.benchmark.rasterizers import measure_rasterizers, read_rasterizers, write_rasterizers
from flows.benchmark.stages import ROWS
from flows.benchmark.statistics import (
    FIGURES,
    Change,
    Failure,
    ObjectResult,
    PromptResult,
    Results,
    change_of,
    figure_table,
    r_precision,
    stage_means,
)
from flows.benchmark.subjects import Subject, found_subjects, left_out, prompts_of, remarks_of
from flows.cli import app
from schemas.config.presets import ConfigError
from stages.runtime.errors import StageError
from stages.runtime.files import PROJECT
from tests.support.assets import SOUND, asset_with
from tests.support.balls import ball

FIGURE = {figure.key: figure for figure in FIGURES}
NEW = (("a", 10.0), ("b", 12.0))
SETTING = Setting(
    date="2026-01-01",
    machine="a machine, 2 cores",
    versions="torch 2",
    preset="home",
    overrides=("seed=3",),
    seed=3,
    threads=2,
    objects="benchmark",
    names=81,
)


def unpadded(page: str) -> str:
    """A page whose table cells are not filled up with spaces to one width."""
    return re.sub(" +", " ", page)


def page_text(*results: object, **options: object) -> str:
    return unpadded(report_text(*results, **options))


def result(name: str, **psnr: float) -> ObjectResult:
    """An object with a PSNR at some stages; its Chamfer distance is 1 / PSNR."""
    return ObjectResult(
        name, f"a {name}", "0123abcd", {stage: {"psnr": value, "chamfer": 1 / value} for stage, value in psnr.items()}
    )


def test_means_and_paired_changes() -> None:
    objects = [result("a", nerf=20.0, neus=25.0), result("b", nerf=10.0, neus=8.0), result("c", nerf=30.0)]
    means, table = stage_means(objects), figure_table(objects)
    assert means.at["nerf", "psnr"] == 20.0
    assert means.at["neus", "psnr"] == 16.5
    assert math.isnan(means.at["export", "psnr"])
    change = change_of(table, "nerf", "neus", FIGURE["psnr"])
    # c has no neus: it must not enter, or the mean would mix different objects.
    assert change is not None
    assert (change.mean, change.improved, change.worsened, change.objects) == (1.5, 1, 1, 2)
    assert change.direction(FIGURE["psnr"]) == 1
    # Differences 5 and -2: deviation 7 / sqrt(2), over sqrt(2) objects.
    assert change.error == pytest.approx(3.5) and not change.beyond_chance
    nearer = change_of(table, "nerf", "neus", FIGURE["chamfer"])
    assert nearer is not None
    assert nearer.mean == pytest.approx((1 / 25 - 1 / 20 + 1 / 8 - 1 / 10) / 2)
    assert nearer.direction(FIGURE["chamfer"]) == -1
    assert Change(mean=-0.004, error=math.nan, improved=0, worsened=2, objects=2).direction(FIGURE["psnr"]) == 0
    assert (nearer.improved, nearer.worsened) == (1, 1)
    assert change_of(table, "texture", "export", FIGURE["psnr"]) is None
    alone = change_of(figure_table(objects[:1]), "nerf", "neus", FIGURE["psnr"])
    assert alone is not None and math.isnan(alone.error) and not alone.beyond_chance
    assert Change(mean=-0.5, error=0.2, improved=0, worsened=2, objects=2).beyond_chance


def test_r_precision_counts_views() -> None:
    prompts = [
        PromptResult("a couch", "r", hits=8, views=8, nearest="a sofa", alignment=0.5),
        PromptResult("a car", "s", hits=1, views=8, nearest="a van", alignment=0.1),
    ]
    assert r_precision(prompts) == 9 / 16
    assert math.isnan(r_precision([]))


def test_the_tracker_gets_means_of_what_there_is() -> None:
    figures = mean_figures(Results(objects=[result("a", nerf=20.0), result("b", nerf=10.0)]))
    assert figures == {"benchmark/nerf/psnr": 15.0, "benchmark/nerf/chamfer": pytest.approx(0.075), "benchmark/failures": 0.0}


def test_the_report_says_what_was_measured_and_where_it_gets_worse() -> None:
    objects = [result("barrel", nerf=20.0, neus=25.0, dmtet=24.0), result("lamp", nerf=10.0, neus=8.0, dmtet=7.5)]
    prompts = [PromptResult("a couch", "89abcdef", hits=6, views=8, nearest="a sofa", alignment=0.5)]
    text = page_text(Results(objects, prompts, [Failure("robot", "the density field is empty")]), SETTING)
    for told in ("a machine, 2 cores", "torch 2", "`home`, seed 3", "`seed=3`", "81 names", "| nerf | 15.00 |", "**0.75**"):
        assert told in text
    assert "| nerf -> neus: density -> signed distance | +1.50 ± 3.50 (1/2) |" in text
    assert "| neus -> dmtet: field -> mesh | **-0.75 ± 0.25 (0/2)** |" in text
    assert (
        "**dmtet** clearly improves nothing, and **makes things worse on the average: PSNR, dB -0.75 ± 0.25 (worse on 2 of"
        in text
    )
    assert (
        "**neus** clearly improves nothing, and makes nothing clearly worse. Within two standard errors: PSNR, dB +1.50" in text
    )
    assert "| barrel | neus | 25.00 |" in text
    assert "![lamp](lamp.png)" in text
    assert "**robot**: the density field is empty" in text
    assert "| a couch | 89abcdef | 6/8 | a sofa | 0.500 |" in text


def objects_folder(folder: Path) -> Path:
    """Two objects: one with an attribution, one a bare file."""
    (folder / "red-ball").mkdir(parents=True)
    write_glb(folder / "red-ball" / "mesh.glb", plain_asset(ball(2.0), "ball", {}), None)
    told = {"prompt": "a red ball", "reference": {"elevation_deg": 20.0}}
    (folder / "red-ball" / "attribution.json").write_text(json.dumps(told))
    write_glb(folder / "Big Ball.glb", plain_asset(ball(1.0), "ball", {}), None)
    return folder


def test_objects_are_found_with_what_lies_beside_them(tmp_path: Path) -> None:
    folder = objects_folder(tmp_path / "objects")
    bare, told = sorted(found_subjects(folder, [], 10.0), key=lambda subject: subject.name)
    assert (bare.name, bare.prompt, bare.reference, bare.elevation_deg) == ("big-ball", "a big ball", None, 10.0)
    assert (told.name, told.prompt, told.reference, told.elevation_deg) == ("red-ball", "a red ball", None, 20.0)
    assert [subject.name for subject in found_subjects(folder, ["red-ball"], 10.0)] == ["red-ball"]
    with pytest.raises(ConfigError, match=r"no object 'cube'.*big-ball"):
        found_subjects(folder, ["cube"], 10.0)
    with pytest.raises(ConfigError, match="no folder"):
        found_subjects(tmp_path / "nowhere", [], 10.0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no GLBs"):
        found_subjects(tmp_path / "empty", [], 10.0)
    assert len(prompts_of(folder)) == 8
    assert remarks_of(folder) == ""
    (folder / "remarks.txt").write_text("Drawn by\nhand.\n")
    assert remarks_of(folder) == "Drawn by hand."
    assert "- objects: `x`. Drawn by hand.\n" in page_text(
        Results(), dataclasses.replace(SETTING, objects="x", remarks=remarks_of(folder))
    )
    (folder / "prompts.txt").write_bytes("\ufeff# things\r\na ball\r\n\r\n a  cube\r\na ball\r\n".encode())
    assert prompts_of(folder) == ["a ball", "a cube"]
    (folder / "prompts.txt").write_bytes("a ball\n".encode("utf-16"))
    with pytest.raises(ConfigError, match="no UTF-8 text"):
        prompts_of(folder)


def test_objects_neither_collide_nor_vanish_however_people_name_them(tmp_path: Path) -> None:
    long = "a_3d-rigged_low_poly_antique_wooden_dining_chair"
    named = [
        "Chair.glb",
        "chair.GLB",
        "chair_2.glb",
        f"{long}_v1.glb",
        f"{long}_v2.glb",
        "椅子.glb",
        "桌子.glb",
        "lamp/Mesh.GLB",
        "lamp.glb",
    ]
    for name in [*named, "._chair.glb", ".cache/mesh.glb", "deep/er/mesh.glb", "model.gltf", "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"glTF")
    found = found_subjects(tmp_path, [], 10.0)
    assert sorted(str(subject.glb.relative_to(tmp_path)) for subject in found) == sorted(named)
    names = {str(subject.glb.relative_to(tmp_path)): subject.name for subject in found}
    assert (names["Chair.glb"], names["chair.GLB"], names["chair_2.glb"]) == ("chair", "chair-3", "chair-2")
    assert len(set(names.values())) == len(named)
    prompts = {str(subject.glb.relative_to(tmp_path)): subject.prompt for subject in found}
    assert prompts["椅子.glb"] == "a 椅子"
    assert prompts[f"{long}_v2.glb"] == "a a 3d rigged low poly antique wooden dining chair v2"
    assert [subject.glb.name for subject in found_subjects(tmp_path, ["chair-3"], 10.0)] == ["chair.GLB"]
    assert left_out(tmp_path) == ["deep/er/mesh.glb", "model.gltf"]


def test_names_of_the_same_thing_are_right() -> None:
    prompts, names = ["a red couch", "a wooden table"], ["winchester sofa", "folding table", "dog"]
    assert candidate_texts(prompts, names)[2:] == ["a winchester sofa", "a folding table", "a dog"]
    assert right_texts(prompts, names).tolist() == [[True, False, True, False, False], [False, True, False, True, False]]


def test_one_failure_does_not_end_the_others(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_object(pipeline: object, subject: Subject) -> tuple[ObjectResult, Image.Image]:
        if subject.name == "big-ball":
            raise StageError("the density field is empty", 3, "try another seed")
        return result(subject.name, nerf=20.0), Image.new("RGB", (16, 8))

    monkeypatch.setattr("flows.benchmark.flow.one_object", one_object)
    monkeypatch.setattr("flows.benchmark.flow.asset_result", lambda name, run, files: asset_with(name=name, browser=None))
    monkeypatch.setattr("flows.benchmark.flow.check_priors", lambda config: None)
    monkeypatch.setattr("flows.benchmark.flow.Journal.send", lambda journal, place: True)
    told = benchmark.fn(objects=objects_folder(tmp_path / "objects"), preset="smoke", with_prompts=False)
    assert [entry["name"] for entry in told["objects"]] == ["red-ball"]
    assert [entry["name"] for entry in told["failures"]] == ["big-ball"]
    assert "the density field is empty" in unpadded(Path(told["output"]).read_text())
    assert "| red-ball | 0123abcd | 0 | 0 | 1.50 | 20,000 | 48.0 (44.0) | - | - |" in unpadded(Path(told["output"]).read_text())
    assert (tmp_path / "docs" / "benchmarks" / "red-ball.png").is_file()
    folder = next((store / "journals").glob("benchmark-*"))
    logged = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    assert {"benchmark/nerf/psnr": 20.0}.items() <= next(line["metrics"] for line in logged if "metrics" in line).items()
    assert logged[-1]["status"] == "FAILED"
    child = [json.loads(line) for line in (folder / "red-ball.jsonl").read_text().splitlines()]
    assert child[1]["metrics"] == {"benchmark/nerf/psnr": 20.0, "benchmark/nerf/chamfer": 0.05}


@pytest.mark.usefixtures("store")
def test_the_command_ends_with_1_after_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def stand_in(**arguments: object) -> dict[str, object]:
        seen.update(arguments)
        return {"output": "docs/benchmarks/index.md", "failures": [{"name": "ball", "message": "empty"}]}

    monkeypatch.setattr("flows.benchmark.flow.benchmark", stand_in)
    monkeypatch.setattr("flows.cli.study.temporary_server", lambda meanwhile: nullcontext())
    ended = CliRunner().invoke(app, ["benchmark", "--only", "ball", "--only", "cube", "--no-prompts", "--json"])
    assert ended.exit_code == 1
    assert "1 could not be measured, first ball: empty" in ended.stderr
    assert json.loads(ended.stdout)["output"] == "docs/benchmarks/index.md"
    assert (seen["only"], seen["with_prompts"], seen["objects"]) == (["ball", "cube"], False, PROJECT / "benchmark" / "objects")


def test_a_benchmark_without_prompts_keeps_those_of_the_page() -> None:
    objects, prompts = (
        [result("a", nerf=20.0)],
        [PromptResult("a couch", "89abcdef", hits=6, views=8, nearest="a sofa", alignment=0.5)],
    )
    first = page_text(Results(objects, prompts), SETTING)
    later = dataclasses.replace(SETTING, date="2026-02-02", seed=9, machine="another machine")
    second = page_text(Results(objects), later, before=first)
    assert "Measured on 2026-01-01: the last benchmark took no prompts" in second
    kept = second.partition("## Prompts")[2]
    assert "machine: a machine, 2 cores; 2 threads." in kept and "preset `home`, seed 3," in kept
    assert "another machine" not in kept and "seed 9" not in kept
    assert "| a couch | 89abcdef | 6/8 | a sofa | 0.500 |" in kept
    third = page_text(Results(objects), dataclasses.replace(SETTING, date="2026-03-03"), before=second)
    assert third.count("Measured on") == 1 and "Measured on 2026-01-01" in third
    assert "Measured on" not in page_text(Results(objects, prompts), later, before=second)
    assert "## Prompts" not in page_text(Results(objects), later)


@pytest.mark.parametrize("kept", [True, False])
def test_prompts_that_all_failed_are_not_those_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    monkeypatch.chdir(tmp_path)
    write_report(
        Results(prompts=[PromptResult("a couch", "89abcdef", hits=6, views=8, nearest="a sofa", alignment=0.5)]),
        SETTING,
        [],
        [],
        keep_prompts=False,
    )
    page = write_report(Results(failures=[Failure("a couch", "no judge")]), SETTING, [], [], keep_prompts=kept).read_text()
    assert ("89abcdef" in page) == kept


def test_figures_without_a_better_direction_stand_in_every_step() -> None:
    rough = [
        ObjectResult(name, name, "0", {"nerf": {"roughness_deg": 9.0}, "neus": {"roughness_deg": end}}) for name, end in NEW
    ]
    text = page_text(Results(rough), SETTING)
    row = next(line for line in text.splitlines() if line.startswith("| nerf -> neus"))
    assert "| +2.0 ± 1.0 |" in row and "**" not in row
    summary = "- **neus** clearly improves nothing, and makes nothing clearly worse. "
    assert f"{summary}Without a better direction: roughness, deg +2.0 ± 1.0." in text
    assert "seconds" not in text.partition("## Change by each stage")[2].partition("## Object by object")[0]


def test_every_measured_stage_has_its_predecessor_named() -> None:
    assert ROWS[ROWS.index("untextured") + 1] == "texture"
    assert [after for before, after in STEPS if before != "untextured"] == [
        stage for stage in ROWS[1:] if stage != "untextured"
    ]
    rows = {**dict.fromkeys(ROWS, 10.0), "untextured": 8.0}
    text = page_text(Results(objects=[result("a", **rows)]), SETTING)
    assert text.count("| = |") >= 5
    assert "| untextured -> texture: one colour -> reference, painted views and DSD | +2.00 (1/1) |" in text
    assert "| polish -> texture: the mesh's colours -> DSD | = |" in text
    assert "Everything that brings colour (reference, painted views, **texture**), against one colour, clearly improves" in text
    assert "- **texture** clearly improves nothing" in text


def test_rasterisers_are_measured_side_by_side_and_stand_on_the_page(tmp_path: Path) -> None:
    assert read_rasterizers(tmp_path) == []
    write_rasterizers(tmp_path / "store", measure_rasterizers([2], [32, 64]))
    found = read_rasterizers(tmp_path / "store")
    assert [(one.triangles, one.size) for one in found] == [(320, 32), (320, 64)]
    assert all(min(one.ours_ms, one.culled_ms, one.embree_ms, one.scene_ms) > 0 for one in found)
    # Only pixels on an edge between two faces may be told apart.
    assert all(one.differ < 0.02 for one in found)
    (tmp_path / "store" / "benchmark-rasterizers.json").write_text('[{"faces": 1}]')
    assert read_rasterizers(tmp_path / "store") == []
    told = dataclasses.replace(found[0], culled_ms=6.0, embree_ms=4.0, scene_ms=8.0)
    text = page_text(Results(), SETTING, rasterizers=[told])
    assert "takes 1.50 to 1.50 times embree's time on a mesh that stands still and 0.50 to 0.50 times on one that moves" in text


def test_the_asset_table_says_what_falls_short() -> None:
    bad = asset_with(name="table", warnings=1, ours=Agreement(33, 31.9), browser=None, note="no browser")
    text = page_text(Results(assets=[SOUND]), SETTING)
    assert "| chair | 0123abcd | 0 | 0 | 1.50 | 20,000 | 48.0 (44.0) | 47.0 (40.0) | - |" in text
    assert "1 assets: the validator has no complaint; every view reaches 32 dB (1 of 1 drawn by three.js too)." in text
    text = page_text(Results(assets=[SOUND, bad]), SETTING)
    assert "**not without complaint of the validator: table**" in text
    assert "**below 32 dB in a view: table**" in text
    assert "Not drawn by three.js: no browser." in text
