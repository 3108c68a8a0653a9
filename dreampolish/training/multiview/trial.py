"""Held-out figures and sheets of the joint view prior, as priors.evaluation takes them: sampled views, one-step views, and the baselines
of copying the reference and of the class's mean picture; apart for library objects and for generators never trained on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from dreampolish.metrics.pictures import psnr, ssim
from dreampolish.priors.multiview.prior import SET_AZIMUTH_DEG, SET_ELEVATION_DEG, MultiviewPrior, SetRequest
from dreampolish.scene.lighting import mean_studio_lighting
from dreampolish.training.multiview.objects import Tables
from dreampolish.training.multiview.raster import camera_rotations
from dreampolish.training.multiview.sets import PIXELS, SUPERSAMPLING, VIEWS, Renderer, SetPool, painted_pictures

RENEWED = 1.0
CHUNK = 16


@torch.no_grad()
def true_sets(pool: SetPool, renderer: Renderer, objects: Tensor, pixels: int) -> Float[Tensor, "n v 3 p p"]:
    """The usual views of objects as they are, in their own colours, in the studio's mean light."""
    device, found = objects.device, []
    for some in objects.split(CHUNK):
        azimuth, elevation = usual_poses(len(some), device)
        scene = pool.scene(some, azimuth, elevation, changed=False)
        buffers = renderer(scene, pixels, SUPERSAMPLING).unflatten(0, (len(some), VIEWS))
        light = mean_studio_lighting(len(some))
        rotation = camera_rotations(azimuth, elevation)
        toward = torch.einsum("bkji,blj->bkli", rotation, light.toward.to(device))
        none = torch.zeros(len(some), device=device)
        found.append(
            painted_pictures(
                buffers,
                active=none,
                wooden=none,
                target=torch.zeros(len(some), 3, device=device),
                luminance=none,
                contrast=none,
                up=rotation[..., 2, :],
                toward=toward,
                strengths=light.strengths.to(device),
            )
        )
    return torch.cat(found)


def usual_poses(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Azimuths and elevations (n, 6) of the usual set."""
    return (
        torch.tensor(SET_AZIMUTH_DEG, device=device).expand(n, -1),
        torch.tensor(SET_ELEVATION_DEG, device=device).expand(n, -1),
    )


@dataclass(frozen=True)
class Trial:
    """Held-out objects: their true sets (N, V, 3, P, P), and the mean training set of each one's kind."""

    truth: Tensor
    class_means: Tensor


def class_means(train: Tensor, train_kinds: Sequence[str], kinds: Sequence[str]) -> Tensor:
    """For each kind the mean set of the training objects of that kind, or of all where there is none."""
    everything, answers = train.mean(dim=0), []
    for kind in kinds:
        same = [row for row, each in enumerate(train_kinds) if each == kind]
        answers.append(train[same].mean(dim=0) if same else everything)
    return torch.stack(answers)


def sampled_views(
    prior: MultiviewPrior, references: Tensor, tables: Tables, guidance: float, steps: int, generator: torch.Generator
) -> Float[Tensor, "n v 3 p p"]:
    """Sets from pictures alone; slot 0 holds the reference as the autoencoder gives it back."""
    found = []
    for some in references.split(CHUNK):
        azimuth, elevation = usual_poses(len(some), some.device)
        empty, mask = tables.states[:1].float(), tables.masks[:1]
        words = (empty.expand(len(some), -1, -1), mask.expand(len(some), -1))
        request = SetRequest(azimuth, elevation, some, *words, empty_text=empty, empty_mask=mask)
        found.append(prior.sample(request, guidance_scale=guidance, steps=steps, renewed=RENEWED, generator=generator))
    return torch.cat(found)


def sets_from_text(
    prior: MultiviewPrior, captions: Tensor, tables: Tables, guidance: float, steps: int, generator: torch.Generator
) -> Float[Tensor, "n v 3 p p"]:
    """Sets of the numbered captions."""
    found = []
    for some in captions.split(CHUNK):
        azimuth, elevation = usual_poses(len(some), some.device)
        text = (tables.states[some].float(), tables.masks[some])
        request = SetRequest(azimuth, elevation, None, *text, empty_text=tables.states[:1].float(), empty_mask=tables.masks[:1])
        found.append(prior.sample(request, guidance_scale=guidance, steps=steps, renewed=RENEWED, generator=generator))
    return torch.cat(found)


def scores(found: Tensor, true: Tensor, prefix: str) -> dict[str, float]:
    """Mean PSNR and SSIM over all views but the first."""
    one, other = (each[:, 1:].flatten(0, 1).permute(0, 2, 3, 1).float() for each in (found, true))
    return {
        f"{prefix}psnr": round(float(psnr(one, other).clamp(max=100).mean()), 3),
        f"{prefix}ssim": round(float(ssim(one, other).mean()), 4),
    }


def outline_overlap(found: Tensor, true: Tensor) -> float:
    """Mean intersection over union of what is not white, over all views but the first."""
    one, other = ((each[:, 1:] < 0.96).any(dim=2) for each in (found, true))
    union = (one | other).sum(dim=(2, 3)).clamp(min=1)
    return round(float(((one & other).sum(dim=(2, 3)) / union).mean()), 4)


def uneven_height(sets: Tensor) -> float:
    """How far the tops and feet of one object's four level views lie apart, pixels: a little even in true sets."""
    rows = (sets[:, :4] < 0.94).any(dim=2).any(dim=-1).float()
    top = rows.argmax(dim=-1).float()
    foot = rows.shape[-1] - 1 - rows.flip(-1).argmax(dim=-1).float()
    return round(float((top.std(dim=1) + foot.std(dim=1)).mean() / 2), 3)


def view_figures(
    prior: MultiviewPrior, trial: Trial, tables: Tables, guidance: float, steps: int, generator: torch.Generator
) -> tuple[dict[str, float], Tensor]:
    """Figures of one group of held-out objects; and the sampled sets."""
    references = trial.truth[:, 0]
    sampled = sampled_views(prior, references=references, tables=tables, guidance=guidance, steps=steps, generator=generator)
    single = sampled_views(prior, references=references, tables=tables, guidance=1.0, steps=1, generator=generator)
    found = scores(sampled, trial.truth, "") | scores(single, trial.truth, "one_step_")
    found |= scores(references[:, None].expand_as(trial.truth), trial.truth, "copy_")
    found |= scores(trial.class_means, trial.truth, "class_mean_")
    found |= {"outline_iou": outline_overlap(sampled, trial.truth), "objects": float(len(references))}
    return found | {"uneven_height": uneven_height(sampled), "true_uneven_height": uneven_height(trial.truth)}, sampled


def sheet(rows: Sequence[tuple[str, Tensor]]) -> Image.Image:
    """A picture of rows (label, pictures (k, 3, P, P)) with their labels on top."""
    pixels, most = rows[0][1].shape[-1], max(len(pictures) for _, pictures in rows)
    picture = Image.new("RGB", (most * pixels, len(rows) * (pixels + 12)), "white")
    pen = ImageDraw.Draw(picture)
    for place, (label, pictures) in enumerate(rows):
        strip = (pictures.float().clamp(0, 1).permute(2, 0, 3, 1).flatten(1, 2) * 255).round().byte().cpu().numpy()
        picture.paste(Image.fromarray(np.ascontiguousarray(strip)), (0, place * (pixels + 12) + 12))
        pen.text((2, place * (pixels + 12)), label, fill="black")
    return picture


__all__ = ["PIXELS", "Trial", "class_means", "sets_from_text", "sheet", "true_sets", "uneven_height", "view_figures"]
