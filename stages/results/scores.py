"""How a stage's result looks: the turntable's views, and PSNR, SSIM, alignment, CLIP and LPIPS of them.

Scores lie beside the artifact, under a key of their own: another CLIP computes scores anew and no stage.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float
from pydantic import BaseModel
from torch import Tensor

from dreampolish.metrics.lpips import SMALLEST, Lpips, LpipsError, load_lpips
from dreampolish.metrics.pictures import psnr, ssim
from dreampolish.priors.folders.source import PriorError, PriorSource
from dreampolish.scene.cameras import Cameras, turntable_cameras
from dreampolish.scene.pictures import write_picture
from schemas.artifacts import Artifact, ReferenceArtifact, ScoresArtifact
from schemas.config.shared.geometry import PreviewConfig
from stages.guidance.priors import alignment
from stages.guidance.reference_view import REFERENCE_FOV_DEG, REFERENCE_VIEW, ReferenceView, load_reference
from stages.results.observer import as_bytes, strip
from stages.results.surfaces import open_artifact
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError
from stages.runtime.keys.key import hashed, library_versions, prior_digests, read_fields, source_digest
from stages.runtime.keys.remembered import known_code
from stages.runtime.stage import Stage

JUDGED_SIZE = 256
"""Largest side, pixels, at which the front view is compared: the figures of a run's stages compare, and fields render it in memory."""

JUDGED_VIEWS_SIZE = 128
"""Largest side, pixels, of the views that the judge sees: what it says depends on the size, so that all stages are judged at one."""

NO_CONTENT = ("metrics", "seconds", "peak_memory", "cuda_peak_memory", "notes", "parents", "fingerprint")
"""Fields of an artifact that do not change how it looks."""

Render = Callable[[Cameras], Float[Tensor, "b h w 3"]]


class TurntableScorer:
    """Renders a result from all around and judges it against the reference picture and the prompt."""

    def key(self, run: RunContext, artifact: Artifact, reference: Artifact, settings: BaseModel) -> str:
        """Over the artifact's files, the reference, the preview's settings, the measuring code and the networks that judge."""
        code = known_code(__name__, "compute_scores", ends=("stages.runtime",))
        return hashed(
            {
                "stage": "scores",
                "of": artifact.stage,
                "result": artifact.model_dump(mode="json", exclude=set(NO_CONTENT)),
                "reference": read_fields(reference, REFERENCE_VIEW),
                "settings": _settings(settings),
                "device": run.torch_device.type,
                "judges": _judges(run),
                "libraries": library_versions(code.libraries),
                "code": code.digest,
            }
        )

    def compute(self, stage: Stage, artifact: Artifact, reference: Artifact, settings: BaseModel) -> ScoresArtifact:
        """The scores, published."""
        assert isinstance(reference, ReferenceArtifact)
        return compute_scores(stage, artifact, reference, settings)


TURNTABLE = TurntableScorer()


def _settings(settings: BaseModel) -> dict[str, object]:
    """The section's settings that decide how its result is looked at."""
    looked_at = {"preview", "samples_per_ray", "occupancy_resolution", "shell_parts"}
    found = settings.model_dump(mode="json", include=looked_at)
    return {**found, "preview": {key: value for key, value in found["preview"].items() if key != "interval"}}


def _judges(run: RunContext) -> list[str]:
    """Digests of the judge and of what CLIP and LPIPS are configured."""
    try:
        digests = prior_digests(run, "judge")
        digests += [f"clip {source_digest(run, run.priors.clip)}"] if run.priors.clip is not None else []
        return digests + ([f"lpips {source_digest(run, run.priors.lpips)}"] if run.priors.lpips is not None else [])
    except PriorError as error:
        raise StageError(str(error), None, "or leave the setting out") from error


def compute_scores(stage: Stage, artifact: Artifact, reference: ReferenceArtifact, settings: BaseModel) -> ScoresArtifact:
    """Views from all around as PNGs, and the figures of the result."""
    preview = PreviewConfig.model_validate(settings.preview)  # type: ignore[attr-defined]
    surface = open_artifact(artifact, settings, stage)

    def render(cameras: Cameras) -> Tensor:
        return surface.render(cameras).rgb

    with torch.no_grad():
        views = render_previews(preview, render, stage.device)
        judged = views
        if preview.size > JUDGED_VIEWS_SIZE:
            judged = render_previews(preview.model_copy(update={"size": JUDGED_VIEWS_SIZE}), render, stage.device)
        view = load_reference(stage, reference, min(preview.size, JUDGED_SIZE))
        figures = figures_of(stage.run, view, render, judged)
    stage.image("views", 0, as_bytes(strip(views)))
    return stage.publish(ScoresArtifact, metrics=figures, previews=_write_previews(stage, views))


def render_previews(config: PreviewConfig, render: Render, device: torch.device) -> Float[Tensor, "n h w 3"]:
    """The turntable's views, azimuth 0 first, one camera at a time to bound memory."""
    cameras = turntable_cameras(config.n_views, config.elevation_deg, REFERENCE_FOV_DEG, config.size).to(device)
    with torch.no_grad():
        return torch.cat([render(cameras[[index]]) for index in range(len(cameras))])


def _write_previews(stage: Stage, views: Float[Tensor, "n h w 3"]) -> list[Path]:
    """One PNG a view among the artifact's files."""
    paths = [stage.path(f"preview-{index}.png") for index in range(len(views))]
    for path, view in zip(paths, views, strict=True):
        write_picture(path, view)
    return paths


def figures_of(run: RunContext, view: ReferenceView, render: Render, views: Float[Tensor, "n h w 3"]) -> dict[str, float]:
    """Reference-view PSNR (dB) and SSIM, the mean alignment of all `views` with the prompt, and what CLIP and LPIPS say where they are
    configured. Every stage is judged at the picture's own size (at most JUDGED_SIZE), whatever size it worked at."""
    reference = view.whole(JUDGED_SIZE)
    front = render(reference.camera)
    figures = {"psnr": float(psnr(front, reference.rgb)), "ssim": float(ssim(front, reference.rgb))}
    return {**figures, "alignment": alignment(run, reference.prompt, views), **real_figures(run, reference, front, views)}


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
