"""Training task: the patch autoencoder that all embedded priors share."""

import tempfile
from pathlib import Path

import torch

from dreampolish.data.batches import RenderedViews
from dreampolish.optim.fit import fit
from dreampolish.priors.autoencoder import PatchAutoencoder
from dreampolish.priors.estimators.normals import pictures_from_normals
from dreampolish.training.autoencoder import PictureSource, ReconstructionLoss, fit_basis, trained_parameters
from dreampolish.training.diffusion import learning_rate_factor
from dreampolish.training.evaluation import reconstruction_scores
from dreampolish.training.folders import interleaved, move_files, tiled, write_component, write_png
from dreampolish.training.recipes import latent_space
from flows.training.session import TrainingPlace, TrainingWatch, finish, open_views
from schemas.trainings import AutoencoderTraining, PriorsTraining


def mixed_pictures(views: RenderedViews) -> PictureSource:
    """Three renders for one normal picture."""

    def draw(n: int, generator: torch.Generator) -> torch.Tensor:
        rendered, _ = views.text_batch(n - n // 4, generator)
        _, normals, mask = views.normal_batch(n // 4, generator)
        return torch.cat([rendered, pictures_from_normals(normals, mask)])

    return draw


def train_autoencoder(place: TrainingPlace, config: PriorsTraining) -> dict[str, float]:
    """Fit the basis, train the residual decoder, write `<home>/autoencoder`; held-out PSNR and SSIM of renders and normals."""
    views, settings = open_views(place, config, "train"), config.autoencoder
    generator = torch.Generator().manual_seed(settings.seed)
    autoencoder = _with_basis(views, settings, generator)
    folder, journal = place.project / config.home / "autoencoder", place.journal("autoencoder")
    loss = ReconstructionLoss(
        autoencoder=autoencoder,
        draw=mixed_pictures(views),
        batch=settings.batch,
        noise=settings.latent_noise,
        generator=generator,
    )
    fitted = fit(
        losses=loss,
        optimizer=torch.optim.AdamW(trained_parameters(autoencoder), lr=settings.learning_rate, weight_decay=0.0),
        learning_rate_factor=lambda step: learning_rate_factor(step, 50, settings.steps // 4, settings.steps),
        steps=settings.steps,
        generator=generator,
        stateful={"autoencoder": autoencoder},
        checkpoints=place.checkpoints("autoencoder", config.checkpoint_interval),
        observer=TrainingWatch(place, journal, lambda: write_folder(folder, autoencoder), views),
    )
    write_folder(folder, autoencoder)
    return _judge(place, config, autoencoder.eval().requires_grad_(False), fitted.steps)


def _with_basis(views: RenderedViews, settings: AutoencoderTraining, generator: torch.Generator) -> PatchAutoencoder:
    autoencoder = PatchAutoencoder(
        latent_channels=settings.latent_channels,
        patch_size=settings.patch_size,
        hidden_channels=settings.hidden_channels,
        sample_size=views.size,
    )
    fit_basis(
        autoencoder=autoencoder,
        draw=mixed_pictures(views),
        pictures=settings.basis_pictures,
        whitening=settings.whitening,
        generator=generator,
    )
    autoencoder.encoder.requires_grad_(False)
    return autoencoder


def write_folder(folder: Path, autoencoder: PatchAutoencoder) -> None:
    """Write the autoencoder into its folder, each file in one move."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as partial:
        write_component(Path(partial), autoencoder)
        move_files(Path(partial), folder)


def _judge(place: TrainingPlace, config: PriorsTraining, autoencoder: PatchAutoencoder, step: int) -> dict[str, float]:
    held_out, generator = open_views(place, config, "held_out"), torch.Generator().manual_seed(1)
    pictures, _ = held_out.text_batch(config.sheet_pictures, generator)
    _, normals, mask = held_out.normal_batch(config.sheet_pictures, generator)
    normal_pictures, space = pictures_from_normals(normals, mask), latent_space(autoencoder)
    scores = reconstruction_scores(space, pictures, "") | reconstruction_scores(space, normal_pictures, "normals_")
    shown = [part[:16] for part in (pictures, space.decode(space.encode(pictures)))]
    sheet = tiled(interleaved(shown), columns=8, gap=4)
    write_png(sheet, place.project / config.home / "autoencoder" / "sheet.png")
    return finish(place=place, journal=place.journal("autoencoder"), scores=scores, sheet=sheet, step=step)
