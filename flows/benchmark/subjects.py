"""What a benchmark is made of: objects with their true meshes, and prompts."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreampolish.assets.textured_mesh import TexturedMesh
from dreampolish.scene.untrusted.files import TEXT_BYTES, read_regular
from flows.batch import read_prompts
from flows.benchmark.truth import LEAST_FRAMING_IOU, framing_iou, write_reference
from flows.runs.create import slug_from_prompt, unique_names
from schemas.config.presets import ConfigError
from schemas.config.run import PROMPT_LIMIT
from stages.runtime.errors import StageError
from stages.runtime.files import project_file
from stages.runtime.tracking.datasets import ReadData, files_data, split_data

REFERENCE_SIZE = 512
"""Pixels of a side of a reference picture that is rendered here."""
MESH = "mesh.glb"
SHAPES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".fbx", ".usdz")
"""Endings of 3D files."""


@dataclass(frozen=True)
class Subject:
    """An object to be measured. reference: its front picture, or None: it is rendered from the mesh."""

    name: str
    glb: Path
    prompt: str
    reference: Path | None
    elevation_deg: float


def objects_folder(objects: Path) -> Path:
    """A folder of objects: a path from here, else one of the project's own."""
    own = project_file(objects)
    return own if own.is_dir() and not objects.exists() else objects


def found_subjects(objects: Path, only: Sequence[str], elevation_deg: float) -> list[Subject]:
    """The objects of a folder, each with a name of its own: every <name>.glb, and every <name>/mesh.glb with what lies beside it.

    Endings count in any case. elevation_deg: for those whose attribution names none. Raises ConfigError if there are none, or a name of
    `only` is not there.
    """
    if not objects.is_dir():
        raise ConfigError(
            f"no folder {objects}; give one that holds *.glb or <name>/mesh.glb, or call this in the project's folder"
        )
    glbs = _glbs(objects)
    names = unique_names([slug_from_prompt(_called(glb)) for glb in glbs])
    subjects = {name: _subject(glb, name, elevation_deg) for glb, name in zip(glbs, names, strict=True)}
    unknown = [name for name in only if name not in subjects]
    if unknown:
        raise ConfigError(f"no object {unknown[0]!r} in {objects}; there are {', '.join(subjects) or 'none'}")
    if not subjects:
        raise ConfigError(f"no GLBs in {objects}; give a folder that holds *.glb or <name>/mesh.glb")
    return [subject for name, subject in subjects.items() if not only or name in only]


def left_out(objects: Path) -> list[str]:
    """The 3D files in a folder and below it that are no objects of a benchmark: other formats, and GLBs elsewhere; hidden ones apart."""
    taken = set(_glbs(objects))
    files = (path.relative_to(objects) for path in sorted(objects.rglob("*")) if path.suffix.lower() in SHAPES)
    return [str(path) for path in files if objects / path not in taken and not any(part.startswith(".") for part in path.parts)]


def _glbs(objects: Path) -> list[Path]:
    """In the order of their names; what is hidden, such as the `._chair.glb` of macOS, is none."""
    found = [*objects.glob("*/*"), *objects.glob("*")]
    inside = objects / MESH
    return sorted(
        path
        for path in found
        if not any(part.startswith(".") for part in path.relative_to(objects).parts)
        and (path.suffix.lower() == inside.suffix if path.parent == objects else path.name.lower() == MESH)
        and path.is_file()
    )


def _called(glb: Path) -> str:
    """The name that a user gave an object: of its folder, or of its file."""
    return glb.parent.name if glb.name.lower() == MESH else glb.stem


def _subject(glb: Path, name: str, elevation_deg: float) -> Subject:
    words = " ".join(re.findall(r"[^\W_]+", _called(glb).lower())) or name
    prompt = f"a {words}"[:PROMPT_LIMIT]
    if glb.name.lower() != MESH:
        return Subject(name, glb=glb, prompt=prompt, reference=None, elevation_deg=elevation_deg)
    attribution, picture = glb.with_name("attribution.json"), glb.with_name("reference.png")
    try:
        facts = json.loads(read_regular(attribution, TEXT_BYTES)) if attribution.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{attribution} is no JSON: {error}") from None
    return Subject(
        name=name,
        glb=glb,
        prompt=str(facts.get("prompt", prompt)),
        reference=picture if picture.is_file() else None,
        elevation_deg=float(facts.get("reference", {}).get("elevation_deg", elevation_deg)),
    )


def remarks_of(objects: Path) -> str:
    """Notes on the objects for readers of the page, from remarks.txt beside them, on one line."""
    file = objects / "remarks.txt"
    return " ".join(read_regular(file, TEXT_BYTES).decode().split()) if file.is_file() else ""


def held_out_names() -> list[str]:
    """Names of things that no prior was trained on: what the judge may take a picture for, beside the prompts."""
    return project_file("configs/data/held_out_names.txt").read_text().splitlines()


def data_of(subjects: Sequence[Subject]) -> list[ReadData]:
    """What a benchmark or a study reads, for its run at the tracker: the split, and the objects of known shape, if there are any."""
    split = split_data(project_file("configs/data/split.json"), "configs/data/split.json", "held out")
    files = sorted({path for each in subjects for path in (each.glb, each.reference) if path is not None})
    if not files:
        return [split]
    folder = files[0].parent.parent if files[0].name.lower() == MESH or files[0].stem == "reference" else files[0].parent
    return [split, files_data("benchmark", files, _shown(folder), "evaluation")]


def _shown(folder: Path) -> str:
    """A folder relative to the project where it lies in it, else as it was given."""
    inside = project_file(".").resolve()
    return folder.resolve().relative_to(inside).as_posix() if folder.resolve().is_relative_to(inside) else str(folder)


def prompts_of(objects: Path) -> list[str]:
    """The prompts beside the objects, else those of the project's own benchmark. Raises ConfigError as a batch's file does."""
    own = objects / "prompts.txt"
    return read_prompts(own if own.exists() else project_file("benchmark/objects/prompts.txt"))


def reference_picture(subject: Subject, mesh: TexturedMesh, folder: Path) -> Path:
    """The object's front picture, rendered into `folder` if it came without one.

    Raises StageError for a picture that does not show the mesh from the front: then truth and result would not share a frame.
    """
    if subject.reference is None:
        picture = folder / "reference.png"
        write_reference(picture, mesh, subject.elevation_deg, REFERENCE_SIZE)
        return picture
    agreement = framing_iou(subject.reference, mesh, subject.elevation_deg)
    if agreement < LEAST_FRAMING_IOU:
        raise StageError(
            f"{subject.reference} does not show {subject.glb.name} from the front: silhouettes agree to {agreement:.2f}, at least "
            f"{LEAST_FRAMING_IOU} is needed",
            None,
            "remove the picture, and it is rendered from the mesh",
        )
    return subject.reference


def framing_settings(subject: Subject) -> list[str]:
    """The settings under which the pipeline keeps the picture's frame; names that the prior never saw are allowed."""
    return [
        "reference.framing=as_is",
        f"reference.elevation_deg={subject.elevation_deg}",
        "reference.unknown_words=allow",
    ]
