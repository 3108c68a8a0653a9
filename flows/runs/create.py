"""Making, finding and describing runs."""

import itertools
import os
import re
import secrets
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

from dreampolish.priors.folders.source import PriorError, PriorSource
from flows.runs.given_mesh import GivenMesh, check_memory, keep_mesh
from flows.runs.inputs import GivenPicture, check_thing_named, checked_prompt, keep_image, keep_others
from flows.runs.models.beside import check_beside
from flows.runs.models.known import role_of_prior
from flows.runs.roots import OUTPUTS, deployed, under_a_root
from schemas.artifacts import Artifact, StageName
from schemas.config.presets import ConfigError, load_config, merged
from schemas.config.run import Config, PriorsConfig
from schemas.runs import RunRecord
from stages.runtime.command import arguments_from_record, open_recorded
from stages.runtime.context import context_of, device_from_name
from stages.runtime.errors import StageError
from stages.runtime.files import CONFIGS, OUTPUTS_ELSEWHERE, for_the_user, project_file, try_folder
from stages.runtime.records import read_record, write_record


def slug_from_prompt(prompt: str) -> str:
    """At most 40 characters of a-z, 0-9 and single hyphens; `asset` when nothing is left."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:40].strip("-") or "asset"


def new_output_folder(record: RunRecord, outputs: Path) -> Path:
    """Where a run's asset is written to."""
    return outputs / f"{slug_from_prompt(record.prompt)}-{record.run}"


def output_folder(record: RunRecord, outputs: Path) -> Path:
    """The run's folder for its user: where it was written, or would be."""
    if record.output is not None and Path(record.output).is_dir():
        return Path(record.output)
    return new_output_folder(record, outputs)


def try_outputs(record: RunRecord, outputs: Path) -> None:
    """Raise StageError, in one line, where a run's asset could not be written at the end of its stages."""
    folder = new_output_folder(record, outputs)
    with for_the_user():
        try_folder(outputs, OUTPUTS_ELSEWHERE)
        if os.path.lexists(folder):
            try_folder(folder, OUTPUTS_ELSEWHERE)


def unique_names(wanted: Sequence[str]) -> list[str]:
    """The names, in order, no two alike: whoever comes later with a taken one gets a number behind it, `-2` and so on."""
    found: list[str] = []
    for name in wanted:
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        found.append(name if name not in found else next(each for each in numbered if each not in found and each not in wanted))
    return found


def new_run(
    store: Path,
    prompt: str,
    preset: str,
    overrides: Sequence[str],
    image: Path | None,
    others: Sequence[GivenPicture] = (),
    given: GivenMesh | None = None,
    vram: float | None = None,
) -> RunRecord:
    """Check everything a user gave and write the record of a new run.

    image, others: a picture of the front, and more beside it. given: a mesh of the user's own that the run begins with. vram: GiB of a
    GPU to plan for; None: what it has free.

    Raises ConfigError, or StageError where the disk is full; then there is no run.
    """
    words = checked_prompt(prompt)
    kept = None if given is None else keep_mesh(store, given.file, given.only or "")
    own: Sequence[str] = []
    if given is not None and kept is not None:
        own = given.settings(has_colors=kept.has_colors)
        if given.use == "polish":
            check_memory(given.file.name, kept.triangles, psutil.virtual_memory().available)
    config = load_config(preset, CONFIGS, [*own, *overrides])
    check_priors(config)
    record = RunRecord(run=new_id(), prompt=words, config=config, created=now())
    if given is not None and kept is not None:
        record = record.model_copy(update={"mesh": kept.digest, "mesh_use": given.use})
    check_thing_named(words, context_of(record, store, None, show_progress=False), config.reference, drawn=image is None)
    record = with_plan(record, vram, is_new=True)
    if image is not None:
        matted = config.priors.matting is not None
        front = keep_image(store, image, config.reference, matted=matted, whole=bool(others))
        kept_others = keep_others(store, front, others, config.reference, matted=matted)
        record = record.model_copy(update={"image": front, "others": kept_others})
    try_outputs(record, OUTPUTS)
    write_record(store, record)
    return record


def with_plan(record: RunRecord, vram: float | None, *, is_new: bool) -> RunRecord:
    """A run's record with a plan of its GPU's memory; on a CPU there is none unless `vram` names a size.

    is_new: whether the run may still get another precision, which counts for its results. A limit that the user once named holds until
    another one is. Raises ConfigError in one line where the run cannot fit.
    """
    if vram is None and record.plan is not None and record.plan.asked:
        vram = record.plan.limit_gib
    if vram is None and device_from_name(record.config.device).type != "cuda":
        return record.model_copy(update={"plan": None})
    from flows.runs.memory.plan import plan_of, planned  # counting takes seconds to import

    chain = record.chain if record.computes is None else record.computes
    if is_new:
        config, plan = planned(record.config, vram, chain)
        return record.model_copy(update={"config": config, "plan": plan})
    return record.model_copy(update={"plan": plan_of(record.config, vram, chain)})


def derived_run(
    store: Path,
    run_id: str,
    overrides: Sequence[str],
    keep: Sequence[StageName],
    *,
    reuse_stale: bool,
    vram: float | None = None,
) -> tuple[RunRecord, list[StageName]]:
    """A new run that starts from an earlier one's artifacts.

    keep: the stages whose artifacts are taken over. vram: as for `new_run`; None: what the earlier run was told, or what is free. Returns
    the record and the kept stages that are stale: with the new settings, or after what happened to the run or the code since, they would be
    computed anew. They are taken over only with `reuse_stale`.
    """
    before = read_record(store, run_id)
    config = merged(before.config, {}, overrides)
    check_priors(config)
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
            "computes": tuple(name for name in before.chain if name not in keep) if reuse_stale else None,
            "output": None,
            "stages": kept,
        }
    )
    record = with_plan(record, vram, is_new=False)
    write_record(store, record)
    return record, stale


def stale_stages(record: RunRecord, store: Path, among: Sequence[StageName]) -> list[StageName]:
    """The stages of a run whose artifacts are not what the run's settings, inputs, priors and today's code would give, in order.

    A stage behind a stale one, or made from another artifact of its parent than the run now names, is stale as well. `among`: with
    each stage, its parents.
    """
    from flows.runs.chain import CHAIN  # the stages take seconds to import

    run = context_of(record, store, None, show_progress=False)
    artifacts: dict[StageName, Artifact] = {}
    stale: list[StageName] = []
    for name in (each for each in record.chain if each in among):
        stage = CHAIN[name]
        artifacts[name] = open_recorded(stage.artifact_class, record, store)
        if name == "intake":
            artifacts |= {stood: artifacts[name] for stood in ("dmtet", "polish") if stood not in record.chain}
        parents = {*stage.parent_names(), *(["intake"] if record.sees_mesh(name) else [])}
        behind = any(parent in stale for parent in parents)
        if behind or stage.key(run, **arguments_from_record(stage, record, store, artifacts)) != artifacts[name].fingerprint:
            stale.append(name)
    return stale


def check_priors(config: Config) -> None:
    """Raise ConfigError, in one line, where a prior or a metric's weights cannot be opened: missing, damaged, another model's, in the
    wrong place, or where a deployment's run may not read. Configs and headers of weights are read, no weights."""
    _check_places(config.priors)
    lpips = config.priors.lpips
    if lpips is not None and not project_file(lpips.source).is_dir():
        raise ConfigError(f"no LPIPS weights at {project_file(lpips.source)}; name another folder, or leave the setting out")
    try:
        check_beside(config.priors)
    except PriorError as error:
        raise ConfigError(str(error)) from None
    if config.priors.matting is not None:
        from dreampolish.scene.cutting.matting import Matting  # torch
        from dreampolish.scene.pictures import PictureError

        try:
            Matting(project_file(config.priors.matting.source))
        except PictureError as error:
            raise ConfigError(f"{error}, or leave priors.matting out") from None
    for name in ("text", "view", "views", "normals", "judge"):
        setting = getattr(config.priors, name)
        if setting is None or (name == "view" and not _opens_view(config)):
            continue
        folder = project_file(setting.source)
        if setting.revision is None and not folder.is_dir():
            own = setting == getattr(PriorsConfig(), name)
            fetch = f"dreampolish priors fetch --preset {config.preset} puts one there"
            remedy = f"git checkout {setting.source} brings it back" if own else fetch
            raise ConfigError(f"no {name} prior at {folder}; {remedy}, --set priors.{name}.source=... names another")
        if name != "judge":
            _check_prior(name, str(folder if folder.is_dir() else setting.source), setting.revision)


def _opens_view(config: Config) -> bool:
    """Whether a stage opens the view prior, though another prior may paint the views."""
    return config.priors.views is None or any(stage.uses_view_alone for stage in (config.nerf, config.neus, config.dmtet))


def _check_prior(role: str, place: str, revision: str | None) -> None:
    """Raise ConfigError in one line where a prior cannot be opened, or has another role."""
    try:
        found, family = role_of_prior(PriorSource(place, revision))
    except PriorError as error:
        raise ConfigError(f"the {role} prior cannot be opened: {error}") from None
    if found != role:
        raise ConfigError(f"{place} is no {role} prior but a {found} prior ({family}); --set priors.{found}.source={place}")


def _check_places(priors: PriorsConfig) -> None:
    """Runs of deployments read weights of the project and of the roots alone."""
    if not deployed():
        return
    for name in PriorsConfig.model_fields:
        source = getattr(getattr(priors, name), "source", None)
        if source is not None and (getattr(getattr(priors, name), "revision", None) is None or project_file(source).exists()):
            under_a_root(project_file(source), f"priors.{name}.source")


def new_id() -> str:
    """Eight hexadecimal digits, the first of them a letter: JSON, which `prefect deployment run --param` reads, would take 12345678 and
    1234e567 for numbers."""
    return secrets.choice("abcdef") + secrets.token_hex(4)[1:]


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
