"""A study: the same subjects and seeds under several variants of the settings. A study's file is checked before anything runs."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import yaml
from pydantic import Field, JsonValue, ValidationError, WithJsonSchema, field_validator, model_validator

from schemas.artifacts import StageName
from schemas.base import Frozen
from schemas.config.presets import ConfigError
from schemas.runs import MOST_PICTURES, Azimuth
from schemas.yaml_text import read_yaml, told

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._=-]*$", max_length=80)]
_LIST = {"type": "array", "items": {"type": "string"}}
Grouped = Annotated[dict[str, list[str]], WithJsonSchema({"anyOf": [_LIST, {"type": "object", "additionalProperties": _LIST}]})]
"""Lists by group; a plain list is the one group without a name."""
Settings = dict[str, JsonValue]
"""Full names (`texture.lambda_stable`) and their values."""

MOST_COMBINATIONS = 256
"""Of a matrix: each is a variant, of which every subject and seed has a run."""
MOST_RUNS = 10_000
FITTED: tuple[StageName, ...] = ("nerf", "neus", "dmtet", "polish")
"""Stages of the geometry whose steps `shares` deals out."""


class Variant(Frozen):
    """One column of a study.

    shares: what part of the base variant's geometry steps each stage gets; those not named get none. like, as_long_as, stretch: the
    settings of another variant, with the steps of some stages multiplied until it takes as long as a third one did.
    """

    settings: Settings = {}
    until: StageName | None = None
    """The stage whose result is measured, if not the study's."""
    shares: dict[StageName, Annotated[float, Field(gt=0, le=1)]] | None = None
    like: Name | None = None
    as_long_as: Name | None = None
    stretch: tuple[StageName, ...] = ()
    pictures: tuple[Azimuth, ...] = Field(default=(), max_length=MOST_PICTURES - 1)
    """Azimuths, degrees, of more pictures of an object beside its front's, rendered from its true mesh."""

    @model_validator(mode="after")
    def _whole(self) -> "Variant":
        if self.shares is not None:
            wrong = [name for name in self.shares if name not in FITTED]
            if wrong:
                raise ValueError(f"shares of {wrong[0]}: only {', '.join(FITTED)} have any")
            if abs(sum(self.shares.values()) - 1) > 1e-6:
                raise ValueError(f"shares sum to {sum(self.shares.values()):g}, they must sum to 1")
        given = (self.like is not None, self.as_long_as is not None, bool(self.stretch))
        if any(given) and not all(given):
            raise ValueError("like, as_long_as and stretch belong together")
        if self.like is not None and (self.settings or self.shares or self.until or self.pictures):
            raise ValueError("a variant with like takes its settings from there, and has none of its own")
        if any(name not in FITTED for name in self.stretch):
            raise ValueError(f"stretch: only {', '.join(FITTED)} can be")
        _refuse_twice("pictures", [0.0, *(azimuth % 360 for azimuth in self.pictures)])
        return self


class Study(Frozen):
    """What a study's file holds.

    Either `variants` or a `matrix` of settings, whose combinations are the variants, or neither: then groups of subjects are compared.
    prompts and objects are lists, or lists by group. Objects are folders with a true mesh.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)
    question: str = Field(min_length=1, max_length=600)
    preset: str = "home"
    settings: Settings = {}
    """Common to all variants."""
    prompts: Grouped = {}
    objects: Grouped = {}
    objects_folder: str = "benchmark/objects"
    on_true_meshes: bool = False
    """Whether the objects' true meshes, stripped of their colours, are textured, or polished where `roughened` says so: what a stage
    does where the shape is known."""
    roughened: tuple[Annotated[float, Field(gt=0, le=0.1)], ...] = ()
    """How rough the true meshes are made before they are polished: the bumps' standard deviation, as shares of the box's diagonal.
    Each object is a subject at each of them; its truth is the mesh as it was."""
    unseen_group: str | None = None
    """The group whose things the text prior never saw; checked against its vocabulary."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = (0,)
    until: StageName = "texture"
    variants: dict[Name, Variant] = {}
    matrix: dict[str, list[JsonValue]] | None = None
    leave_out: list[Settings] = []
    """Combinations of the matrix that are no variants."""
    base: Name | None = None
    """The variant that the others are compared with; the first one if none is named."""
    figures: tuple[str, ...] = ()
    """Figures that the plot shows; none: the first six that there are."""

    @field_validator("prompts", "objects", mode="before")
    @classmethod
    def _grouped(cls, value: object) -> object:
        return {"": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _whole(self) -> "Study":
        if not any(self.prompts.values()) and not any(self.objects.values()):
            raise ValueError("no prompts and no objects: name at least one")
        for what, listed in (("prompts", self.prompts), ("objects", self.objects)):
            _refuse_twice(what, [item for group in listed.values() for item in group])
        _refuse_twice("seeds", self.seeds)
        if not self.seeds:
            raise ValueError("seeds: name at least one")
        _refuse_twice("roughened", self.roughened)
        if self.roughened and not self.on_true_meshes:
            raise ValueError("roughened: only true meshes can be; say on_true_meshes: true")
        if self.on_true_meshes:
            self._check_true_meshes()
        if any(self.prompts.values()) and any(variant.pictures for variant in self.variants.values()):
            raise ValueError("pictures: they are rendered from true meshes, which only objects have; leave prompts out")
        if self.matrix is not None and self.variants:
            raise ValueError("variants and matrix: give one of them")
        if self.matrix is not None:
            empty = next((key for key, values in self.matrix.items() if not values), None)
            if not self.matrix or empty is not None:
                raise ValueError(f"matrix{'' if empty is None else f'.{empty}'} is empty: give each setting its values")
            combinations = math.prod(len(values) for values in self.matrix.values())
            if combinations > MOST_COMBINATIONS:
                raise ValueError(f"matrix has {combinations} combinations, the limit is {MOST_COMBINATIONS}; give fewer values")
        every = (
            []
            if self.matrix is None
            else [dict(zip(self.matrix, v, strict=True)) for v in itertools.product(*self.matrix.values())]
        )
        stray = next((settings for settings in self.leave_out if settings not in every), None)
        if stray is not None:
            raise ValueError(f"leave_out: {stray} is no combination of the matrix")
        if self.unseen_group is not None and self.unseen_group not in self.groups:
            raise ValueError(f"unseen_group {self.unseen_group!r} is no group; there are {', '.join(self.groups)}")
        self._check_references()
        return self

    def _check_true_meshes(self) -> None:
        """That there is a true mesh for every subject, and that nothing but its texture, or its polish, is compared."""
        if any(self.prompts.values()):
            raise ValueError("on_true_meshes: only objects have a true mesh; leave prompts out")
        ends = {self.until, *(variant.until or self.until for variant in self.variants.values())}
        if self.roughened and ends != {"polish"}:
            raise ValueError("roughened: until polish; what comes later says nothing of the shape")
        if not self.roughened and ends != {"texture"}:
            raise ValueError("on_true_meshes: until texture; a given mesh has no earlier stages to compare")
        if self.roughened and any(variant.pictures for variant in self.variants.values()):
            raise ValueError("roughened: polishing a mesh of one's own takes no pictures")
        if any(variant.shares is not None or variant.like is not None for variant in self.variants.values()):
            raise ValueError("on_true_meshes: shares and like deal out steps of the geometry, and there are none")

    def _check_references(self) -> None:
        """That named variants exist and can be what they are named for."""
        table = self.all_variants()
        subjects = sum(len(group) for listed in (self.prompts, self.objects) for group in listed.values())
        subjects *= max(1, len(self.roughened))
        if len(table) * subjects * len(self.seeds) > MOST_RUNS:
            raise ValueError(
                f"{len(table)} variants of {subjects} subjects and {len(self.seeds)} seeds, the limit is {MOST_RUNS} runs"
            )
        if len(table) < 2 and len(self.groups) < 2:
            raise ValueError("nothing to compare: give variants, a matrix of at least two combinations, or two groups")
        if self.base is not None and self.base not in table:
            raise ValueError(f"base {self.base!r} is no variant; there are {', '.join(table)}")
        base = table[self.base_name]
        if base.shares is not None or base.like is not None:
            raise ValueError(f"base {self.base_name!r} must stand for itself: shares and like are measured against others")
        for name, variant in table.items():
            for other in (variant.like, variant.as_long_as):
                if other is not None and (other not in table or table[other].like is not None):
                    raise ValueError(f"variants.{name}: {other!r} is no variant with settings of its own")

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups of subjects, in order; one empty name when there are none."""
        return tuple(dict.fromkeys([*self.prompts, *self.objects]))

    @property
    def base_name(self) -> str:
        """The variant that the others are compared with."""
        return self.base or next(iter(self.all_variants()))

    def all_variants(self) -> Mapping[str, Variant]:
        """The variants by name: those given, or the matrix's combinations, or the plain settings alone."""
        if self.matrix is None:
            return self.variants or {"base": Variant()}
        keys = list(self.matrix)
        found = {}
        for values in itertools.product(*self.matrix.values()):
            settings = dict(zip(keys, values, strict=True))
            if settings not in self.leave_out:
                name = combination_name(keys, values)
                if name in found:
                    raise ValueError(
                        f"matrix: two combinations would both be called {name!r}; write them as variants with names"
                    )
                found[name] = Variant(settings=settings)
        return found


def combination_name(keys: Sequence[str], values: Sequence[JsonValue]) -> str:
    """What a matrix's combination is called: `lambda_realistic=1 lambda_stable=0.5`."""
    last = [key.rpartition(".")[2] for key in keys]
    shown = last if len(set(last)) == len(last) else keys
    return " ".join(f"{key}={_short(value)}" for key, value in zip(shown, values, strict=True))


def _short(value: JsonValue) -> str:
    plain = "-".join(str(part) for part in value) if isinstance(value, list) else str(value)
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in plain)


def _refuse_twice(what: str, items: Sequence[object]) -> None:
    seen: set[object] = set()
    for item in items:
        if item in seen:
            raise ValueError(f"{what}: {item} stands there twice")
        seen.add(item)


def study_from_text(text: str, source: str) -> Study:
    """The study that a YAML text holds. source: its name in messages, such as its file's.

    Raises ConfigError, in one line, for anything that is wrong with it by itself.
    """
    try:
        content: Any = read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} cannot be read: {told(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{source} must hold a study's keys, such as name, question, prompts and variants")
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "[key]")
        said = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            model = Study if len(first["loc"]) == 1 else Variant
            said = f"unknown key; there are {', '.join(model.model_fields)}"
        raise ConfigError(f"{source}: {where}{': ' if where else ''}{said}") from None
