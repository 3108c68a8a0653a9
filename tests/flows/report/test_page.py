"""The report's parts: what it tells, what it leaves out to stay small, and that a user's words stay words."""

import base64
import errno
import io
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner, Result

from dreampolish.optim.atomic_files import sha256_of
from flows.cli import app
from flows.report import page
from flows.report.chart import HEIGHT, WIDTH, chart, figure
from flows.report.curves import curves_of_stage, thinned
from flows.report.facts import RunFacts, open_facts
from flows.report.gallery import Entry, escaped, index_text, picture_names
from flows.report.output import shown_files, write_output
from flows.report.page import compare_page, run_page
from flows.report.settings import changes_from_default, making_command, overrides_between, preset_config, text
from flows.report.strips import evenly, strip_of_views
from flows.report.viewer.model import fitting_glb
from flows.report.viewer.three import three_script
from flows.runs.chain import CHAIN
from flows.runs.create import new_run
from schemas.artifacts import ReferenceArtifact, StageName
from schemas.config.presets import load_config, merged
from schemas.config.run import Config
from schemas.runs import STAGES, RunRecord
from stages.runtime.command import open_recorded, run_one
from stages.runtime.errors import StageError
from stages.runtime.files import PROJECT
from stages.runtime.records import read_record, record_path
from stages.runtime.store import LocalStore

CONFIGS = Path(__file__).parents[3] / "configs"
EVIL = 'a <script>alert("x")</script> chair & </script> <img src=http://127.0.0.1/x> "it\'s"'
SETTINGS = [
    "seed=7",
    "texture.lambda_stable=0.5",
    "nerf.view.t_max={start: 0.9, end: 0.3, begin: 0.1, until: 0.6}",
    "priors.text.source=/models/my own/text",
    "reference.negative_prompt=ugly, 'odd'",
    "neus.cameras.elevation_deg=[-5, 30]",
    "export.roughness=1e-4",
    "priors.clip={source: /models/clip}",
]

runner = CliRunner()


def invoke(*arguments: str) -> Result:
    return runner.invoke(app, list(arguments))


def alone(name: StageName, run: str) -> None:
    """One stage of a run, without Prefect."""
    run_one(CHAIN[name], run, [], tracking_uri=None, show_progress=False)


@pytest.fixture
def finished(store: Path, stand_ins: object, priors_folder: None) -> RunRecord:
    """A run with all stages, its prompt hostile."""
    record = new_run(store, EVIL, "smoke", ["seed=7", "texture.lambda_stable=0.5"], None)
    for name in STAGES:
        alone(name, record.run)
    return read_record(store, record.run)


class Page(HTMLParser):
    """What a browser makes of a page's source: elements, and the text of headings."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_a_hostile_prompt_stays_text_and_nothing_is_fetched(finished: RunRecord, store: Path) -> None:
    facts = open_facts(finished, store, 64)
    for source in (run_page(facts), compare_page([facts, facts])):
        seen = Page(source)
        assert [element.get("type") for element in seen.all("script")].count(None) == 1
        assert all((image.get("src") or "").startswith("data:image/webp;base64,") for image in seen.all("img"))
        addresses = [value for _, attributes in seen.elements for key, value in attributes.items() if key in ("src", "href")]
        assert all((value or "").startswith("data:") for value in addresses)
        assert EVIL in "".join(seen.texts["h1"] + seen.texts.get("h3", []))
        policy = next(meta["content"] for meta in seen.all("meta") if meta.get("http-equiv")) or ""
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_a_page_tells_stages_settings_lineage_and_commands(finished: RunRecord, store: Path) -> None:
    source = run_page(open_facts(finished, store, 64))
    for name, entry in finished.stages.items():
        assert entry.fingerprint[:12] in source, name
    for words in ("Textured", "step cap 1", "computed", "texture.lambda_stable", "dreampolish texture", "dreampolish compare"):
        assert words in source
    # Curves need two points; the stand-ins log one.
    assert "Curves" not in source


def test_a_run_that_took_its_geometry_over_says_so(finished: RunRecord, store: Path) -> None:
    from flows.runs.create import derived_run

    record = derived_run(store, finished.run, ["texture.steps=9"], STAGES[:-2], reuse_stale=True)[0]
    alone("texture", record.run)
    facts = open_facts(read_record(store, record.run), store, 64)
    assert [stage.state for stage in facts.stages] == ["reused"] * len(STAGES[:-2]) + ["computed"]
    assert facts.making.line == f"dreampolish texture {finished.run} --set texture.steps=9"
    assert facts.glb is None
    assert "has not got as far as an asset" in run_page(facts)


def test_the_output_folder_holds_the_page(finished: RunRecord, store: Path, tmp_path: Path) -> None:
    done = write_output(finished, LocalStore(store), tmp_path / "outputs")
    folder = Path(done.output or "")
    assert finished.run in (folder / "report.html").read_text()
    assert [path.name for path in shown_files(done)] == [
        "asset.glb",
        "report.html",
        "contact_sheet.png",
        "candidates.png",
        "turntable.png",
    ]
    reference = open_recorded(ReferenceArtifact, finished, store)
    assert reference.candidates is not None
    sheet = LocalStore(store).folder("reference", reference.fingerprint) / reference.candidates.path
    assert (folder / "candidates.png").read_bytes() == sheet.read_bytes()
    assert "Candidates for the reference" in (folder / "report.html").read_text()
    (folder / "asset-5000.usdz").write_bytes(b"exported since")
    (folder / "my notes").mkdir()
    (folder / "my notes" / "good.txt").write_text("the back is good")
    (folder / "report.html").write_text("old")
    write_output(done, LocalStore(store), tmp_path / "outputs")
    assert (folder / "asset-5000.usdz").read_bytes() == b"exported since"
    assert (folder / "my notes" / "good.txt").read_text() == "the back is good"
    assert finished.run in (folder / "report.html").read_text()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "nothing is left beside it"
    assert json.loads((folder / "run.json").read_text())["output"] == "."


@pytest.mark.parametrize("when", ["filling", "renaming"])
def test_an_error_leaves_the_older_output_and_nothing_beside_it(
    finished: RunRecord, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    done = write_output(finished, LocalStore(store), tmp_path / "outputs")
    folder = Path(done.output or "")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def into_place(path: Path, target: Path) -> Path:
        return full() if path.name.endswith(".partial") else rename(path, target)

    rename = Path.rename
    with monkeypatch.context() as patched:
        if when == "filling":
            patched.setattr("flows.report.output.write_page", full)
        else:
            patched.setattr(Path, "rename", into_place)
        with pytest.raises(StageError, match="No space left on device.*outputs go to ./outputs"):
            write_output(done, LocalStore(store), tmp_path / "outputs")
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_store_and_outputs_may_move_together(finished: RunRecord, store: Path, tmp_path: Path) -> None:
    done = write_output(finished, LocalStore(store), tmp_path / "outputs")
    assert str(tmp_path) not in record_path(store, done.run).read_text()
    assert read_record(store, done.run) == done
    (tmp_path / "elsewhere").mkdir()
    store.rename(tmp_path / "elsewhere" / "store")
    assert not Path(read_record(tmp_path / "elsewhere" / "store", done.run).output or "").exists(), "its outputs stayed behind"
    (tmp_path / "outputs").rename(tmp_path / "elsewhere" / "outputs")
    moved = read_record(tmp_path / "elsewhere" / "store", done.run)
    assert moved.output == str(tmp_path / "elsewhere" / "outputs" / Path(done.output or "").name)
    assert Path(moved.output, "asset.glb").is_file()


@pytest.mark.usefixtures("stand_ins", "priors_folder")
def test_a_picture_of_the_user_has_no_candidates(store: Path, tmp_path: Path) -> None:
    picture = np.full((64, 64, 3), 255, np.uint8)
    picture[20:44, 20:44] = 80
    Image.fromarray(picture).save(tmp_path / "box.png")
    record = new_run(store, "a chair", "smoke", [], tmp_path / "box.png")
    for name in STAGES:
        alone(name, record.run)
    done = write_output(read_record(store, record.run), LocalStore(store), tmp_path / "outputs")
    assert not (Path(done.output or "") / "candidates.png").exists()
    page = (Path(done.output or "") / "report.html").read_text()
    assert "Candidates for the reference" not in page
    assert page.count('alt="The picture as it came"') == page.count('alt="The object cut out"') == 1


def test_report_and_compare_write_pages_and_refuse_in_one_line(finished: RunRecord, store: Path, tmp_path: Path) -> None:
    told = invoke("report", finished.run[:6], "--json")
    assert told.exit_code == 0, told.stderr
    written = Path(json.loads(told.stdout.splitlines()[-1])["report"])
    assert written.name == "report.html"
    assert finished.run in written.read_text()
    twin = finished.model_copy(update={"run": "feed0000", "config": merged(finished.config, {}, ["seed=8"])})
    (store / "runs" / "feed0000.json").write_text(twin.model_dump_json())
    target = tmp_path / "both.html"
    assert invoke("compare", finished.run, "feed0000", "--output", str(target)).exit_code == 0
    assert re.search(r"seed</th><td>7</td><td>8</td>", target.read_text())
    refused = invoke("compare", finished.run, finished.run)
    assert (refused.exit_code, refused.stderr) == (2, "a comparison needs 2 to 8 different runs, got 1\n")
    (store / "runs" / "beef0000.json").write_text(
        finished.model_copy(update={"run": "beef0000", "stages": {}}).model_dump_json()
    )
    assert "no results yet" in invoke("report", "beef0000").stderr


@pytest.mark.parametrize("settings", [[], SETTINGS[:2], SETTINGS])
@pytest.mark.parametrize("preset", ["home", "smoke"])
def test_the_making_command_gives_the_same_settings(preset: str, settings: list[str], store: Path) -> None:
    config = load_config(preset, CONFIGS, settings)
    record = RunRecord(run="0123abcd", prompt="-a 'red' chair", config=config, created="2026-01-01T00:00:00+00:00")
    words = shlex.split(making_command(record, store).line)
    assert words[:2] == ["dreampolish", "run"]
    assert words[-2:] == ["--", "-a 'red' chair"]
    given_preset = words[words.index("--preset") + 1] if "--preset" in words else "home"
    overrides = [words[index + 1] for index, word in enumerate(words) if word == "--set"]
    assert load_config(given_preset, CONFIGS, overrides) == config


def test_a_picture_of_the_project_is_named_where_every_checkout_has_it(store: Path) -> None:
    own = PROJECT / "benchmark" / "objects" / "barrel" / "reference.png"
    for digest, path in ((sha256_of(own), own), ("0" * 64, store / "inputs" / ("0" * 64))):
        record = RunRecord(run="0123abcd", prompt="a", config=Config(), created="now", image=digest)
        words = shlex.split(making_command(record, store).line)
        assert words[words.index("--image") + 1] == str(path)


def test_changes_name_who_made_them() -> None:
    found = {
        change.name: change for change in changes_from_default(load_config("smoke", CONFIGS, ["texture.lambda_stable=0.5"]))
    }
    assert (found["texture.lambda_stable"].after, found["texture.lambda_stable"].by_preset) == ("0.5", False)
    assert found["nerf.steps"].by_preset
    assert overrides_between(Config(), preset_config("home")) == []


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_values_are_written_as_set_reads_them(value: object) -> None:
    import yaml

    read = yaml.safe_load(text(value))
    assert (float(read) if isinstance(read, str) else read) == value


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=900), st.integers(4, 60))
def test_thinning_keeps_ends_and_extremes(values: list[float], limit: int) -> None:
    curve = list(enumerate(values))
    kept = thinned(curve, limit)
    assert len(kept) <= max(limit, 4)
    assert [step for step, _ in kept] == sorted({step for step, _ in kept})
    assert (kept[0], kept[-1]) == (curve[0], curve[-1])
    assert {min(values), max(values)} <= {value for _, value in kept}


def test_curves_come_from_whichever_run_computed_the_stage(tmp_path: Path) -> None:
    fingerprint = "ab" * 32
    lines = [
        {"t": 1, "title": "nerf"},
        *({"t": 2, "step": step, "metrics": {"nerf/psnr": step / 2, "final/psnr": 9}} for step in (5, 10)),
    ]
    for run, count in (("cached00", 1), ("computed", 3)):
        path = tmp_path / "journals" / run / f"nerf-{fingerprint[:12]}.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(json.dumps(line) for line in lines[:count]) + '\n{"step": 15, "met')
    assert curves_of_stage(tmp_path, "cached00", "nerf", fingerprint) == {"psnr": [(5, 2.5), (10, 5.0)]}
    assert curves_of_stage(tmp_path, "cached00", "neus", fingerprint) == {}


def test_charts_fill_their_frame_and_turn_logarithmic() -> None:
    flat = chart("loss_rgb", [[(0, 1.0), (10, 3.0), (20, 2.0)]])
    assert f'points="0.0,{HEIGHT}.0 {WIDTH / 2},0.0 {WIDTH}.0,{HEIGHT / 2}"' in flat.svg
    assert (flat.name, flat.low, flat.high, flat.last, flat.is_log) == ("loss rgb", "1", "3", ("2",), False)
    steep = chart("loss", [[(0, 1.0), (1, 10.0), (2, 100.0)], [(0, 10.0)]])
    assert f"{WIDTH / 2},{HEIGHT / 2}" in steep.svg
    assert steep.is_log
    assert 'class="line-1"' in steep.svg
    assert f"0.0,{HEIGHT / 2}" in chart("flat", [[(0, 4.0), (1, 4.0)]]).svg


@pytest.mark.parametrize(("value", "told"), [(12345.6, "12,346"), (3.0, "3"), (0.0123456, "0.0123"), (-7.25, "-7.25")])
def test_figures_read_well(value: float, told: str) -> None:
    assert figure(value) == told


def test_a_strip_holds_evenly_spaced_views(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(24)]
    for index, path in enumerate(paths):
        Image.new("RGB", (40, 40), (10 * index, 0, 0)).save(path)
    assert evenly(paths, 16) == paths[::2]
    strip = strip_of_views(paths, 20)
    assert (strip.n_views, strip.side) == (12, 20)
    with Image.open(io.BytesIO(base64.b64decode(strip.uri.partition(",")[2]))) as picture:
        reds = np.asarray(picture.convert("RGB"))[10, 10::20, 0].astype(int)
    assert np.abs(reds - 20 * np.arange(12)).max() <= 6


def noisy_glb(side: int) -> bytes:
    """A textured box whose picture does not compress."""
    box = trimesh.creation.box()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(pixels))
    box.visual = trimesh.visual.TextureVisuals(uv=box.vertices[:, :2] + 0.5, material=material)
    return trimesh.Scene(box).export(file_type="glb")


def test_a_model_too_large_gets_smaller_maps_and_the_same_shape() -> None:
    glb = noisy_glb(512)
    assert fitting_glb(glb, len(glb)) is glb
    light = fitting_glb(glb, 100_000)
    assert light is not None
    assert len(light) <= 100_000
    before, after = (trimesh.load(io.BytesIO(data), file_type="glb", force="mesh") for data in (glb, light))
    np.testing.assert_array_equal(before.vertices, after.vertices)
    np.testing.assert_array_equal(before.faces, after.faces)
    assert max(after.visual.material.baseColorTexture.size) in (256, 512)
    assert fitting_glb(glb, 500) is None
    assert fitting_glb(b"no model at all", 5) is None


def test_a_page_keeps_below_its_limit(finished: RunRecord, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 400_000 + len(three_script())
    monkeypatch.setattr(page, "MAX_BYTES", limit)
    facts = open_facts(finished, store, 64)
    large = RunFacts(**{**vars(facts), "glb": noisy_glb(512)})
    assert large.glb is not None
    assert len(large.glb) > 600_000
    for source in (run_page(large), compare_page([large, large])):
        assert len(source.encode()) <= limit
        assert "lighter copy" in source
        assert 'id="model-0"' in source
    monkeypatch.setattr(page, "MAX_BYTES", 1000)
    assert "too large for this page" in run_page(large)


def test_the_gallery_says_which_are_worst(store: Path) -> None:
    def entry(number: int, prompt: str, alignment: float) -> Entry:
        record = RunRecord(run=f"0000000{number}", prompt=prompt, config=Config(), created="2026-01-01T00:00:00+00:00")
        return Entry(record, f"{number}.jpg", alignment, f"alignment {alignment}")

    entries = [entry(1, "a bad [car]", -0.1), entry(2, "a table", 0.5), entry(3, "a lamp", 0.3), entry(4, "a bed", 0.2)]
    told = index_text(entries, store)
    order = [told.index(f"{number}.jpg") for number in (2, 3, 4)]
    assert order == sorted(order)
    assert max(order) < told.index("## The worst 1 of 4") < told.index("1.jpg")
    assert "a bad \\[car\\]" in told
    assert escaped("<b>*") == "\\<b\\>\\*"
    records = [item.record for item in [*entries, entry(5, "A table!", 0.0)]]
    assert picture_names(records)[1:] == ["a-table-00000002.jpg", "a-lamp.jpg", "a-bed.jpg", "a-table-00000005.jpg"]
