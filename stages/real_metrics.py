"""Figures by real CLIP and real LPIPS, where the settings name their weights: `clip_text`, `clip_image`, `lpips`. Off by default.

They only measure; nothing is optimised or chosen by them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.metrics.lpips import SMALLEST, Lpips, LpipsError, load_lpips
from dreampolish.priors.loading import PriorError, PriorSource
from stages.context import RunContext
from stages.errors import StageError
from stages.reference_view import ReferenceView

if TYPE_CHECKING:
    from dreampolish.metrics.clip import ClipScorer

M = TypeVar("M")


def real_figures(
    run: RunContext, reference: ReferenceView, front: Float[Tensor, "1 h w 3"], views: Float[Tensor, "n h w 3"]
) -> dict[str, float]:
    """What is configured, of a stage's result.

    clip_text: mean cosine of `views` with the prompt (real assets reach 0.2 to 0.35). clip_image: mean cosine of `views` with the
    reference picture. lpips: of `front` against the reference, lower is better; left out below 64 pixels, where it is not defined.
    """
    figures = {}
    if run.priors.clip is not None:
        clip = clip_scorer(run)
        seen = clip.embed_images(_channels_first(views))
        figures["clip_text"] = float((seen @ clip.embed_texts([reference.prompt])[0]).mean())
        figures["clip_image"] = float((seen @ clip.embed_images(_channels_first(reference.rgb))[0]).mean())
    if run.priors.lpips is not None and min(front.shape[1:3]) >= SMALLEST:
        figures["lpips"] = float(lpips_distance(run)(front.to(run.torch_device), reference.rgb.to(run.torch_device)))
    return figures


def clip_scorer(run: RunContext) -> "ClipScorer":
    """The CLIP that the settings name. StageError, in one line, when they name none or it cannot be opened."""
    # It imports much of transformers: seconds, which runs without CLIP need not wait.
    from dreampolish.metrics.clip import load_clip

    setting = run.priors.clip
    if setting is None:
        raise StageError("no CLIP is configured, and nothing else may be called CLIP", None, "--set priors.clip.source=FOLDER")
    source = PriorSource(str(run.prior_folder(setting.source)), setting.revision)
    return _opened(lambda: load_clip(source, run.torch_device))


def lpips_distance(run: RunContext) -> Lpips:
    """The LPIPS that the settings name. StageError, in one line, when they name none or it cannot be opened."""
    setting = run.priors.lpips
    if setting is None:
        raise StageError(
            "no LPIPS is configured, and nothing else may be called LPIPS", None, "--set priors.lpips.source=FOLDER"
        )
    return _opened(lambda: load_lpips(Path(run.prior_folder(setting.source)), run.torch_device))


def _opened(load: Callable[[], M]) -> M:
    try:
        return load()
    except (PriorError, LpipsError) as error:
        raise StageError(str(error), None, "or leave the setting out") from error


def _channels_first(pictures: Tensor) -> Tensor:
    return torch.movedim(pictures, -1, 1)
