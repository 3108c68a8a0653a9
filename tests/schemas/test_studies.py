"""Studies: what a file may hold, how a matrix unfolds, and that every mistake is one line."""

import pytest
import yaml

from schemas.config.presets import ConfigError
from schemas.studies import Study, Variant, study_from_text

GOOD = {
    "name": "trial",
    "question": "Which?",
    "prompts": ["a red armchair"],
    "variants": {"one": {}, "two": {"settings": {"texture.lambda_stable": 2}}},
}


def read(**changes: object) -> Study:
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    return study_from_text(yaml.safe_dump(content, sort_keys=False), "study.yaml")


def test_the_first_variant_is_the_base_and_lists_are_one_unnamed_group() -> None:
    study = read()
    assert study.base_name == "one"
    assert study.groups == ("",)
    assert study.all_variants()["two"].settings == {"texture.lambda_stable": 2}
    assert read(base="two").base_name == "two"


def test_a_matrix_is_every_combination_but_those_left_out() -> None:
    matrix = {"texture.lambda_realistic": [0, 1], "texture.lambda_stable": [0, 0.5]}
    left = [{"texture.lambda_realistic": 0, "texture.lambda_stable": 0}]
    study = read(variants=None, matrix=matrix, leave_out=left)
    assert list(study.all_variants()) == [
        "lambda_realistic=0 lambda_stable=0.5",
        "lambda_realistic=1 lambda_stable=0",
        "lambda_realistic=1 lambda_stable=0.5",
    ]
    assert study.all_variants()["lambda_realistic=1 lambda_stable=0.5"] == Variant(
        settings={"texture.lambda_realistic": 1, "texture.lambda_stable": 0.5}
    )


def test_equal_last_names_in_a_matrix_are_told_apart() -> None:
    study = read(variants=None, matrix={"nerf.steps": [1, 2], "neus.steps": [1]})
    assert list(study.all_variants()) == ["nerf.steps=1 neus.steps=1", "nerf.steps=2 neus.steps=1"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seed": 3}, "seed: unknown key; there are name, question"),
        ({"variants": {"one": {}, "two": {"set": {}}}}, "variants.two.set: unknown key; there are settings, until"),
        ({"variants": None, "matrix": {}}, "matrix is empty"),
        ({"variants": None, "matrix": {"nerf.steps": []}}, "matrix.nerf.steps is empty"),
        ({"matrix": {"nerf.steps": [1]}}, "variants and matrix: give one of them"),
        ({"prompts": []}, "no prompts and no objects"),
        ({"prompts": ["a", "a"]}, "a stands there twice"),
        ({"seeds": [1, 1]}, "1 stands there twice"),
        ({"seeds": []}, "seeds: name at least one"),
        ({"base": "three"}, "base 'three' is no variant; there are one, two"),
        ({"variants": {"one": {}}}, "nothing to compare"),
        ({"variants": {"one": {}, "two": {"shares": {"nerf": 0.5}}}}, "shares sum to 0.5"),
        ({"variants": {"one": {}, "two": {"shares": {"texture": 1}}}}, "shares of texture"),
        ({"variants": {"one": {}, "two": {"like": "one"}}}, "like, as_long_as and stretch belong together"),
        ({"variants": {"one": {}, "b": {"like": "x", "as_long_as": "one", "stretch": ["nerf"]}}}, "'x' is no variant with"),
        ({"variants": {"one": {"shares": {"nerf": 1}}, "two": {}}}, "base 'one' must stand for itself"),
        ({"unseen_group": "new"}, "unseen_group 'new' is no group"),
        ({"variants": None, "matrix": {"nerf.steps": [1, 2]}, "leave_out": [{"nerf.steps": 3}]}, "is no combination"),
        ({"until": "render"}, "until: Input should be"),
        ({"name": "../up"}, "name: String should match"),
        (
            {"variants": None, "matrix": {f"texture.k{i}": list(range(30)) for i in range(8)}},
            "656100000000 combinations, the limit",
        ),
        ({"prompts": [f"chair {i}" for i in range(5001)]}, "the limit is 10000 runs"),
    ],
)
def test_mistakes_are_one_line(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        read(**changes)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["a: [", "- just\n- a list", "\x00"])
def test_what_is_no_yaml_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"study\.yaml") as error:
        study_from_text(text, "study.yaml")
    assert "\n" not in str(error.value)


def test_a_study_survives_json() -> None:
    study = read(prompts={"seen": ["a chair"], "new": ["a barrel"]})
    assert Study.model_validate_json(study.model_dump_json()) == study
