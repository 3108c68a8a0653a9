"""A run's artifacts in Prefect: figures and links in Markdown, a picture small enough for a database."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from flows.report.live.prefect_page import SHEET_BYTES, SHEET_WIDTH, asset_markdown, picture_address, show_in_prefect
from schemas.config.run import Config
from schemas.runs import RunRecord, StageRecord

PROMPT = "a *chair* | <script>alert(1)</script> [x](http://evil.example)"


def record(output: Path) -> RunRecord:
    stage = StageRecord(name="nerf", state="cached", seconds=0.0, fingerprint="ab" * 32, metrics={"psnr": 20.5})
    return RunRecord(
        run="abcd1234", prompt=PROMPT, config=Config(), created="2026-01-01", output=str(output), stages={"nerf": stage}
    )


def noise(path: Path) -> Path:
    """The hardest picture to make small."""
    pixels = np.random.default_rng(0).integers(0, 256, (1100, 1024, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_the_markdown_has_figures_and_links_and_no_markup_of_the_prompts(tmp_path: Path) -> None:
    text = asset_markdown(record(tmp_path), [("curves in MLflow", "http://127.0.0.1:5000/#/x")])
    assert "| nerf | cached | 0 s | 20.5 |  |  |" in text
    assert "[curves in MLflow](http://127.0.0.1:5000/#/x)" in text
    assert f"report: `{tmp_path / 'report.html'}`" in text
    assert "<script>" not in text.replace("\\<script\\>", "") and "](http://evil" not in text


def test_the_picture_is_small_whatever_it_shows(tmp_path: Path) -> None:
    flat = tmp_path / "flat.png"
    Image.new("RGB", (1024, 1100), (200, 30, 30)).save(flat)
    for path, most in ((flat, 20_000), (noise(tmp_path / "noise.png"), 4 * SHEET_BYTES)):
        address = picture_address(path)
        kind, _, data = address.partition(",")
        assert kind == "data:image/jpeg;base64"
        content = base64.b64decode(data)
        assert len(content) <= most
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.width <= SHEET_WIDTH


def test_outside_a_flow_run_nothing_is_made(tmp_path: Path) -> None:
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.MonkeyPatch.context() as patched:
        made: list[str] = []
        for name in ("create_markdown_artifact", "create_image_artifact"):
            patched.setattr(f"prefect.artifacts.{name}", lambda *given, name=name, **told: made.append(name))
        show_in_prefect(record(tmp_path), [])
    assert made == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


@pytest.mark.prefect
@pytest.mark.xdist_group("prefect")
def test_a_flow_run_gets_both_and_outlives_a_missing_sheet(prefect_server: None, tmp_path: Path) -> None:
    runs = []

    @flow
    def showing() -> int:
        runs.append(flow_run.id)
        show_in_prefect(record(tmp_path), [])
        return 7

    assert showing() == 7, "there is no contact sheet"
    Image.new("RGB", (64, 64)).save(tmp_path / "contact_sheet.png")
    assert showing() == 7
    with get_client(sync_client=True) as client:
        # Other tests have shown runs to this server, too.
        found = {entry.key: entry for entry in client.read_artifacts() if str(entry.flow_run_id) in runs}
    assert found["asset"].type == "markdown" and "20.5" in str(found["asset"].data)
    assert found["contact-sheet"].type == "image" and str(found["contact-sheet"].data).startswith("data:image/jpeg")
