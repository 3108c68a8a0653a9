"""Figures that every stage reports of its result, and the turntable views that every stage leaves."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.metrics.judge import load_alignment
from dreampolish.metrics.lpips import SMALLEST, Lpips, LpipsError, load_lpips
from dreampolish.metrics.pictures import psnr, ssim
from dreampolish.priors.loading import PriorError, PriorSource
from dreampolish.scene.cameras import Cameras, turntable_cameras
from dreampolish.scene.pictures import write_picture
from schemas.config.shared import PreviewConfig
from stages.guidance.reference_view import REFERENCE_FOV_DEG, ReferenceView
from stages.runtime.errors import StageError
from stages.runtime.stage import RunContext, Stage

JUDGED_SIZE = 256
"""Largest side, pixels, at which the front view is compared: the figures of a run's stages compare, and fields render it in memory."""

Render = Callable[[Cameras], Float[Tensor, "b h w 3"]]


def render_previews(config: PreviewConfig, render: Render, device: torch.device) -> Float[Tensor, "n h w 3"]:
    """The turntable's views, azimuth 0 first, one camera at a time to bound memory."""
    cameras = turntable_cameras(config.n_views, config.elevation_deg, REFERENCE_FOV_DEG, config.size).to(device)
    with torch.no_grad():
        return torch.cat([render(cameras[[index]]) for index in range(len(cameras))])


def write_previews(stage: Stage, views: Float[Tensor, "n h w 3"]) -> list[Path]:
    """One PNG a view among the artifact's files."""
    paths = [stage.path(f"preview-{index}.png") for index in range(len(views))]
    for path, view in zip(paths, views, strict=True):
        write_picture(path, view)
    return paths


def judged(run: RunContext, view: ReferenceView, render: Render, views: Float[Tensor, "n h w 3"]) -> dict[str, float]:
    """Reference-view PSNR (dB) and SSIM, the mean alignment of all `views` with the prompt, and what CLIP and LPIPS say where they are
    configured. Every stage is judged at the picture's own size (at most JUDGED_SIZE), whatever size it worked at."""
    reference = view.whole(JUDGED_SIZE)
    front = render(reference.camera)
    figures = {"psnr": float(psnr(front, reference.rgb)), "ssim": float(ssim(front, reference.rgb))}
    return {**figures, "alignment": alignment(run, reference.prompt, views), **real_figures(run, reference, front, views)}


def alignment(run: RunContext, prompt: str, views: Float[Tensor, "n h w 3"]) -> float:
    """Mean cosine of the embedded judge between pictures and a prompt."""
    folder = Path(run.prior_folder(run.priors.judge.source))
    try:
        judge = load_alignment(folder)
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise StageError(f"the judge at {folder} cannot be opened: {first}", None, "restore priors/home/judge") from error
    text = judge.embed_texts([prompt])
    return float((judge.embed_images(views.cpu().permute(0, 3, 1, 2)) @ text[0]).mean())


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
