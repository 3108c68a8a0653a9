"""The reference picture: the best of several candidates from the text prior, or a user's picture; and its normals.

Source: DreamCraft3D and DreamPolish start from one reference picture; which candidate is best is judged by the
embedded scorer and by mirror symmetry. [choice]
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreampolish.metrics.pictures import mask_iou, mirror_symmetry
from dreampolish.priors.distillation.guidance import images_at_prior
from dreampolish.renderers.mesh import MeshRender, color_of_field
from dreampolish.scene.cameras import orbit_cameras
from dreampolish.scene.cutout import (
    check_foreground,
    on_white,
    recentre,
)
from dreampolish.scene.elevation import estimated_elevation
from dreampolish.scene.framing import laid_over
from dreampolish.scene.pictures import PictureError, resize, sheet, write_picture
from dreampolish.scene.posed_pictures import Posed, contradictions, framed_together, turned_to_agree
from dreampolish.scene.shading import facing_light
from dreampolish.scene.silhouettes import FitSizes
from schemas.artifacts import IntakeArtifact, ReferenceArtifact
from schemas.config.reference import ReferenceConfig
from schemas.runs import PosedFile
from stages.guidance.cut_outs import Cut, cut_out_file, drawn_cutter, framed_as_is, users_cutter, users_picture
from stages.guidance.painted.view_targets import coverage_of
from stages.guidance.priors import (
    alignment,
    open_depth_prior,
    open_normal_prior,
    open_text_prior,
)
from stages.guidance.reference_view import REFERENCE_FOV_DEG
from stages.guidance.words import check_words, contradiction_notes, number_notes, turn_notes
from stages.results.files import load_colors, load_mesh
from stages.results.observer import as_bytes, strip
from stages.results.scores import clip_scorer
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError
from stages.runtime.stage import Stage, stage

ELEVATIONS_DEG, AGREEMENT_DEG = (-15.0, 60.0), 8.0
"""Elevations that an estimate tries, and the deviation that a normal may have from level or upright. [choice]"""


@dataclass(frozen=True)
class Candidates:
    """Pictures the text prior drew: RGBA made canonical, their alignment with the prompt, their mirror symmetry, and which one is
    best."""

    pictures: list[Float[Tensor, "h w 4"]]
    alignments: list[float]
    symmetries: list[float]
    best: int


@stage(
    "reference",
    reads={"intake": ("mesh", "color_field", "color_config", "has_colors")},
    priors=("text", "normals", "judge", "depth", "clip", "matting"),
)
def make_reference(
    stage: Stage,
    prompt: str,
    image: Path | None,
    config: ReferenceConfig,
    others: tuple[PosedFile, ...] = (),
    intake: IntakeArtifact | None = None,
) -> ReferenceArtifact:
    """Make or take the reference picture.

    image: a user's picture (RGBA, or with a plain background), or None to let the text prior draw. others: more of the user's pictures.
    intake: a user's own mesh, whose front the picture then shows. Raises StageError in one line for pictures that cannot be used and for
    prompts of which the prior knows no word.
    """
    draws = intake is None or config.drawn_over > 0
    notes = [*check_words(stage.run, prompt, config.unknown_words), *number_notes(prompt)] if draws else []
    if intake is not None:
        return _of_mesh(stage=stage, config=config, prompt=prompt, image=image, others=others, intake=intake, notes=notes)
    if image is not None:
        pictures, figures, said = _users_pictures(stage, config, image, others)
        stage.progress(1, 2)
        return _published(
            stage=stage, config=config, prompt=prompt, pictures=pictures, candidates=None, notes=notes + said, figures=figures
        )
    candidates = _drawn(stage, config, prompt)
    best = Posed(candidates.pictures[candidates.best], 0.0, config.elevation_deg)
    return _published(stage=stage, config=config, prompt=prompt, pictures=[best], candidates=candidates, notes=notes)


def _users_pictures(
    stage: Stage, config: ReferenceConfig, image: Path, others: Sequence[PosedFile]
) -> tuple[list[Posed], dict[str, float], list[str]]:
    """The user's pictures made canonical, the front first; of several, how far they contradict each other, and what to say of it."""
    cut = users_cutter(stage.run, config)
    if not others:
        only = users_picture(image, config, cut)
        return [Posed(only.rgba, 0.0, config.elevation_deg)], {}, list(only.notes)
    files = [PosedFile(image, 0.0, config.elevation_deg), *others]
    cut_outs = [cut_out_file(each.path, cut, whole=True) for each in files]
    said = [
        f"picture from {file.azimuth_deg:g},{file.elevation_deg:g}: {note}"
        for file, each in zip(files, cut_outs, strict=True)
        for note in each.notes
    ]
    cuts = [Posed(each.rgba, file.azimuth_deg, file.elevation_deg) for file, each in zip(files, cut_outs, strict=True)]
    sizes = FitSizes(**config.poses.fit.model_dump())
    if config.framing == "as_is":
        pictures = [each.with_picture(framed_as_is(each.rgba, config)) for each in cuts]
    else:
        pictures = framed_together(cuts, config.size, REFERENCE_FOV_DEG, sizes)
    if config.poses.refine:
        given, pictures = [each.pose for each in pictures], turned_to_agree(pictures, REFERENCE_FOV_DEG, sizes)
        said += turn_notes(given, [each.pose for each in pictures])
    shares = contradictions(pictures, REFERENCE_FOV_DEG, config.poses.tolerance)
    said += contradiction_notes([each.pose for each in pictures], shares, config.poses.most_contradiction)
    return pictures, {"contradiction": max(shares)}, said


def _of_mesh(
    stage: Stage,
    config: ReferenceConfig,
    prompt: str,
    image: Path | None,
    others: Sequence[PosedFile],
    intake: IntakeArtifact,
    notes: list[str],
) -> ReferenceArtifact:
    """The front of a user's mesh, painted: the picture laid over it, or drawn over it by the text prior. Mask and normals are its own."""
    mesh, colors = load_mesh(stage, intake), load_colors(stage, intake)

    def seen_from(azimuth_deg: float, elevation_deg: float) -> MeshRender:
        azimuth, elevation, fov = torch.tensor([[azimuth_deg], [elevation_deg], [REFERENCE_FOV_DEG]])
        camera = orbit_cameras(azimuth, elevation, fov, config.size).to(stage.device)
        with torch.no_grad():
            return mesh.render(camera, color_of_field(colors), 2, smooth=True)

    front = seen_from(0.0, config.elevation_deg)
    alpha = front.alpha[0, ..., None].cpu()
    candidates, pictures = None, list[Posed]()
    figures: dict[str, float] = {}
    if image is None and config.drawn_over == 0:
        shown = torch.where(alpha > 0, front.rgb[0].cpu() - (1 - alpha), torch.zeros(())) / alpha.clamp_min(1e-3)
        rgba = torch.cat([shown.clamp(0, 1), alpha], dim=-1)
    elif image is None:
        seen = front.rgb if intake.has_colors else front.rgb * facing_light(front.normals_world)
        on_paper = seen * front.alpha[..., None] + 1 - front.alpha[..., None]
        candidates = _drawn_over(stage=stage, config=config, prompt=prompt, front=on_paper, alpha=alpha)
        rgba = candidates.pictures[candidates.best]
    else:
        cut = users_cutter(stage.run, config)
        for file in (PosedFile(image, 0.0, config.elevation_deg), *others):
            view = front if not pictures else seen_from(file.azimuth_deg, file.elevation_deg)
            found = users_picture(file.path, config, cut)
            notes = [*notes, *found.notes]
            rgba, overlap = _laid_on_mesh(found.rgba, view.alpha[0].cpu(), config)
            if overlap < config.least_outline:
                which = "the mesh's front" if not pictures else f"the mesh from {file.azimuth_deg:g},{file.elevation_deg:g}"
                notes = [*notes, f"the picture's outline and {which} overlap to {overlap:.2f}: its colours may lie beside"]
            figures["outline_overlap"] = min(overlap, figures.get("outline_overlap", 1.0))
            pictures.append(Posed(rgba, file.azimuth_deg, file.elevation_deg, view.normals_camera[0].cpu()))
    return _published(
        stage=stage,
        config=config,
        prompt=prompt,
        pictures=pictures or [Posed(rgba, 0.0, config.elevation_deg, front.normals_camera[0].cpu())],
        candidates=candidates,
        notes=notes,
        figures=figures,
    )


def _laid_on_mesh(
    picture: Float[Tensor, "h w 4"], alpha: Float[Tensor, "h w"], config: ReferenceConfig
) -> tuple[Float[Tensor, "h w 4"], float]:
    """A picture laid over a render of the mesh, within both outlines, and the outlines' overlap."""
    laid = picture if config.framing == "as_is" else laid_over(picture, alpha)
    overlap = float(mask_iou(laid[None, ..., 3], alpha[None]))
    return torch.cat([on_white(laid), torch.minimum(alpha[..., None], laid[..., 3:])], dim=-1), overlap


PAPER_TOLERANCE, FULL_INK = 0.03, 0.06
"""Of a drawn picture on white, as in ViewTargetsConfig. [choice]"""


def _drawn_over(
    stage: Stage, config: ReferenceConfig, prompt: str, front: Float[Tensor, "1 h w 3"], alpha: Float[Tensor, "h w 1"]
) -> Candidates:
    """Candidates that the text prior draws over the mesh's front, in its outline; the judge chooses."""
    prior = open_text_prior(stage)
    texts = prior.embed([f"{prompt}, {config.view_words}"] * config.n_candidates + [config.negative_prompt])
    drawn = prior.repaint(
        images=images_at_prior(front, prior.image_size).expand(config.n_candidates, -1, -1, -1),
        text=texts.rows(slice(0, config.n_candidates)),
        negative=texts.rows(slice(config.n_candidates, None)),
        strength=config.drawn_over,
        guidance_scale=config.guidance_scale,
        steps=config.sampling_steps,
        renewed=config.renewed,
        generator=stage.generator,
    )
    stage.progress(1, 2)
    painted = resize(drawn.permute(0, 2, 3, 1).cpu(), config.size).clamp(0, 1)
    # Where the prior left paper inside the outline there is nothing to learn.
    covered = torch.minimum(alpha[..., 0], coverage_of(painted, PAPER_TOLERANCE, FULL_INK))[..., None]
    pictures = list(torch.cat([painted, covered], dim=-1))
    alignments = [alignment(stage.run, prompt, on_white(each)[None]) for each in pictures]
    symmetry = mirror_symmetry(alpha[..., 0])
    return Candidates(pictures, alignments, [symmetry] * len(pictures), max(range(len(pictures)), key=alignments.__getitem__))


def _drawn(stage: Stage, config: ReferenceConfig, prompt: str) -> Candidates:
    """Draw candidates, cut each out and let the judge choose; candidates without a usable object cannot win."""
    prior = open_text_prior(stage)
    wanted = ", ".join(words for words in (prompt, config.view_words, config.studio_words) if words)
    texts = prior.embed([wanted] * config.n_candidates + [config.negative_prompt])
    text, negative = texts.rows(slice(0, config.n_candidates)), texts.rows(slice(config.n_candidates, None))
    drawn = prior.sample(
        text=text,
        negative=negative,
        guidance_scale=config.guidance_scale,
        steps=config.sampling_steps,
        renewed=config.renewed,
        generator=stage.generator,
    )
    stage.progress(1, 2)
    cut, likeness = drawn_cutter(stage.run, config), _likeness(stage.run, prompt, config)
    pictures, alignments, symmetries, scores = [], [], [], []
    for picture in drawn.permute(0, 2, 3, 1).cpu():
        rgba, usable = _cut(picture, config, cut)
        pictures.append(rgba)
        alignments.append(likeness(on_white(rgba)[None]))
        symmetries.append(mirror_symmetry(rgba[..., 3]))
        scores.append(alignments[-1] + config.symmetry_weight * symmetries[-1] if usable else -math.inf)
    best = max(range(len(scores)), key=scores.__getitem__)
    if scores[best] == -math.inf:
        raise StageError(
            f"none of {len(scores)} pictures drawn for '{prompt}' shows an object that can be cut out",
            None,
            "use another prompt or seed, --image, or a matting model (--set priors.matting.source=FOLDER, docs/limits.md)",
        )
    return Candidates(pictures, alignments, symmetries, best)


def _likeness(run: RunContext, prompt: str, config: ReferenceConfig) -> Callable[[Float[Tensor, "1 h w 3"]], float]:
    """How well a picture fits the prompt: a cosine of the embedded judge, or of the CLIP that the run names."""
    if config.chosen_by == "judge" or run.priors.clip is None:
        return lambda picture: alignment(run, prompt, picture)
    clip = clip_scorer(run)
    text = clip.embed_texts([prompt])[0]
    return lambda picture: float(clip.embed_images(picture.permute(0, 3, 1, 2))[0] @ text)


def _cut(picture: Float[Tensor, "h w 3"], config: ReferenceConfig, cut: Cut) -> tuple[Float[Tensor, "h w 4"], bool]:
    """A drawn picture cut out and centred, and whether there was an object in it."""
    try:
        rgba = cut(picture)
        check_foreground(rgba[..., 3])
    except PictureError:
        opaque = torch.cat([picture, torch.ones_like(picture[..., :1])], dim=-1)
        return recentre(opaque, config.size, keep_scale=True), False
    return recentre(rgba, config.size, keep_scale=config.drawn_framing == "keep_scale"), True


def _published(
    stage: Stage,
    config: ReferenceConfig,
    prompt: str,
    pictures: Sequence[Posed],
    candidates: Candidates | None,
    notes: list[str],
    figures: Mapping[str, float] | None = None,
) -> ReferenceArtifact:
    """pictures: the front first. Normals that are not known are the normal prior's estimates."""
    front, *others = _written(stage, config, pictures)
    elevation, said = _elevation(config, pictures, front)
    rgb, rgba = on_white(pictures[0].rgba), pictures[0].rgba
    write_picture(stage.path("mask.png"), rgba[..., 3:])
    return stage.publish(
        ReferenceArtifact,
        metrics={
            "alignment": alignment(stage.run, prompt, rgb[None]),
            "foreground_share": float((rgba[..., 3] > 0.5).float().mean()),
            **(figures or {}),
        },
        **front,
        mask=stage.path("mask.png"),
        candidates=None if candidates is None else _candidate_sheet(stage, candidates),
        prompt=prompt,
        elevation_deg=elevation,
        is_user_image=candidates is None,
        others=[
            {**files, "azimuth_deg": each.azimuth_deg, "elevation_deg": each.elevation_deg}
            for files, each in zip(others, pictures[1:], strict=True)
        ],
        notes=[*notes, *said],
    )


def _elevation(config: ReferenceConfig, pictures: Sequence[Posed], front: Mapping[str, Path | None]) -> tuple[float, list[str]]:
    """Of the front's camera, and what is to be said of it: estimated where that is wished and one picture's normals are an estimate."""
    path = front["normals"]
    if config.elevation_from == "setting" or len(pictures) > 1 or pictures[0].normals is not None or path is None:
        return config.elevation_deg, []
    mask = pictures[0].rgba[..., 3]
    found, score = estimated_elevation(load_file(path)["normals_camera"], mask, ELEVATIONS_DEG, AGREEMENT_DEG)
    return found, [f"seen from {found:g} degrees by its normals, {score:.2f} of which are level or upright"]


def _written(stage: Stage, config: ReferenceConfig, pictures: Sequence[Posed]) -> list[dict[str, Path | None]]:
    """The files of each picture: on white, cut out, with its normals and, where a depth prior is named, its depth."""
    depth_prior, shown, written = open_depth_prior(stage.run), list[Tensor](), list[dict[str, Path | None]]()
    for number, picture in enumerate(pictures):
        rgb, before = on_white(picture.rgba), "" if number == 0 else f"other-{number}-"
        images = rgb.permute(2, 0, 1)[None].to(stage.device)
        normals = picture.normals
        if normals is None:
            prior = open_normal_prior(stage)
            normals = prior.estimate(images, config.normal_steps, stage.generator)[0].permute(1, 2, 0).cpu()
        paths = {name: stage.path(f"{before}{name}.png") for name in ("image", "image_rgba")}
        write_picture(paths["image"], rgb)
        write_picture(paths["image_rgba"], picture.rgba)
        files: dict[str, Path | None] = {**paths, "normals": stage.path(f"{before}normals.safetensors"), "depth": None}
        save_file({"normals_camera": normals.contiguous()}, stage.path(f"{before}normals.safetensors"))
        if depth_prior is not None:
            files["depth"] = stage.path(f"{before}depth.safetensors")
            depth = depth_prior.estimate(images)[0].cpu().contiguous()
            save_file({"depth": depth}, stage.path(f"{before}depth.safetensors"))
        shown += [rgb, (normals + 1) / 2]
        written.append(files)
    stage.image("reference", 0, as_bytes(strip(torch.stack(shown))))
    return written


def _candidate_sheet(stage: Stage, candidates: Candidates) -> Path:
    """All candidates with alignment and symmetry; the chosen one is marked."""
    told = zip(candidates.pictures, candidates.alignments, candidates.symmetries, strict=True)
    rows = [
        (f"{'* ' if index == candidates.best else ''}{alignment:.2f} {symmetry:.2f}", on_white(picture)[None])
        for index, (picture, alignment, symmetry) in enumerate(told)
    ]
    path = stage.path("candidates.png")
    sheet(rows, 1).save(path)
    return path


if __name__ == "__main__":
    from stages.runtime.command import main

    main(make_reference)
