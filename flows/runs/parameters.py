"""Types of the deployments' parameters, whose JSON schemas let Prefect's server refuse a wrong one before a run exists."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from schemas.config.presets import presets_in
from schemas.config.run import PROMPT_LIMIT, Config
from schemas.runs import MOST_PICTURES
from stages.runtime.files import CONFIGS

Changes = Mapping[str, Any]


def override_lines(overrides: list[str] | dict[str, Any] | None) -> list[str]:
    """Overrides as `section.key=value` lines: a list is taken as it is, a mapping's keys may be nested, dotted or both."""
    if overrides is None or isinstance(overrides, list):
        return list(overrides or [])
    return [f"{name}={json.dumps(value)}" for name, value in _leaves(overrides, "")]


def _leaves(values: Changes, prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in values.items():
        inner = isinstance(value, Mapping) and bool(value)
        found += _leaves(value, f"{prefix}{key}.") if inner else [(prefix + key, value)]
    return found


def settings_schema() -> dict[str, Any]:
    """The JSON schema of a mapping of changed settings: `{"texture": {"steps": 9}}` or `{"texture.steps": 9}`; unknown names fail."""
    whole = Config.model_json_schema()
    nested = _optional(whole, whole["$defs"])
    dotted = dict(_dotted(nested, ""))
    return {"type": "object", "properties": {**nested["properties"], **dotted}, "additionalProperties": False}


def _optional(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema with references written out and nothing required: what is absent stays as the preset has it."""
    if isinstance(schema, list):
        return [_optional(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _optional(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    properties = {key: _optional(value, definitions) for key, value in schema.get("properties", {}).items()}
    dropped = ("$defs", "required", "default", "title", "description", "properties")
    kept = {key: _optional(value, definitions) for key, value in schema.items() if key not in dropped}
    return {**kept, **({"properties": properties} if "properties" in schema else {})}


def _dotted(schema: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in schema.get("properties", {}).items():
        if prefix and "properties" not in value:
            found.append((prefix + key, value))
        found += _dotted(value, f"{prefix}{key}.")
    return found


Picture = Annotated[str, Field(min_length=1, max_length=4096)]
"""A hash or a path, with @AZIMUTH[,ELEVATION] behind one that does not show the front; flows/runs/roots.py finds it."""
Pictures = Picture | Annotated[list[Picture], Field(min_length=1, max_length=MOST_PICTURES)]
StudyName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
Prompt = Annotated[str, Field(min_length=1, max_length=PROMPT_LIMIT, pattern=r"\w")]
RunId = Annotated[str, Field(pattern=r"^[a-z0-9]{1,32}$")]
MeshPath = Annotated[
    str, Field(min_length=1, max_length=4096, pattern=r"(\.(?i:glb|gltf|obj|ply|stl|off|usd[acz]?)|^[0-9a-f]{64})$")
]
"""A hash, or a mesh file under one of the service's folders; flows/runs/roots.py finds it."""
Vram = Annotated[float | None, Field(ge=1)]
"""GiB of CUDA memory to plan for; None: what the card has free."""
Preset = Annotated[str, Field(json_schema_extra={"enum": presets_in(CONFIGS)})]
Overrides = Annotated[
    list[str] | dict[str, Any] | None,
    WithJsonSchema({"anyOf": [settings_schema(), {"type": "null"}]}),
]
"""A deployment takes the mapping alone: what is wrong in it can be told in a few words. Commands pass lines."""
