"""Opening a run's priors: each on the run's device, with the digest that enters fingerprints."""

from pathlib import Path

import torch

from dreampolish.priors.loading import PriorError, PriorSource, digest
from dreampolish.priors.normals import DiffusionNormalPrior, load_normal_prior
from dreampolish.priors.text import DiffusionTextPrior, load_text_prior
from dreampolish.priors.view import DiffusionViewPrior, load_view_prior
from schemas.config import PriorSource as PriorSetting
from stages.context import RunContext
from stages.errors import StageError

REMEDY = "see the README's section on priors, and `dreampolish doctor`"


def prior_digests(run: RunContext, *names: str) -> list[str]:
    """Digests of the named priors (text, view, normals, judge): of a folder's content, or the pinned revision of a hub id."""
    return [_digest(run, getattr(run.priors, name)) for name in names]


def _digest(run: RunContext, setting: PriorSetting) -> str:
    if setting.revision is not None:
        return setting.revision
    try:
        return digest(Path(run.prior_folder(setting.source)))
    except PriorError as error:
        raise StageError(str(error), None, REMEDY) from error


def _source(run: RunContext, setting: PriorSetting) -> PriorSource:
    return PriorSource(str(run.prior_folder(setting.source)), setting.revision)


def open_text_prior(run: RunContext) -> DiffusionTextPrior:
    """The text prior; StageError in one line when it cannot be opened."""
    try:
        prior = load_text_prior(_source(run, run.priors.text))
    except (PriorError, OSError, RuntimeError) as error:
        raise _cannot_open(error) from error
    prior.to(run.torch_device)
    return prior


def open_view_prior(run: RunContext) -> DiffusionViewPrior:
    """The view prior; StageError in one line when it cannot be opened."""
    try:
        prior = load_view_prior(_source(run, run.priors.view))
    except (PriorError, OSError, RuntimeError) as error:
        raise _cannot_open(error) from error
    prior.to(run.torch_device)
    return prior


def open_normal_prior(run: RunContext) -> DiffusionNormalPrior:
    """The normal prior; StageError in one line when it cannot be opened."""
    try:
        prior = load_normal_prior(_source(run, run.priors.normals))
    except (PriorError, OSError, RuntimeError) as error:
        raise _cannot_open(error) from error
    prior.to(run.torch_device)
    return prior


def _cannot_open(error: Exception) -> StageError:
    """One line for a prior that is missing, damaged or of another shape than its config says."""
    return StageError(f"a prior cannot be opened: {str(error).splitlines()[0]}", None, REMEDY)


def seeded_noise(run: RunContext, name: str) -> torch.Generator:
    """A generator apart from a stage's own, for previews and samples that must not shift the optimisation's draws."""
    return torch.Generator(device=run.torch_device).manual_seed(run.seed * 7919 + sum(name.encode()))
