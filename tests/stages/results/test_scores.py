"""Scores lie beside the artifacts: naming another judge computes them anew, and no stage."""

from pathlib import Path

import pytest

from flows.runs.chain import CHAIN
from flows.runs.create import new_run
from schemas.runs import StageRecord
from stages.runtime.command import run_one
from stages.runtime.records import read_record
from tests.support.tiny_priors import PROMPT, SETTINGS, write_clip, write_picture, write_priors

JUDGE = Path(__file__).parents[3] / "priors/home/judge"
RUN = ("reference", "nerf", "neus")


def stages_of(store: Path, overrides: list[str], picture: Path) -> dict[str, StageRecord]:
    """The first three stages of a new tiny run, without Prefect."""
    record = new_run(store, PROMPT, "smoke", overrides, picture)
    for name in RUN:
        run_one(CHAIN[name], record.run, [], tracking_uri=None, show_progress=False)
    return dict(read_record(store, record.run).stages)


@pytest.mark.slow
@pytest.mark.skipif(not JUDGE.is_dir(), reason="the embedded judge is not in this checkout")
def test_naming_a_clip_computes_only_scores(store: Path, tmp_path: Path) -> None:
    priors, picture = write_priors(tmp_path / "priors"), write_picture(tmp_path / "disc.png")
    first = stages_of(store, [*SETTINGS, *priors], picture)
    (tmp_path / "clip").mkdir()
    clip = f"priors.clip.source={write_clip(tmp_path / 'clip')}"
    second = stages_of(store, [*SETTINGS, *priors, clip], picture)
    assert [second[name].state for name in RUN] == ["cached"] * 3
    assert [second[name].fingerprint for name in RUN] == [first[name].fingerprint for name in RUN]
    assert first["nerf"].scores != second["nerf"].scores
    assert "clip_text" not in first["nerf"].metrics
    assert -1.0 <= second["nerf"].metrics["clip_text"] <= 1.0
    # What was scored without CLIP is as it was.
    for name in ("psnr", "ssim", "alignment"):
        assert second["nerf"].metrics[name] == first["nerf"].metrics[name]
