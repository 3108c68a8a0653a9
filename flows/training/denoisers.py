"""Training tasks: text, view and normal prior, one function each, over one way to fit a U-Net."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from dreampolish.data.batches import RenderedViews
from dreampolish.data.captions import training_words
from dreampolish.metrics.judge import load_alignment
from dreampolish.optim.fit import FitResult, fit
from dreampolish.priors.estimators.normals import load_normal_prior, pictures_from_normals
from dreampolish.priors.folders.loading import load_unet
from dreampolish.priors.folders.source import PriorError, PriorSource
from dreampolish.priors.text.loading import load_text_prior
from dreampolish.priors.view import load_projection, load_view_prior
from dreampolish.training.diffusion import DenoisingLoss, RunningAverage, build_schedule, learning_rate_factor
from dreampolish.training.evaluation import TEXT_SHEET, UNSEEN_PAIRS, normal_scores, ranked_first, text_sheet, view_scores
from dreampolish.training.folders import interleaved, tiled, write_png, write_prior
from dreampolish.training.recipes import Draws, Recipe, Size, normals_recipe, text_recipe, view_recipe
from flows.training.held_out import held_out_trial
from flows.training.session import TrainingPlace, TrainingWatch, finish, open_space, open_views
from schemas.trainings import DenoiserTraining, PriorsTraining
from stages.runtime.context import device_from_name
from stages.runtime.errors import StageError

Kind = Literal["text", "view", "normals"]


def train_text(place: TrainingPlace, config: PriorsTraining) -> dict[str, float]:
    """Train the text prior and write `<home>/text` with its sheet of prompts. The judge, not a figure here, says how well it aligns."""
    views = open_views(place, config, "train", _device(config))
    recipe = text_recipe(views, open_space(place, config, views.device), _size(config.text), _draws(config.text))
    fitted = _fit(place=place, config=config, kind="text", recipe=recipe, views=views)
    words = training_words(views.nouns(index) for index in range(len(views.entries)))
    (place.project / config.home / "text" / "vocabulary.json").write_text(json.dumps(words))
    return judge_text(place, config, fitted.steps)


def train_view(place: TrainingPlace, config: PriorsTraining) -> dict[str, float]:
    """Train the view prior from the text prior's weights and write `<home>/view`; figures on held-out objects."""
    views = open_views(place, config, "train", _device(config))
    start = _start(place, config, "text", "view")
    context_dim = int(start.config.cross_attention_dim)  # type: ignore[union-attr,arg-type]
    recipe = view_recipe(
        views=views,
        space=open_space(place, config, views.device),
        size=_size(config.view),
        draws=_draws(config.view),
        context_dim=context_dim,
        start=start,
    )
    fitted = _fit(place=place, config=config, kind="view", recipe=recipe, views=views)
    return judge_view(place, config, fitted.steps)


def train_normals(place: TrainingPlace, config: PriorsTraining) -> dict[str, float]:
    """Train the normal prior from the view prior's weights and write `<home>/normals`; angular errors on held-out objects."""
    views = open_views(place, config, "train", _device(config))
    start = _start(place, config, "view", "normal")
    recipe = normals_recipe(
        views=views,
        space=open_space(place, config, views.device),
        size=_size(config.normals),
        draws=_draws(config.normals),
        start=start,
    )
    fitted = _fit(place=place, config=config, kind="normals", recipe=recipe, views=views)
    return judge_normals(place, config, fitted.steps)


def _device(config: PriorsTraining) -> torch.device:
    """Where the U-Nets are trained; StageError for a device that this machine lacks."""
    try:
        return device_from_name(config.device)
    except StageError as error:
        raise StageError(f"no device {config.device} on this machine", None, "use --device cpu") from error


def _start(place: TrainingPlace, config: PriorsTraining, kind: Kind, for_whom: str) -> nn.Module:
    """The U-Net that a training begins with; StageError where it has not been trained."""
    try:
        return load_unet(PriorSource(str(place.project / config.home / kind), None))
    except PriorError as error:
        raise StageError(str(error), None, f"train the {kind} prior first: the {for_whom} prior starts from it") from error


def _size(settings: DenoiserTraining) -> Size:
    return Size(settings.block_channels, settings.attended, settings.heads, settings.seed)


def _draws(settings: DenoiserTraining) -> Draws:
    return Draws(settings.batch, settings.unconditional)


def _fit(place: TrainingPlace, config: PriorsTraining, kind: Kind, recipe: Recipe, views: RenderedViews) -> FitResult:
    """Fit a recipe's modules, resuming where an earlier attempt stopped, and write the averaged weights."""
    settings: DenoiserTraining = getattr(config, kind)
    generator = torch.Generator().manual_seed(settings.seed)
    alphas_cumprod = build_schedule().alphas_cumprod.float().to(views.device)
    parameters = [p for module in recipe.modules.values() for p in module.parameters()]
    folder = place.project / config.home / kind
    if settings.continued:
        _take_weights(recipe.modules, PriorSource(str(folder), None))
    average = RunningAverage(parameters, settings.average_decay)
    weights = open_space(place, config, views.device).autoencoder.channel_weights(settings.pixel_emphasis)
    loss = DenoisingLoss(
        denoiser=recipe.denoiser,
        average=average,
        draw=recipe.draw,
        alphas_cumprod=alphas_cumprod,
        channel_weights=weights.to(views.device),
        gamma=settings.gamma,
        exponent=settings.timestep_exponent,
        autocast=settings.autocast,
        generator=generator,
    )

    def export() -> None:
        with average.in_place():
            write_prior(folder, {**recipe.modules, "scheduler": build_schedule()}, recipe.references)

    fitted = fit(
        losses=loss,
        optimizer=torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True),
        learning_rate_factor=lambda step: learning_rate_factor(step, settings.warmup, settings.decay_from, settings.steps),
        steps=settings.steps,
        generator=generator,
        stateful={**recipe.modules, "average": average},
        checkpoints=place.checkpoints(kind, config.checkpoint_interval),
        observer=TrainingWatch(place, place.journal(kind), export, views),
    )
    export()
    return fitted


def _take_weights(modules: Mapping[str, nn.Module], source: PriorSource) -> None:
    """Load a prior's own weights into its modules; StageError where there are none or they are of another size."""
    try:
        modules["unet"].load_state_dict(load_unet(source).state_dict())
        if "cc_projection" in modules:
            modules["cc_projection"].load_state_dict(load_projection(source).state_dict())
    except (PriorError, RuntimeError) as error:
        raise StageError(str(error), None, "train without `continued`, or with the sizes of the weights") from error


def _source(place: TrainingPlace, config: PriorsTraining, kind: Kind) -> tuple[Path, PriorSource]:
    folder = place.project / config.home / kind
    return folder, PriorSource(str(folder), None)


def judge_text(place: TrainingPlace, config: PriorsTraining, step: int) -> dict[str, float]:
    """Draw the sheet of prompts; where the judge is there, the share of pictures that it gives to their own prompt."""
    folder, source = _source(place, config, "text")
    generator = torch.Generator().manual_seed(1)
    prior = load_text_prior(source)
    pictures = text_sheet(
        prior=prior, prompts=TEXT_SHEET, guidance_scale=config.text_guidance, steps=config.sampling_steps, generator=generator
    )
    sheet = tiled(pictures, columns=8, gap=4)
    write_png(sheet, folder / "sheet.png")
    unseen = text_sheet(
        prior=prior,
        prompts=UNSEEN_PAIRS,
        guidance_scale=config.text_guidance,
        steps=config.sampling_steps,
        generator=torch.Generator().manual_seed(1),
    )
    write_png(tiled(unseen, columns=8, gap=4), folder / "unseen_pairs.png")
    judge = place.project / config.home / "judge"
    if not (judge / "config.json").is_file():
        return finish(place=place, journal=place.journal("text"), scores={}, sheet=sheet, step=step)
    scorer = load_alignment(judge)
    scores = {
        "prompt_ranked_first": ranked_first(scorer, pictures, TEXT_SHEET),
        "chance": 1 / len(TEXT_SHEET),
        "unseen_pair_ranked_first": ranked_first(scorer, unseen, UNSEEN_PAIRS),
        "unseen_pair_chance": 1 / len(UNSEEN_PAIRS),
    }
    return finish(place=place, journal=place.journal("text"), scores=scores, sheet=sheet, step=step)


def judge_view(place: TrainingPlace, config: PriorsTraining, step: int) -> dict[str, float]:
    """Sampled views of held-out objects against the true ones, beside both baselines."""
    folder, source = _source(place, config, "view")
    trial = held_out_trial(open_views(place, config, "held_out"), open_views(place, config, "train"), config.view_pairs)
    generator = torch.Generator().manual_seed(1)
    scores, sampled = view_scores(
        prior=load_view_prior(source),
        trial=trial,
        guidance_scale=config.view_guidance,
        steps=config.view_sampling_steps,
        generator=generator,
    )
    shown = [part[:24] for part in (trial.references, trial.targets, sampled)]
    sheet = tiled(interleaved(shown), columns=12, gap=4)
    write_png(sheet, folder / "sheet.png")
    return finish(place=place, journal=place.journal("view"), scores=scores, sheet=sheet, step=step)


def judge_normals(place: TrainingPlace, config: PriorsTraining, step: int) -> dict[str, float]:
    """Angular errors of estimates on held-out objects, beside normals that all face the viewer."""
    folder, source = _source(place, config, "normals")
    generator = torch.Generator().manual_seed(1)
    pictures, normals, mask = open_views(place, config, "held_out").normal_batch(config.sheet_pictures, generator)
    scores, found = normal_scores(
        prior=load_normal_prior(source),
        pictures=pictures,
        normals=normals,
        mask=mask,
        steps=config.normal_steps,
        generator=generator,
    )
    shown = [part[:24] for part in (pictures, pictures_from_normals(normals, mask), pictures_from_normals(found, mask))]
    sheet = tiled(interleaved(shown), columns=12, gap=4)
    write_png(sheet, folder / "sheet.png")
    return finish(place=place, journal=place.journal("normals"), scores=scores, sheet=sheet, step=step)
