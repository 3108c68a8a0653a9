"""Presets, overrides and the messages for wrong ones."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flows.runs import CONFIGS
from schemas.config import Config
from schemas.presets import ConfigError, load_config, merged, names
from schemas.schedule import Ramp, constant


@pytest.mark.parametrize("preset", ["home", "smoke", "sd"])
def test_presets_load_and_hold_only_differences(preset: str) -> None:
    config = load_config(preset, CONFIGS, [])
    assert config.preset == preset
    defaults = Config().model_dump()

    def check(differences: dict, default: dict, path: str) -> None:
        for key, value in differences.items():
            if (
                isinstance(value, dict)
                and isinstance(default.get(key), dict)
                and set(value) - {"start", "end", "begin", "until"}
            ):
                check(value, default[key], f"{path}{key}.")
            else:
                assert value != default[key], f"{path}{key} repeats the default"

    check(yaml.safe_load((CONFIGS / f"{preset}.yaml").read_text()) or {}, defaults, "")


def test_smoke_is_smaller_than_home_everywhere() -> None:
    smoke, home = load_config("smoke", CONFIGS, []), load_config("home", CONFIGS, [])
    for stage in ("nerf", "neus", "dmtet", "polish", "texture"):
        assert getattr(smoke, stage).steps < getattr(home, stage).steps


def test_overrides_are_typed_and_leave_the_rest() -> None:
    config = load_config(
        "home", CONFIGS, ["texture.lambda_stable=0.5", "texture.lora_lr=1e-4", "seed=7", "nerf.grid={n_levels: 3}"]
    )
    assert config.texture.lambda_stable == constant(0.5)
    assert config.texture.lora_lr == 1e-4
    assert config.seed == 7
    assert config.nerf.grid == Config().nerf.grid.model_copy(update={"n_levels": 3})
    assert config.neus == Config().neus


def test_a_later_override_wins() -> None:
    assert load_config("home", CONFIGS, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("texture.lamda_stable=1", "unknown setting texture.lamda_stable; did you mean texture.lambda_stable?"),
        ("nerf.grid.levels=4", "did you mean nerf.grid.n_levels?"),
        ("texturee.steps=4", "unknown setting texturee; did you mean texture?"),
        ("seed=-1", "seed = -1: Input should be greater than or equal to 0"),
        ("device=tpu", "use auto, cpu, cuda or cuda:N"),
        ("export.texture_size=1000", "export.texture_size"),
        ("texture=[1", "is no value"),
        ("=3", "section.key=value"),
        ("priors.text.revision=main", "priors.text.revision"),
    ],
)
def test_wrong_overrides_are_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("home", CONFIGS, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_override_is_taken_or_refused_in_one_line(text: str) -> None:
    try:
        merged(Config(), {}, [text])
    except ConfigError as error:
        assert str(error).strip()


def test_every_setting_can_be_named() -> None:
    listed = list(names(Config))
    assert "texture.lambda_realistic" in listed
    assert "nerf.view.t_max.start" in listed
    assert len(listed) == len(set(listed))


def test_settings_survive_json() -> None:
    config = load_config("sd", CONFIGS, ["nerf.anchors.rgb={start: 5, end: 1, until: 0.5}"])
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_ramp_values() -> None:
    ramp = Ramp(start=1.0, end=3.0, begin=0.25, until=0.75)
    assert [ramp.at(step, 5) for step in range(5)] == [1.0, 1.0, 2.0, 3.0, 3.0]
    assert constant(2.0).at(0, 1) == 2.0
    jump = Ramp(start=1.0, end=3.0, begin=0.5, until=0.5)
    assert [jump.at(step, 5) for step in range(5)] == [1.0, 1.0, 3.0, 3.0, 3.0]


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(0, 1), st.floats(0, 1), st.integers(1, 50))
def test_a_ramp_stays_between_its_ends(start: float, end: float, begin: float, until: float, steps: int) -> None:
    ramp = Ramp(start=start, end=end, begin=min(begin, until), until=max(begin, until))
    for step in range(steps):
        assert min(start, end) - 1e-9 <= ramp.at(step, steps) <= max(start, end) + 1e-9
