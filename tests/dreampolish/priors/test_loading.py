"""Opening priors: round trips through folders, and one clear line for everything that is wrong."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from dreampolish.priors.estimators.normals import load_normal_prior
from dreampolish.priors.folders.digests import digest, packaged_digest
from dreampolish.priors.folders.loading import load_autoencoder_folder
from dreampolish.priors.folders.source import PriorError, PriorSource
from dreampolish.priors.text.loading import load_text_prior
from dreampolish.priors.view import load_view_prior
from dreampolish.training.diffusion import build_schedule
from dreampolish.training.folders import write_prior
from schemas.config.run import PriorsConfig, TextSource
from stages.runtime.context import RunContext
from stages.runtime.keys.key import prior_digests
from tests.support.tiny_priors import CHANNELS, tiny_space, tiny_unet, tiny_view_prior, write_text_encoder

COMMIT = "0123456789" * 4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All priors as folders beside each other, their text encoder in a folder of its own."""
    home = tmp_path_factory.mktemp("home")
    write_text_encoder(home / "words")
    autoencoder = tiny_space().autoencoder
    write_prior(home / "space", {"vae": autoencoder}, {})
    references = {"vae": "../space/vae", "text_encoder": "../words", "tokenizer": "../words"}
    view = tiny_view_prior()
    write_prior(home / "text", {"unet": tiny_unet(CHANNELS, False), "scheduler": build_schedule()}, references)
    write_prior(home / "normals", {"unet": tiny_unet(2 * CHANNELS, False), "scheduler": build_schedule()}, references)
    components = {"unet": view.unet, "cc_projection": view.projection, "scheduler": build_schedule()}
    write_prior(home / "view", components, {"vae": "../space/vae"})
    return home


def test_a_text_prior_comes_back_and_samples(home: Path) -> None:
    prior = load_text_prior(PriorSource(str(home / "text"), None))
    assert prior.schedule.prediction_type == "v_prediction"
    assert prior.image_size == 8
    assert prior.alphas_cumprod.shape == (1000,)
    text = prior.embed(["a red chair", "a table"])
    assert text.mask.sum(dim=1).tolist() == [5, 4]  # with the marks of beginning and end
    assert prior.embed([""]).states.shape[:2] == (1, 2)
    assert prior.sample(text, prior.embed([""]), 3.0, 2, 0.0, torch.Generator().manual_seed(0)).shape == (2, 3, 8, 8)
    assert not any(parameter.requires_grad for parameter in prior.network.module.parameters())


def test_a_view_prior_comes_back_equal(home: Path) -> None:
    prior, written = load_view_prior(PriorSource(str(home / "view"), None)), tiny_view_prior()
    image, pose = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([[0.1, 0.5, 0.8, 0.0]])
    noisy = torch.randn(1, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(1))
    found, expected = (
        each.predict_epsilon(noisy, torch.tensor([400]), each.condition(image), pose) for each in (prior, written)
    )
    assert torch.allclose(found, expected, atol=2e-2)  # float16 on disk
    assert (found - noisy).abs().max() > 0.1


def test_a_normal_prior_comes_back_and_estimates(home: Path) -> None:
    prior = load_normal_prior(PriorSource(str(home / "normals"), None))
    assert prior.estimate(torch.rand(2, 3, 8, 8), 1, torch.Generator().manual_seed(0)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("location", "revision", "words"),
    [
        ("no/such folder", None, "no prior folder"),
        ("../../nowhere", COMMIT, "owner/name"),
        ("owner/name/more", COMMIT, "owner/name"),
        ("owner/name", "main", "40 hexadecimal"),
        ("owner/name", COMMIT[:-1], "40 hexadecimal"),
    ],
)
def test_bad_places_are_refused_in_one_line(location: str, revision: str | None, words: str) -> None:
    with pytest.raises(PriorError, match=words) as caught:
        PriorSource(location, revision).component("unet")
    assert "\n" not in str(caught.value)


def test_a_pinned_hub_id_is_opened_from_the_local_cache_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PriorError, match="priors fetch owner/absent"):
        PriorSource("owner/absent", COMMIT).component("unet")
    snapshot = tmp_path / "models--owner--name/snapshots" / COMMIT
    shutil.copytree(home / "space", snapshot)
    assert PriorSource("owner/name", COMMIT).component("vae") == snapshot / "vae"


def test_a_missing_component_is_named(home: Path, tmp_path: Path) -> None:
    broken = tmp_path / "text"
    shutil.copytree(home / "text", broken)
    with pytest.raises(PriorError, match="should lie at"):
        load_text_prior(PriorSource(str(broken), None))  # ../space does not exist here
    index = json.loads((broken / "model_index.json").read_text())
    del index["references"]["vae"]
    (broken / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(PriorError, match="no component 'vae'"):
        load_text_prior(PriorSource(str(broken), None))


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    write_prior(tmp_path, {"vae": tiny_space().autoencoder}, {})
    weights = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(PriorError, match="only safetensors"):
        load_autoencoder_folder(tmp_path / "vae")


def test_unknown_autoencoder_classes_are_refused(tmp_path: Path) -> None:
    write_prior(tmp_path, {"vae": tiny_space().autoencoder}, {})
    config = tmp_path / "vae" / "config.json"
    config.write_text(config.read_text().replace("PatchAutoencoder", "Evil"))
    with pytest.raises(PriorError, match="Evil"):
        load_autoencoder_folder(tmp_path / "vae")


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    write_prior(tmp_path, {}, {"vae": "package:no_such_package_anywhere/model"})
    with pytest.raises(PriorError, match="no_such_package_anywhere"):
        PriorSource(str(tmp_path), None).component("vae")


def test_the_digest_follows_every_file_that_counts(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    before = digest(copy / "text")
    assert before == digest(home / "text")
    (copy / "text" / "sheet.png").write_bytes(b"a picture")
    (copy / "text" / "README.md").write_text("words")
    assert digest(copy / "text") == before
    config = copy / "space" / "vae" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert digest(copy / "text") != before
    with pytest.raises(PriorError, match="no prior folder"):
        digest(tmp_path / "nothing")


def test_files_that_a_package_carries_count(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "carried_words"
    shutil.copytree(home / "words", package / "model")
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    write_prior(tmp_path / "text", {}, {"text_encoder": "package:carried_words/model"})
    before, words = digest(tmp_path / "text"), packaged_digest("package:carried_words/model")
    vocabulary = package / "model/vocab.txt"
    vocabulary.write_text(vocabulary.read_text() + "lamp\n")
    assert digest(tmp_path / "text") != before
    assert packaged_digest("package:carried_words/model") != words


def test_a_folder_counts_by_its_content_even_beside_a_revision(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    setting = TextSource(source=str(copy / "text"), revision=COMMIT)
    run = RunContext(
        run_id="0",
        store=tmp_path,
        seed=0,
        device="cpu",
        threads=1,
        checkpoint_interval=1,
        priors=PriorsConfig(text=setting, precision="float32"),
    )
    before = prior_digests(run, "text")
    config = copy / "text" / "unet" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert prior_digests(run, "text") != before
    gone = run.model_copy(
        update={"priors": PriorsConfig(text=TextSource(source="owner/name", revision=COMMIT), precision="float32")}
    )
    assert prior_digests(gone, "text") == [f"text {COMMIT}"]
