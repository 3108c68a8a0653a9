"""Figures that every stage reports of its result, and the turntable views that every stage leaves."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.cameras import Cameras, turntable_cameras
from dreampolish.metrics.alignment import load_alignment
from dreampolish.metrics.images import psnr, ssim
from dreampolish.pictures import write_picture
from schemas.config_parts import PreviewConfig
from stages.context import RunContext, Stage
from stages.errors import StageError
from stages.real_metrics import real_figures
from stages.reference_view import REFERENCE_FOV_DEG, ReferenceView

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
