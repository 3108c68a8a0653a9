"""The training tasks end to end on made-up renders: folders that open, figures beside baselines, a card, clean refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

from dreampolish.data.vocabulary import NATURAL_WORDS, WOODEN_WORDS
from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.text.loading import load_text_prior
from dreampolish.priors.view import load_view_prior
from dreampolish.training.evaluation import UNSEEN_PAIRS
from flows.training.autoencoder import train_autoencoder
from flows.training.card import write_card
from flows.training.denoisers import train_normals, train_text, train_view
from flows.training.session import TrainingPlace
from schemas.trainings import AutoencoderTraining, DenoiserTraining, PriorsTraining
from stages.runtime.errors import StageError
from stages.runtime.signals import StopSignal
from stages.runtime.tracking.journal import Place

SIZE, VIEWS = 16, 6
SMALL = DenoiserTraining(
    block_channels=(16, 16), attended=(False, True), heads=2, steps=2, decay_from=1, batch=2, autocast=False
)
CONFIG = PriorsTraining(
    renders="renders",
    split="split.json",
    home="home",
    device="cpu",
    autoencoder=AutoencoderTraining(latent_channels=4, patch_size=2, hidden_channels=8, basis_pictures=32, steps=2, batch=4),
    text=SMALL,
    view=SMALL,
    normals=SMALL,
    checkpoint_interval=2,
    sheet_pictures=2,
    view_pairs=2,
    view_sampling_steps=1,
    sampling_steps=1,
)


def _describe(identifier: str) -> dict[str, object]:
    """An object as objects.json lists it."""
    return {
        "identifier": identifier,
        "name": "Red chair",
        "tags": ["chair"],
        "category": "Living room",
        "licence": "CC0-1.0",
        "creator": "Somebody",
        "size_m": [1.0, 1.0, 1.0],
        "rotation": None,
        "library": "none",
        "model_path": "none.obj",
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> TrainingPlace:
    """Four objects, a red disc from every side, in one round."""
    project = tmp_path_factory.mktemp("project")
    identifiers = ["a", "b", "c", "d"]
    split = {"train": ["a", "b"], "validation": ["c"], "held_out": ["d"]}
    (project / "split.json").write_text(json.dumps(split))
    folder = project / "renders" / "round_0"
    folder.mkdir(parents=True)
    (project / "renders" / "objects.json").write_text(json.dumps([_describe(name) for name in identifiers]))
    n = len(identifiers) * VIEWS
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    disc = (x**2 + y**2 < 36).astype(np.uint8)
    buffers = np.zeros((n, 8, SIZE, SIZE), dtype=np.uint8)
    buffers[:, 0], buffers[:, 5], buffers[:, 6], buffers[:, 7] = 220, 127 * disc, 255 * disc, 255 * disc
    np.save(folder / "buffers.npy", buffers)
    np.save(folder / "depth.npy", np.zeros((n, SIZE, SIZE), dtype=np.float16))
    index = {
        "objects": [name for name in identifiers for _ in range(VIEWS)],
        "azimuth_deg": [60.0 * (k % VIEWS) for k in range(n)],
        "elevation_deg": [10.0] * n,
        "fov_deg": [20.0] * n,
    }
    (folder / "index.json").write_text(json.dumps(index))
    tracker = Place(f"sqlite:///{project}/mlflow.db", project / "artifacts")
    return TrainingPlace(project, project / "work", tracker, StopSignal())


@pytest.fixture(scope="module")
def scores(place: TrainingPlace) -> dict[str, dict[str, float]]:
    """Every training, once; sending to the tracker is left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.runtime.tracking.journal.Journal.send", lambda journal, place: True)
        return {
            "autoencoder": train_autoencoder(place, CONFIG),
            "text": train_text(place, CONFIG),
            "view": train_view(place, CONFIG),
            "normals": train_normals(place, CONFIG),
        }


def test_every_figure_stands_beside_its_baseline(scores: dict[str, dict[str, float]]) -> None:
    assert scores["autoencoder"]["psnr"] > 20
    assert {"psnr", "ssim", "one_step_psnr", "copy_psnr", "class_mean_psnr"} <= set(scores["view"])
    # All discs face the viewer: the baseline is perfect, an untrained network is not.
    assert scores["normals"]["facing_mean_deg"] < 1
    assert scores["normals"]["mean_deg"] > 5


def test_the_folders_open_and_share_the_autoencoder(place: TrainingPlace, scores: dict[str, dict[str, float]]) -> None:
    home = place.project / "home"
    text = load_text_prior(PriorSource(str(home / "text"), None))
    view = load_view_prior(PriorSource(str(home / "view"), None))
    assert text.latent_shape == view.latent_shape == (4, 8, 8)
    assert text.image_size == view.image_size == SIZE
    assert sorted(path.name for path in home.glob("*/sheet.png")) == ["sheet.png"] * 4
    assert (home / "text" / "unseen_pairs.png").is_file()
    assert not list(home.rglob("*.bin"))


def test_unseen_pairs_are_such_that_no_caption_holds() -> None:
    assert len(set(UNSEEN_PAIRS)) == 16
    for _, word, noun in (pair.split() for pair in UNSEEN_PAIRS):
        assert noun not in WOODEN_WORDS if word == "wooden" else noun in NATURAL_WORDS


def test_a_finished_training_is_not_trained_again(place: TrainingPlace, scores: dict[str, dict[str, float]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stages.runtime.tracking.journal.Journal.send", lambda journal, place: True)
        patch.setattr("dreampolish.training.text.TextBatches.__call__", lambda self, generator: pytest.fail("a step was taken"))
        train_text(place, CONFIG)
    assert place.checkpoints("text", 500).latest() is not None


def test_the_card_names_what_was_trained_on_and_no_more(place: TrainingPlace, scores: dict[str, dict[str, float]]) -> None:
    home = place.project / "home"
    write_card(home, place.project / "renders", place.project / "split.json", {"view": scores["view"]})
    write_card(home, place.project / "renders", place.project / "split.json", {"normals": scores["normals"]})
    card = (home / "README.md").read_text()
    assert card.count("| Red chair | Somebody | CC0-1.0 |") == 2
    assert "| view | copy_psnr |" in card  # figures of an earlier call stay
    assert "| normals | mean_deg |" in card


def test_what_is_missing_is_said(place: TrainingPlace, tmp_path: Path) -> None:
    empty = TrainingPlace(tmp_path, tmp_path / "work", place.tracker, StopSignal())
    (tmp_path / "split.json").write_text((place.project / "split.json").read_text())
    (tmp_path / "renders").mkdir()
    (tmp_path / "renders" / "objects.json").write_text("[]")
    with pytest.raises(StageError, match="priors data"):
        train_text(empty, CONFIG)
    with pytest.raises(StageError, match="train the view prior first"):
        train_normals(place, CONFIG.model_copy(update={"home": "elsewhere"}))
