"""The reference picture as tensors at a stage's size, its camera, and the losses on it; and a user's other pictures likewise."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from dreampolish.optim.fit import Term
from dreampolish.optim.regularizers import depth_correlation_loss
from dreampolish.renderers.volume import VolumeRender
from dreampolish.scene.cameras import Cameras, orbit_cameras
from dreampolish.scene.pictures import read_picture, resize
from schemas.artifacts import Artifact, FileRef, ReferenceArtifact, ReferencePicture
from schemas.config.shared.geometry import AnchorConfig, VolumeAnchorConfig

REFERENCE_VIEW = ("image_rgba", "normals", "depth", "prompt", "elevation_deg", "others")
"""What `load_reference` reads of the reference artifact."""

REFERENCE_FOV_DEG = 20.0
"""Field of view that the reference is taken to have (source: Zero123's training views)."""


class ReferenceFiles(Protocol):
    """Whoever reads an artifact's files: a stage, or a reader of the store."""

    @property
    def device(self) -> torch.device:
        """Where tensors are wanted."""
        ...

    def locate(self, parent: Artifact, reference: FileRef) -> Path:
        """The path of an artifact's file."""
        ...


@dataclass(frozen=True)
class ReferenceView:
    """One picture on white with its mask, camera-frame normals and camera, all at one size; and the picture at its own size."""

    rgb: Float[Tensor, "1 h w 3"]
    mask: Float[Tensor, "1 h w"]
    normals_camera: Float[Tensor, "1 h w 3"]
    camera: Cameras
    prompt: str
    original: Float[Tensor, "1 m n 3"]
    depth: Float[Tensor, "1 h w"] | None = None
    """Growing away from the viewer, up to scale and origin; None where no depth prior was named."""
    others: tuple["ReferenceView", ...] = ()
    """A user's pictures from elsewhere than the front, at the same size."""

    @property
    def azimuth_deg(self) -> float:
        """Of the camera, degrees."""
        return float(self.camera.azimuth_deg[0])

    @property
    def elevation_deg(self) -> float:
        """Of the camera, degrees."""
        return float(self.camera.elevation_deg[0])

    @property
    def all(self) -> tuple["ReferenceView", ...]:
        """The front and the others."""
        return (self, *self.others)

    def another(self, turn: int) -> "ReferenceView | None":
        """The picture beside the front whose turn it is, so that each step costs one render more, however many there are."""
        return self.others[turn % len(self.others)] if self.others else None

    def at_size(self, size: int) -> "ReferenceView":
        """The same view, resampled."""
        normals = torch.nn.functional.normalize(resize(self.normals_camera, size), dim=-1, eps=1e-6)
        mask = resize(self.mask[..., None], size)[..., 0]
        depth = None if self.depth is None else resize(self.depth[..., None], size)[..., 0]
        camera = self.camera.at_size(size)
        others = tuple(each.at_size(size) for each in self.others)
        return replace(
            self, rgb=resize(self.rgb, size), mask=mask, normals_camera=normals, camera=camera, depth=depth, others=others
        )

    def whole(self, limit: int) -> "ReferenceView":
        """The view at the picture's own size, at most `limit` pixels a side. The picture is the original; mask and normals are those of
        this view, resampled."""
        size = min(self.original.shape[1], limit)
        others = tuple(each.whole(limit) for each in self.others)
        return replace(self.at_size(size), rgb=resize(self.original, size), others=others)


def load_reference(files: ReferenceFiles, reference: ReferenceArtifact, size: int) -> ReferenceView:
    """The reference artifact's pictures, on their reader's device at `size` pixels."""
    front = _opened(files, reference, reference, azimuth_deg=0.0)
    others = tuple(_opened(files, reference, each, azimuth_deg=each.azimuth_deg) for each in reference.others)
    return replace(front, others=others).at_size(size)


def _opened(
    files: ReferenceFiles, reference: ReferenceArtifact, picture: ReferenceArtifact | ReferencePicture, azimuth_deg: float
) -> ReferenceView:
    """One picture of the artifact at its own size."""
    rgba = read_picture(files.locate(reference, picture.image_rgba))
    normals = load_file(files.locate(reference, picture.normals))["normals_camera"]
    depth = None if picture.depth is None else load_file(files.locate(reference, picture.depth))["depth"][None]
    alpha = rgba[..., 3:]
    camera = orbit_cameras(
        torch.full((1,), azimuth_deg),
        torch.full((1,), picture.elevation_deg),
        torch.full((1,), REFERENCE_FOV_DEG),
        rgba.shape[0],
    )
    rgb = (rgba[..., :3] * alpha + 1 - alpha)[None].to(files.device)
    return ReferenceView(
        rgb=rgb,
        mask=alpha[None, ..., 0].to(files.device),
        normals_camera=normals[None].to(files.device),
        camera=camera.to(files.device),
        prompt=reference.prompt,
        original=rgb,
        depth=None if depth is None else depth.to(files.device),
    )


def depth_terms(
    anchors: VolumeAnchorConfig, progress: tuple[int, int], reference: ReferenceView, depth: Float[Tensor, "1 h w"]
) -> dict[str, Term]:
    """The correlation of a render's depth with the reference's, where both count."""
    weight = anchors.depth.at(*progress)
    if weight == 0 or reference.depth is None:
        return {}
    return {"reference_depth": Term(depth_correlation_loss(depth, reference.depth, reference.mask), weight)}


def anchor_terms(
    anchors: AnchorConfig,
    progress: tuple[int, int],
    reference: ReferenceView,
    rgb: Float[Tensor, "1 h w 3"] | None,
    opacity: Float[Tensor, "1 h w"],
    normals_camera: Float[Tensor, "1 h w 3"] | None,
) -> dict[str, Term]:
    """Losses of a render from the reference camera: mean square of colours and coverage, 1 - cosine of normals on the mask.

    progress: (step, steps). Parts whose render is None or whose weight is 0 are left out.
    """
    step, steps = progress
    terms = {}
    if rgb is not None and anchors.rgb.at(step, steps) > 0:
        terms["reference_rgb"] = Term((rgb - reference.rgb).square().mean(), anchors.rgb.at(step, steps))
    if anchors.mask.at(step, steps) > 0:
        terms["reference_mask"] = Term((opacity - reference.mask).square().mean(), anchors.mask.at(step, steps))
    if normals_camera is not None and anchors.normal.at(step, steps) > 0:
        cosine = (normals_camera * reference.normals_camera).sum(dim=-1)
        seen = reference.mask * opacity.detach()
        loss = ((1 - cosine) * seen).sum() / seen.sum().clamp_min(1.0)
        terms["reference_normal"] = Term(loss, anchors.normal.at(step, steps))
    return terms


def volume_terms(
    anchors: VolumeAnchorConfig, progress: tuple[int, int], reference: ReferenceView, seen: VolumeRender
) -> dict[str, Term]:
    """Losses of a field's render from a given picture's camera: those of `anchor_terms` and `depth_terms`."""
    terms = anchor_terms(
        anchors=anchors,
        progress=progress,
        reference=reference,
        rgb=seen.rgb,
        opacity=seen.opacity,
        normals_camera=seen.normals_camera,
    )
    return {**terms, **depth_terms(anchors, progress, reference, seen.depth)}


def of_another(terms: Mapping[str, Term]) -> dict[str, Term]:
    """The losses on a picture beside the front, under names of their own."""
    return {name.replace("reference_", "picture_"): term for name, term in terms.items()}


def reference_color_loss(rgb: Float[Tensor, "1 h w 3"], view: ReferenceView, erosion: int) -> Float[Tensor, ""]:
    """Mean absolute colour difference on the reference's mask, eroded by `erosion` pixels (source: DreamCraft3D)."""
    outside = 1 - (view.mask[:, None] > 0.5).float()
    outside = torch.nn.functional.max_pool2d(outside, 2 * erosion + 1, stride=1, padding=erosion)
    inside = 1 - outside[:, 0, :, :, None]
    return ((rgb - view.rgb).abs() * inside).sum() / (3 * inside.sum().clamp_min(1.0))
