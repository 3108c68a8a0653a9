"""From a study's file to its cells: every setting, object and word is checked here, before anything runs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreampolish.scene.untrusted.files import TEXT_BYTES, read_regular
from flows.ablation.roughened import polishing_settings
from flows.benchmark.subjects import Subject, found_subjects, framing_settings
from flows.runs.create import check_priors, slug_from_prompt, unique_names
from flows.runs.given_mesh import FROM_NOTHING
from flows.runs.inputs import check_thing_named, checked_prompt
from flows.runs.roots import located
from schemas.artifacts import StageName
from schemas.config.presets import ConfigError, load_config, merged
from schemas.config.run import Config
from schemas.runs import ALL_STAGES, MESH_STAGES, STAGES, MeshUse, RunRecord
from schemas.studies import FITTED, Settings, Study, Variant, study_from_text
from stages.guidance.words import check_words
from stages.runtime.context import RunContext, context_of
from stages.runtime.errors import StageError
from stages.runtime.files import CONFIGS, PROJECT
from stages.runtime.keys.code import code_of_module
from stages.runtime.keys.key import prior_digests

STUDIES = CONFIGS / "ablations"
SHOWN_STAGES: tuple[StageName, ...] = STAGES[1:]
"""Stages whose result can be looked at."""


@dataclass(frozen=True)
class StudySubject:
    """What a cell makes: a prompt, or an object of known shape. on_true_mesh: whether it only paints the object's own mesh. roughened:
    how rough this is made, to be polished, as a share of its diagonal; 0: it is painted."""

    name: str
    prompt: str
    group: str
    truth: Subject | None
    on_true_mesh: bool = False
    roughened: float = 0.0

    @property
    def chain(self) -> tuple[StageName, ...]:
        """The stages that make it."""
        return MESH_STAGES[self.use] if self.on_true_mesh else STAGES

    @property
    def use(self) -> MeshUse:
        """What is done with the object's own mesh."""
        return "polish" if self.roughened else "texture"


@dataclass(frozen=True)
class Cell:
    """One run of a study. config is None until the time that `like` variants are to take has been measured."""

    variant: str
    subject: StudySubject
    seed: int
    until: StageName
    config: Config | None
    run: str
    pictures: tuple[float, ...] = ()
    """Azimuths of the pictures beside the front's, degrees."""

    @property
    def label(self) -> str:
        """For tables and pictures."""
        return f"{self.variant} | {self.subject.name} | seed {self.seed}"

    @property
    def stages(self) -> tuple[StageName, ...]:
        """The part of the chain that it runs."""
        return self.subject.chain[: self.subject.chain.index(self.until) + 1]


@dataclass(frozen=True)
class Plan:
    """A study ready to run. id: the same for the same settings, code and weights; results of one id belong together."""

    study: Study
    id: str
    cells: tuple[Cell, ...]
    configs: Mapping[str, Config]
    """Settings of each variant that has its own, with the first seed."""
    code: tuple[str, ...]
    """Digests of the stages' code when the study began."""

    @property
    def title(self) -> str:
        """Names the output folder."""
        return f"{self.study.name}-{self.id}"

    def until(self, variant: str) -> StageName:
        """The stage whose result is measured for a variant."""
        chosen = self.study.all_variants()[variant]
        if chosen.like is not None:
            return self.until(chosen.like)
        return chosen.until or self.study.until

    def pictures(self, variant: str) -> tuple[float, ...]:
        """The azimuths of a variant's pictures beside the front's."""
        chosen = self.study.all_variants()[variant]
        return chosen.pictures if chosen.like is None else self.pictures(chosen.like)

    def stage_computations(self) -> int:
        """How many stages an empty store would have to compute; those of `like` variants, not known yet, count whole."""
        keys = set()
        for cell in self.cells:
            for index, name in enumerate(cell.stages):
                chain = None if cell.config is None else [str(getattr(cell.config, part)) for part in cell.stages[: index + 1]]
                keys.add(
                    (name, cell.subject.name, cell.seed, cell.pictures, cell.run if chain is None and index else str(chain))
                )
        return len(keys)


def found_study(file: Path) -> Study:
    """The study of a file, or of the bare name of one that comes with the project.

    Raises ConfigError if there is none, or for what is wrong with it.
    """
    path = study_path(file)
    try:
        return study_from_text(read_regular(path, TEXT_BYTES).decode(), path.name)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise error if isinstance(error, ConfigError) else ConfigError(f"{path} cannot be read: {reason}") from None


def study_path(file: Path) -> Path:
    """A study's file: a path, or the bare name of one that comes with the project. Raises ConfigError if there is none."""
    shipped = STUDIES / f"{file.name}.yaml"
    if file.exists() or (len(file.parts) == 1 and shipped.is_file()):
        return file if file.exists() else shipped
    known = ", ".join(sorted(path.stem for path in STUDIES.glob("*.yaml")))
    raise ConfigError(f"no study {file}; give a YAML file, or one of {known}")


def planned(study: Study, store: Path, preset: str | None, overrides: Sequence[str]) -> Plan:
    """Check a study against settings, words and weights.

    preset: in place of the study's own. overrides: lie over the common settings, under the variants'.

    Raises ConfigError, or StageError for weights, in one line each; nothing has been written or run then.
    """
    if preset is not None:
        study = study.model_copy(update={"preset": preset})
    try:
        return _planned(study, store, overrides)
    except ConfigError as error:
        raise ConfigError(f"study {study.name}: {error}") from None


def _planned(study: Study, store: Path, overrides: Sequence[str]) -> Plan:
    if "seed" in study.settings or any(override.partition("=")[0].strip() == "seed" for override in overrides):
        raise ConfigError("seed is the study's own: change its `seeds`")
    given = polishing_settings() if study.roughened else FROM_NOTHING if study.on_true_meshes else ()
    common = merged(load_config(study.preset, CONFIGS, given), nested(study.settings), overrides)
    check_priors(common)
    configs = variant_configs(study, common)
    for config in configs.values():
        check_priors(config)
    subjects = _subjects(study, common)
    record = RunRecord(run="0" * 8, prompt="-", config=common, created="")
    run = context_of(record, store, tracking_uri=None, show_progress=False)
    _check_words(study, subjects, common, run)
    code = code_digests()
    plan = Plan(
        study,
        id=study_id(study, configs, subjects=subjects, run=run, code=code),
        cells=(),
        configs=configs,
        code=code,
    )
    for variant in study.all_variants():
        if plan.until(variant) not in SHOWN_STAGES:
            raise ConfigError(f"until {plan.until(variant)}: it has no shape to look at; there are {', '.join(SHOWN_STAGES)}")
    cells = [
        _cell(plan, variant, subject, seed) for subject in subjects for seed in study.seeds for variant in study.all_variants()
    ]
    return replace(plan, cells=tuple(cells))


def nested(settings: Settings) -> dict[str, Any]:
    """Dotted names as sections inside sections."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        *sections, key = name.split(".")
        place = found
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{name} stands inside a setting that has a value of its own")
        place[key] = value
    return found


def variant_configs(study: Study, common: Config) -> dict[str, Config]:
    """Each variant's settings, `like` variants left out. Raises ConfigError for unknown settings and for two equal variants."""
    found: dict[str, Config] = {}
    variants = study.all_variants()
    base = _with(common, study.base_name, variants[study.base_name].settings)
    for name, variant in variants.items():
        if variant.like is None:
            found[name] = _dealt(_with(common, name, variant.settings), base, variant)
    measured = {name: (found[name], variants[name].until, variants[name].pictures) for name in found}
    for name, own in measured.items():
        twin = next((other for other in measured if other != name and measured[other] == own), None)
        if twin is not None:
            raise ConfigError(f"variants {name!r} and {twin!r} have the same settings")
    return found


def _with(common: Config, name: str, settings: Settings) -> Config:
    if "seed" in settings:
        raise ConfigError(f"{name}: seed is the study's own: change its `seeds`")
    try:
        return merged(common, nested(settings), [])
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _dealt(config: Config, base: Config, variant: Variant) -> Config:
    """The base's geometry steps in the variant's shares."""
    if variant.shares is None:
        return config
    total = sum(getattr(base, name).steps for name in FITTED)
    return merged(config, {name: {"steps": round(total * variant.shares.get(name, 0))} for name in FITTED}, [])


def _subjects(study: Study, common: Config) -> list[StudySubject]:
    grouped = [(group, checked_prompt(prompt)) for group, listed in study.prompts.items() for prompt in listed]
    listed_prompts = [prompt for _, prompt in grouped]
    names = unique_names([slug_from_prompt(prompt) for prompt in listed_prompts])
    prompts = [StudySubject(name, prompt, group, None) for name, (group, prompt) in zip(names, grouped, strict=True)]
    objects = []
    for group, listed in study.objects.items():
        if listed:
            found = found_subjects(
                located(Path(study.objects_folder), "objects_folder"), listed, common.reference.elevation_deg
            )
            objects += [_object_subject(item, group, study, share) for item in found for share in study.roughened or (0.0,)]
    called = [*listed_prompts, *(subject.name for subject in [*prompts, *objects])]
    twice = next((name for index, name in enumerate(called) if name in called[:index]), None)
    if twice is not None:
        raise ConfigError(f"two subjects would both be called {twice!r}")
    return [*prompts, *objects]


def _object_subject(found: Subject, group: str, study: Study, share: float) -> StudySubject:
    name = f"{found.name} {100 * share:g} %" if share else found.name
    return StudySubject(name, found.prompt, group, found, on_true_mesh=study.on_true_meshes, roughened=share)


def _check_words(study: Study, subjects: Sequence[StudySubject], common: Config, run: RunContext) -> None:
    """That the prior knows a thing that every prompt names; and, in a study of unseen things, knows just those things that it should."""
    from dreampolish.data.captions import parse_caption

    for subject in subjects:
        if subject.truth is None:
            check_thing_named(subject.prompt, run, common.reference, drawn=True)
        if study.unseen_group is None:
            continue
        thing = parse_caption(subject.prompt)[0].split()[-1]
        unseen = bool(check_words(run, thing, "allow"))
        if unseen != (subject.group == study.unseen_group):
            raise ConfigError(
                f"{subject.prompt!r} is in group {subject.group!r}, but the text prior has {'never ' if unseen else ''}seen {thing!r}"
            )


def code_digests() -> tuple[str, ...]:
    """Of every stage's code as it stands on the disk now."""
    return tuple(code_of_module(f"stages.{name}", PROJECT).digest for name in ALL_STAGES)


def study_id(
    study: Study, configs: Mapping[str, Config], subjects: Sequence[StudySubject], run: RunContext, code: Sequence[str]
) -> str:
    """Eight hexadecimal digits over everything that decides the results."""
    try:
        weights = prior_digests(run, "text", "view", "normals", "judge")
    except StageError as error:
        raise ConfigError(str(error)) from None
    content = {
        "study": study.model_dump(mode="json", exclude={"question", "figures"}),
        "configs": {name: config.model_dump(mode="json") for name, config in configs.items()},
        "subjects": [[subject.name, subject.prompt, _shape_of(subject)] for subject in subjects],
        "weights": weights,
        "code": list(code),
        "measures": code_of_module("flows.ablation.figures", PROJECT).digest,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _shape_of(subject: StudySubject) -> list[str]:
    """Hashes of an object's files."""
    if subject.truth is None:
        return []
    files = [subject.truth.glb, *([] if subject.truth.reference is None else [subject.truth.reference])]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


def _cell(plan: Plan, variant: str, subject: StudySubject, seed: int) -> Cell:
    own = plan.configs.get(variant)
    config = None if own is None else cell_config(own, subject, seed)
    key = json.dumps([plan.title, variant, subject.name, subject.group, seed])
    return Cell(
        variant=variant,
        subject=subject,
        seed=seed,
        until=plan.until(variant),
        config=config,
        run=hashlib.sha256(key.encode()).hexdigest()[:12],
        pictures=plan.pictures(variant),
    )


def cell_config(variant: Config, subject: StudySubject, seed: int) -> Config:
    """A variant's settings for one subject and seed; an object's reference keeps its frame."""
    framing = [] if subject.truth is None else framing_settings(subject.truth)
    return merged(variant, {"seed": seed}, framing)
