"""Zero123++ and ImageDream on real classes made tiny.

Both networks were compared with their authors' code on these folders: equal to 2e-6, cameras to 1e-7. What is tested here follows from
the papers and pipelines: layouts, sheets, what the pictures' attention sees, refusals.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dreampolish.priors.folders.source import PriorError, PriorSource
from dreampolish.priors.multiview.imagedream import ImageDreamPrior, camera_numbers, rows_of_sets
from dreampolish.priors.multiview.loading import contents_of_any, load_set_prior
from dreampolish.priors.multiview.zero123plus import Zero123PlusPrior, sheet_of, version_of, views_of
from dreampolish.priors.protocols import SetPrior, SetSubject
from tests.support.hub_folders import write_stable_diffusion
from tests.support.set_folders import write_imagedream, write_zero123plus


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sets")
    write_zero123plus(place / "zero123plus-v1.2")
    write_imagedream(place / "imagedream")
    return place


def _source(folder: Path) -> PriorSource:
    return PriorSource(str(folder), None)


@pytest.fixture
def zero(folders: Path) -> Zero123PlusPrior:
    found = load_set_prior(_source(folders / "zero123plus-v1.2"))
    assert isinstance(found, Zero123PlusPrior)
    return found


@pytest.fixture
def dream(folders: Path) -> ImageDreamPrior:
    found = load_set_prior(_source(folders / "imagedream"))
    assert isinstance(found, ImageDreamPrior)
    return found


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _subject(seed: int = 0) -> SetSubject:
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 20:44] = 1
    picture = torch.rand(1, 3, 64, 64, generator=_generator(seed)) * mask + 1 - mask
    return SetSubject(picture, mask, 10.0, "a chair")


def _repaint(prior: SetPrior, subject: SetSubject, views: tuple[tuple[float, float], ...], strength: float) -> torch.Tensor:
    return prior.repaint(
        subject,
        images=torch.full((len(views), 3, 64, 64), prior.background),
        views=views,
        strength=strength,
        guidance_scale=2.0,
        steps=2,
        renewed=1.0,
        generator=_generator(1),
    )


def test_a_sheet_is_laid_out_row_by_row() -> None:
    views = torch.arange(6).float().view(6, 1, 1, 1).expand(6, 3, 4, 4)
    sheet = sheet_of(views)
    assert sheet.shape == (1, 3, 12, 8)
    assert sheet[0, 0, ::4, ::4].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert torch.equal(views_of(sheet), views)


def test_zero123plus_paints_its_published_views(zero: Zero123PlusPrior, tmp_path: Path) -> None:
    assert zero.own_views == ((30, 20), (90, -10), (150, 20), (210, -10), (270, 20), (330, -10))
    write_zero123plus(tmp_path / "zero123plus-v1.1")
    assert version_of(_source(tmp_path / "zero123plus-v1.1")) == "v1.1"
    older = load_set_prior(_source(tmp_path / "zero123plus-v1.1"))
    assert older.own_views is not None
    assert older.own_views[:2] == ((30, 30), (90, -20))
    with pytest.raises(ValueError, match="own six views"):
        _repaint(zero, _subject(), ((0.0, 0.0),) * 6, 1.0)


def test_both_paint_views_that_depend_on_the_picture(zero: Zero123PlusPrior, dream: ImageDreamPrior) -> None:
    for prior, views in ((zero, zero.own_views), (dream, tuple((90.0 * turn, 5.0) for turn in range(4)))):
        assert isinstance(prior, SetPrior)
        assert views is not None
        first, second = _repaint(prior, _subject(0), views, 1.0), _repaint(prior, _subject(1), views, 1.0)
        assert first.shape == (len(views), 3, 64, 64)
        assert first.isfinite().all() and first.min() >= 0 and first.max() <= 1
        assert not torch.allclose(first, second, atol=1e-3)
        assert torch.equal(first, _repaint(prior, _subject(0), views, 1.0))


def test_little_noise_leaves_latents_near_what_they_were(zero: Zero123PlusPrior) -> None:
    """A sheet's latents go through the shift and scale and back."""
    pictures = torch.rand(6, 3, 64, 64, generator=_generator(2))
    latents = zero._sheet_latents(sheet_of(pictures))
    raw = zero.autoencoder.encode((sheet_of(pictures) * 2 - 1) * 0.625).latent_dist.mode() * 0.18215
    assert torch.allclose(latents, (raw - 0.22) * 0.75, atol=1e-6)
    decoded = zero.autoencoder.decode(raw / 0.18215).sample / 0.625 / 2 + 0.5
    assert torch.allclose(zero._sheet_picture(latents), decoded.clamp(0, 1), atol=1e-5)


def test_self_attention_sees_the_reference_of_its_own_row_alone(zero: Zero123PlusPrior) -> None:
    noisy = torch.randn(1, 4, 24, 16, generator=_generator(3)).expand(2, -1, -1, -1)
    references, noise = torch.randn(2, 2, 4, 8, 8, generator=_generator(4)).unbind(1)
    words = torch.randn(1, 77, 32, generator=_generator(5)).expand(2, -1, -1)
    timesteps = torch.tensor([400, 400])
    both = zero.output(noisy, timesteps, references, noise, contexts=words)
    assert not torch.allclose(both[0], both[1], atol=1e-4)
    for row in range(2):
        rows = [row, row]
        alone = zero.output(noisy, timesteps, references[rows], noise[rows], contexts=words)
        assert torch.allclose(both[row], alone[0], atol=1e-5)


def test_four_views_of_a_set_see_each_other_and_sets_do_not(dream: ImageDreamPrior) -> None:
    generator = _generator(6)
    noisy = torch.randn(8, 4, 8, 8, generator=generator)
    told = {
        "timesteps": torch.full((8,), 300),
        "words": torch.randn(1, 77, 32, generator=generator),
        "picture": torch.randn(1, 17, 40, generator=generator),
        "latent": torch.randn(1, 4, 8, 8, generator=generator),
        "cameras": camera_numbers([(90.0 * turn, 5.0) for turn in range(8)]).view(2, 4, 16),
    }
    before = dream.output(noisy=noisy, **told)
    changed = noisy.clone()
    changed[3] += 1
    after = dream.output(noisy=changed, **told)
    moved = (after - before).abs().amax(dim=(1, 2, 3))
    assert bool((moved[:4] > 1e-5).all())
    assert float(moved[4:].max()) < 1e-6


def test_cameras_are_mvdreams() -> None:
    """Front at -y, azimuths counterclockwise seen from above, distance 1."""
    front, right = camera_numbers([(0.0, 0.0), (90.0, 0.0)]).view(2, 4, 4)
    assert torch.allclose(front[:3, 3], torch.tensor([0.0, -1.0, 0.0]), atol=1e-6)
    assert torch.allclose(right[:3, 3], torch.tensor([1.0, 0.0, 0.0]), atol=1e-6)
    assert torch.allclose(front[:3, 2], torch.tensor([0.0, -1.0, 0.0]), atol=1e-6)  # +z of the camera: away from the object
    assert torch.allclose(front[:3, 1], torch.tensor([0.0, 0.0, 1.0]), atol=1e-6)


def test_views_of_a_set_lie_far_from_each_other() -> None:
    assert rows_of_sets(8).tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert rows_of_sets(6).tolist() == [[0, 2, 4, 0], [1, 3, 5, 1]]
    assert sorted(set(rows_of_sets(3).flatten().tolist())) == [0, 1, 2]


def test_views_come_back_in_their_order(dream: ImageDreamPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = torch.linspace(0.1, 0.9, 6)
    monkeypatch.setattr("dreampolish.priors.multiview.imagedream.repainted", lambda **told: told["latents"])
    monkeypatch.setattr(dream, "encode", lambda images: images)
    monkeypatch.setattr(dream, "decode", lambda latents: latents)
    images = marks.view(6, 1, 1, 1).expand(6, 3, 64, 64)
    painted = dream.repaint(
        _subject(),
        images=images,
        views=[(60.0 * turn, 0.0) for turn in range(6)],
        strength=0.5,
        guidance_scale=1.0,
        steps=1,
        renewed=0.0,
        generator=_generator(0),
    )
    assert torch.equal(painted, images)


def test_contents_are_told_without_reading_weights(folders: Path) -> None:
    zero, dream = (contents_of_any(_source(folders / name)) for name in ("zero123plus-v1.2", "imagedream"))
    assert (zero.role, zero.family, zero.image_size, zero.prediction) == ("views", "Zero123++", 64, "v_prediction")
    assert (dream.role, dream.family, dream.image_size, dream.prediction) == ("views", "ImageDream", 64, "epsilon")
    assert set(dream.parameters) == {"unet", "vae", "text_encoder", "image_encoder"}


def _without_ramp(folder: Path) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index.pop("ramping_coefficients", None)
    (folder / "model_index.json").write_text(json.dumps(index))


def _renamed(folder: Path) -> None:
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    state = load_file(path)
    name = sorted(state)[0]
    state[f"{name}x"] = state.pop(name)
    save_file(state, path, metadata={"format": "pt"})


def _words_only(folder: Path) -> None:
    shutil.rmtree(folder / "image_encoder")


def _smaller(folder: Path) -> None:
    path = folder / "unet/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"ip_dim": 8}))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("zero123plus-v1.2", _without_ramp, "ramping_coefficients"),
        ("zero123plus-v1.2", _renamed, "lacks"),
        ("imagedream", _renamed, "camera_embed.0.bias"),
        ("imagedream", _words_only, "sees words only"),
        ("imagedream", _smaller, "another shape"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(
    folders: Path, tmp_path: Path, name: str, change: Callable[[Path], None], said: str
) -> None:
    folder = tmp_path / name
    shutil.copytree(folders / name, folder)
    change(folder)
    for read in (contents_of_any, load_set_prior):
        with pytest.raises(PriorError, match=said) as refused:
            read(_source(folder))
        assert "\n" not in str(refused.value)


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PriorError, match="painted by Zero123"):
        load_set_prior(_source(write_stable_diffusion(tmp_path / "sd")))
