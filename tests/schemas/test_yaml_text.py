"""YAML from strangers: what multiplies, nests or is no plain value is refused at once; what people write is read as before."""

import resource
import time

import pytest
import yaml

from schemas.yaml_text import read_yaml, told

BOMB = "a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "more than 10000 values"),
        ("[" * 5000 + "]" * 5000, "nested more than 30 deep"),
        ("a: &a [*a]", "inside what it stands for"),
        ("!!python/object/apply:os.system ['id']", "could not determine a constructor"),
        ("a: [", "expected the node content"),
        ("x" * 200_001, "the limit is 200000"),
        ("- 1\n" * 10_001, "more than 10000 values"),
        ("a: 2026-99-99", "cannot be read"),
        ("a: *b", "undefined alias"),
    ],
)
def test_what_is_out_of_bounds_is_refused_at_once(text: str, why: str) -> None:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(yaml.YAMLError) as error:
        read_yaml(text)
    assert why in told(error.value)
    assert "\n" not in told(error.value)
    assert time.process_time() - started < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize(
    "text", ["", "a: 1", "- x\n- {y: [1, 2.5, null, true]}", "base: &b {k: 1}\nother: *b\nmore: {<<: *b, l: 2}"]
)
def test_what_people_write_is_read_as_by_pyyaml(text: str) -> None:
    assert read_yaml(text) == yaml.safe_load(text)


def test_an_error_does_not_show_the_text_around_it() -> None:
    with pytest.raises(yaml.YAMLError) as error:
        read_yaml("root:x:0:0\nname: secret: more")
    assert "secret" not in told(error.value)
    assert "line 2" in told(error.value)
