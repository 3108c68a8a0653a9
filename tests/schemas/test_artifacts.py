"""Artifacts refuse what does not belong in them."""

import math

import pytest
from pydantic import ValidationError

from flows.runs.chain import CHAIN
from schemas.artifacts import FileRef, NerfArtifact
from schemas.runs import ALL_STAGES, STAGES

REF = FileRef(path="field.safetensors", sha256="0" * 64, bytes=1)


def nerf(**changes: object) -> NerfArtifact:
    fields: dict[str, object] = {
        "fingerprint": "a" * 64,
        "parents": {"reference": "b" * 64},
        "metrics": {"psnr": 20.0},
        "seconds": 1.0,
        "peak_memory": 1,
        "field": REF,
        "field_config": {"n_levels": 4},
        "occupancy": REF,
        "steps": 4,
        "switch_reason": "step cap 4",
    }
    return NerfArtifact.model_validate({**fields, **changes})


def test_artifacts_survive_json_and_are_frozen() -> None:
    artifact = nerf()
    assert NerfArtifact.model_validate_json(artifact.model_dump_json()) == artifact
    with pytest.raises(ValidationError):
        artifact.steps = 5


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"psnr": math.nan}},
        {"extra": 1},
        {"stage": "neus"},
        {"fingerprint": "xyz"},
        {"schema_version": 1},
        {"seconds": -1},
    ],
)
def test_wrong_contents_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        nerf(**changes)


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b", "", ".hidden", "a//b", "a b", "a\x00"])
def test_file_references_stay_inside_their_folder(path: str) -> None:
    with pytest.raises(ValidationError):
        FileRef(path=path, sha256="0" * 64, bytes=1)


def test_the_chain_is_in_order() -> None:
    for index, name in enumerate(STAGES):
        assert all(parent in STAGES[:index] for parent in CHAIN[name].parent_names())
    assert tuple(CHAIN) == ALL_STAGES == ("intake", *STAGES)
    assert CHAIN["intake"].parent_names() == ()
    assert {name for name, stage in CHAIN.items() if stage.optional_parents} == {"reference", "neus", "export"}
