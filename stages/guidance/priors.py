"""A run's priors: opened on its device; what the judge says; their licences.

diffusers and transformers are imported when a prior is opened: they take seconds, which a stage found in the store does without.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.priors.folders.licences import licences_of
from dreampolish.priors.folders.source import PriorError, PriorSource
from schemas.config.run import PriorSource as PriorSetting
from schemas.plans import Execution
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError
from stages.runtime.keys.key import REMEDY
from stages.runtime.stage import Stage

if TYPE_CHECKING:
    from dreampolish.priors.estimators.depth import DepthPrior
    from dreampolish.priors.estimators.normals import DiffusionNormalPrior
    from dreampolish.priors.estimators.regressor import NormalRegressor
    from dreampolish.priors.estimators.yoso import OneStepNormalPrior
    from dreampolish.priors.latents import LatentSpace, MemoryUse
    from dreampolish.priors.protocols import SetPrior
    from dreampolish.priors.text.prior import DiffusionTextPrior
    from dreampolish.priors.view import DiffusionViewPrior

P = TypeVar("P", bound="LatentSpace | NormalRegressor")

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_SEED_FACTOR = 7919
"""A prime that keeps the seeds of other draws apart from neighbouring runs' seeds."""


def _source(run: RunContext, setting: PriorSetting) -> PriorSource:
    return PriorSource(str(run.prior_folder(setting.source)), setting.revision)


def open_text_prior(stage: Stage) -> "DiffusionTextPrior":
    """The text prior; StageError in one line when it cannot be opened."""
    from dreampolish.priors.text.loading import load_text_prior

    setting = stage.run.priors.text
    return _opened(lambda source: load_text_prior(source, setting.image_size), stage, setting)


def open_view_prior(stage: Stage) -> "DiffusionViewPrior":
    """The view prior; StageError in one line when it cannot be opened."""
    from dreampolish.priors.view import load_view_prior

    setting = stage.run.priors.view
    pose = None if setting.pose == "auto" else setting.pose
    return _opened(lambda source: load_view_prior(source, pose), stage, setting)


def open_normal_prior(stage: Stage) -> "DiffusionNormalPrior | NormalRegressor | OneStepNormalPrior":
    """The normal prior; StageError in one line when it cannot be opened."""
    from dreampolish.priors.estimators.normals import load_normal_prior
    from dreampolish.priors.estimators.regressor import is_regressor, load_regressor
    from dreampolish.priors.estimators.yoso import is_one_step, load_one_step

    setting = stage.run.priors.normals

    def load(source: PriorSource) -> "DiffusionNormalPrior | NormalRegressor | OneStepNormalPrior":
        if is_regressor(source):
            return load_regressor(source, setting.axes)
        return load_one_step(source, setting.axes) if is_one_step(source) else load_normal_prior(source, setting.ensemble)

    return _opened(load, stage, setting)


def open_set_prior(stage: Stage) -> "SetPrior | None":
    """The prior that paints sets of views, or None where the run names none; StageError in one line when it cannot be opened."""
    from dreampolish.priors.multiview.loading import load_set_prior

    setting = stage.run.priors.views
    return None if setting is None else _opened(load_set_prior, stage, setting)


def open_depth_prior(run: RunContext) -> "DepthPrior | None":
    """The depth prior, or None where the run names none; StageError in one line when it cannot be opened."""
    from dreampolish.priors.estimators.depth import load_depth_prior

    setting = run.priors.depth
    if setting is None:
        return None
    try:
        prior = load_depth_prior(_source(run, setting))
    except (PriorError, OSError, RuntimeError) as error:
        what = f"the prior {setting.source} cannot be opened: {str(error).splitlines()[0]}"
        raise StageError(what, None, REMEDY) from error
    prior.to(run.torch_device)
    return prior


def memory_use(execution: Execution) -> "MemoryUse":
    """A plan's part for the priors."""
    from dreampolish.priors.latents import MemoryUse

    return MemoryUse(
        views_at_once=execution.views_at_once,
        rows_at_once=execution.rows_at_once,
        checkpoint_encoder=execution.checkpoint_encoder,
        checkpoint_adapter=execution.checkpoint_adapter,
        towers_on_cpu=execution.towers_on_cpu,
    )


def _opened(load: Callable[[PriorSource], P], stage: Stage, setting: PriorSetting) -> P:
    """A prior on the run's device; one that is missing, damaged or of another shape than its config says is told in one line."""
    run = stage.run
    try:
        prior = load(_source(run, setting))
    except (PriorError, OSError, RuntimeError) as error:
        what = f"the prior {setting.source} cannot be opened: {str(error).splitlines()[0]}"
        raise StageError(what, None, REMEDY) from error
    formats = run.priors
    autoencoder = "float32" if "auto" == formats.vae_precision == formats.precision else formats.vae_precision
    prior.compute_in(
        PRECISIONS[run.precision],
        autoencoder=PRECISIONS.get(autoencoder),
        adapter=PRECISIONS.get(formats.lora_precision),
    )
    from dreampolish.priors.latents import LatentSpace

    if isinstance(prior, LatentSpace):
        prior.spend(memory_use(stage.execution))
    prior.to(run.torch_device)
    return prior


def alignment(run: RunContext, prompt: str, views: Float[Tensor, "n h w 3"]) -> float:
    """Mean cosine of the embedded judge between pictures and a prompt."""
    from dreampolish.metrics.judge import load_alignment

    folder = Path(run.prior_folder(run.priors.judge.source))
    try:
        judge = load_alignment(folder)
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise StageError(f"the judge at {folder} cannot be opened: {first}", None, "restore priors/home/judge") from error
    text = judge.embed_texts([prompt])
    return float((judge.embed_images(views.cpu().permute(0, 3, 1, 2)) @ text[0]).mean())


def seeded_noise(run: RunContext, name: str) -> torch.Generator:
    """A generator apart from a stage's own, for previews and samples that must not shift the optimisation's draws."""
    return torch.Generator(device=run.torch_device).manual_seed(run.seed * _SEED_FACTOR + sum(name.encode()))


def prior_licences(run: RunContext) -> dict[str, str]:
    """For each prior of a run: its source, and the licences that its model card names."""
    settings = {name: each for name in ("text", "view", "views", "normals") if (each := getattr(run.priors, name)) is not None}
    return {name: _told(setting.source, setting.revision, run) for name, setting in settings.items()}


def _told(source: str, revision: str | None, run: RunContext) -> str:
    found = run.prior_folder(source)
    place = source if not Path(source).is_absolute() else Path(source).name
    if isinstance(found, Path) and (named := licences_of(found)):
        return f"{', '.join(named)}; see the model card of {place}"
    return f"see the model card of {place}" + ("" if revision is None else f" at {revision}")
