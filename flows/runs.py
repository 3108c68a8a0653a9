"""Making, finding and describing runs."""

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from schemas.artifacts import Artifact, StageName
from schemas.config import PROMPT_LIMIT, Config
from schemas.presets import ConfigError, load_config, merged
from schemas.runs import PARENTS, STAGES, RunRecord
from stages.disk import disk_errors_in_one_line, write_atomically
from stages.entry import context_of, fingerprint_of, input_path, open_recorded
from stages.errors import StageError
from stages.fingerprint import PROJECT
from stages.run_record import read_record, write_record
from stages.words import FUNCTION_WORDS

CONFIGS = PROJECT / "configs"
MAX_IMAGE_BYTES = 50 * 2**20


def checked_prompt(prompt: str) -> str:
    """The prompt without outer and double spaces. Raises ConfigError for an empty, too long or unprintable one."""
    words = " ".join(prompt.split())
    if not words:
        raise ConfigError("the prompt is empty; say what you want, as in: a red armchair")
    if len(words) > PROMPT_LIMIT:
        raise ConfigError(
            f"the prompt has {len(words)} characters, the limit is {PROMPT_LIMIT}; describe one object in a few words"
        )
    named = [word for word in re.findall(r"[^\W\d_]+", words.lower()) if word not in FUNCTION_WORDS]
    if not words.isprintable() or not named:
        raise ConfigError("the prompt holds no readable words; say what you want, as in: a red armchair")
    return words


def slug_from_prompt(prompt: str) -> str:
    """At most 40 characters of a-z, 0-9 and single hyphens; `asset` when nothing is left."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:40].strip("-") or "asset"


def new_run(store: Path, prompt: str, preset: str, overrides: Sequence[str], image: Path | None) -> RunRecord:
    """Check everything a user gave and write the record of a new run. Raises ConfigError or StageError, and then nothing is written."""
    words = checked_prompt(prompt)
    config = load_config(preset, CONFIGS, overrides)
    check_priors(config)
    digest = None if image is None else keep_image(store, image)
    record = RunRecord(run=new_id(), prompt=words, image=digest, config=config, created=now())
    write_record(store, record)
    return record


def derived_run(
    store: Path, run_id: str, overrides: Sequence[str], keep: Sequence[StageName], reuse_stale: bool
) -> tuple[RunRecord, list[StageName]]:
    """A new run that starts from an earlier one's artifacts.

    keep: the stages whose artifacts are taken over. Returns the record and the kept stages that are stale: with the new settings, or
    after what happened to the run or the code since, they would be computed anew. They are taken over only with `reuse_stale`.
    """
    before = read_record(store, run_id)
    config = merged(before.config, {}, overrides)
    missing = [name for name in keep if name not in before.stages]
    if missing:
        raise StageError(f"run {before.run} has no {missing[0]} yet", None, f"dreampolish resume {before.run} first")
    stale = stale_stages(before.model_copy(update={"config": config}), store, keep)
    kept = {name: before.stages[name] for name in keep if reuse_stale or not stale}
    record = before.model_copy(
        update={
            "run": new_id(),
            "config": config,
            "created": now(),
            "parent_run": before.run,
            "computes": tuple(name for name in STAGES if name not in keep) if reuse_stale else None,
            "output": None,
            "stages": kept,
        }
    )
    write_record(store, record)
    return record, stale


def stale_stages(record: RunRecord, store: Path, among: Sequence[StageName]) -> list[StageName]:
    """The stages of a run whose artifacts are not what the run's settings, inputs, priors and today's code would give, in order.

    A stage behind a stale one, or made from another artifact of its parent than the run now names, is stale as well. `among`: with
    each stage, its parents.
    """
    from flows.stage_functions import stage_function

    run = context_of(record, store, None, False)
    artifacts: dict[StageName, Artifact] = {}
    stale: list[StageName] = []
    for name in STAGES:
        if name not in among:
            continue
        artifacts[name] = open_recorded(name, record, store)
        behind = any(parent in stale for parent in PARENTS[name])
        if behind or fingerprint_of(name, stage_function(name), record, run, artifacts) != artifacts[name].fingerprint:
            stale.append(name)
    return stale


def check_priors(config: Config) -> None:
    """Raise ConfigError when the folder of a prior or of a metric's weights is missing; hub ids are checked when they are opened."""
    for name, source in (("CLIP", config.priors.clip), ("LPIPS", config.priors.lpips)):
        if source is not None and getattr(source, "revision", None) is None and not (PROJECT / source.source).is_dir():
            raise ConfigError(f"no {name} weights at {PROJECT / source.source}; name another folder, or leave the setting out")
    for name in ("text", "view", "normals", "judge"):
        setting = getattr(config.priors, name)
        folder = Path(setting.source) if Path(setting.source).is_absolute() else PROJECT / setting.source
        if setting.revision is None and not folder.is_dir():
            raise ConfigError(
                f"no {name} prior at {folder}; `dreampolish priors train {name}` makes it, --set priors.{name}.source=... names another"
            )


def keep_image(store: Path, image: Path) -> str:
    """Check a user's picture and copy it into the store under its hash, which is returned. Raises ConfigError."""
    from dreampolish.pictures import PictureError, read_picture

    try:
        if image.stat().st_size > MAX_IMAGE_BYTES:
            raise ConfigError(
                f"{image} has {image.stat().st_size / 2**20:.0f} MiB, the limit is {MAX_IMAGE_BYTES // 2**20} MiB"
            )
        read_picture(image)
        payload = image.read_bytes()
    except PictureError as error:
        raise ConfigError(str(error)) from None
    except OSError as error:
        raise ConfigError(f"{image} cannot be read: {error.strerror}") from None
    digest = hashlib.sha256(payload).hexdigest()
    path = input_path(store, digest)
    with disk_errors_in_one_line(store):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, payload)
    return digest


def new_id() -> str:
    """Eight hexadecimal digits."""
    return secrets.token_hex(4)


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
