"""Presets, overrides and the messages for wrong ones."""

import ast
import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.runs.chain import CHAIN
from schemas.config.presets import ConfigError, load_config, merged, names
from schemas.config.run import Config, PriorsConfig
from schemas.config.shared.schedule import Ramp, constant
from schemas.runs import ALL_STAGES
from stages.runtime.files import CONFIGS, PROJECT
from stages.runtime.keys.code import code_of, code_of_module


@pytest.mark.parametrize("preset", ["home", "smoke", "sd", "sd-fast"])
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
    for stage in (name for name in ALL_STAGES if hasattr(getattr(home, name), "steps")):
        assert getattr(smoke, stage).steps < getattr(home, stage).steps, stage


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
        ("seed=-1", "seed = -1: must be greater than or equal to 0"),
        ("seed=1.5", "seed = 1.5: must be a whole number"),
        ("nerf.grid_lr=fast", "nerf.grid_lr = 'fast': must be a number"),
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


WATCHING = {"stages.results.observer", "stages.results.scores"}
"""Modules outside a key that read how a result is looked at."""


def test_every_setting_of_a_stage_is_read_by_it() -> None:
    for stage in ALL_STAGES:
        reached = code_of(f"stages.{stage}", CHAIN[stage].__name__, PROJECT).names
        read = _attributes({name.rpartition(".")[0] for name in reached} | WATCHING)
        section = type(getattr(Config(), stage))
        unread = [name for name in names(section) if name.rpartition(".")[2] not in read | {"start", "end", "begin", "until"}]
        # A stage without steps shows none on the way; its previews have one class with those that do.
        unread = [name for name in unread if name != "preview.interval" or "steps" in section.model_fields]
        assert unread == [], f"nothing in the {stage} stage reads {unread}"


def test_every_setting_of_the_run_is_read() -> None:
    reached = code_of_module("flows.text_to_3d", PROJECT).names
    read = _attributes({name.rpartition(".")[0] for name in reached} | WATCHING)
    assert [name for name in names(PriorsConfig) if name.rpartition(".")[2] not in read | {"text", "view", "normals"}] == []
    assert {"seed", "device", "threads", "checkpoint_interval"} <= read


def _attributes(modules: set[str]) -> set[str]:
    """The names of all attributes that the modules read, those of the contracts left out."""
    found: set[str] = set()
    for module in modules:
        path = PROJECT.joinpath(*module.split("."))
        source = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        if not module.startswith("schemas"):
            found.update(node.attr for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Attribute))
    return found


WRONG = [
    ("nerf.text.objective=dsd", "needs the LoRA domain, which only the texture stage fits"),
    ("dmtet.text.objective=vsd", "use sds, csd, nfsd or weights here"),
    ("nerf.text.lora_rank=4", "unknown setting nerf.text.lora_rank"),
    ("nerf.cameras.elevation_deg=[-90, 45]", "the poles excluded"),
    ("nerf.cameras.elevation_deg=[45, -10]", "the lower end 45 lies above the upper end -10"),
    ("polish.cameras.fov_deg=[20, 180]", "between 0 and 180 degrees"),
    ("polish.cameras.fov_deg=[0, 60]", "between 0 and 180 degrees"),
    ("texture.cameras.azimuth_deg=[-200, 200]", "between -180 and 180"),
    ("texture.weight={start: 1, end: 2, begin: 0.6, until: 0.5}", "begin 0.6 lies after until 0.5"),
    ("texture.weight=-0.1", "must not fall below 0"),
    ("texture.weight=much", "must be a number, or {start, end, begin, until}"),
    ("texture.t_max=1.5", "must stay between 0 and 1"),
    ("texture.negative_share={start: 0, end: 2}", "must stay between 0 and 1"),
    ("texture.weights.e_y=2", "must sum to 0, but sum to 1 at progress 0"),
    ("texture.weights.e_lora={start: 1, end: 0, begin: 0.2, until: 0.2}", "must sum to 0"),
    ("nerf.betas=[0.9, 1]", "less than 1"),
    ("nerf.guidance_size=100000", "less than or equal to 4096"),
    ("priors.precision=float8", "priors.precision"),
]


@pytest.mark.parametrize(("override", "message"), WRONG)
def test_values_out_of_range_are_refused_in_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("home", CONFIGS, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("overrides", "stage"),
    [
        (
            [
                *(f"nerf.{name}=0" for name in ("text.weight", "view.weight", "targets.rgb_weight", "targets.mask_weight")),
                "nerf.anchors={rgb: 0, mask: 0}",
            ],
            "nerf",
        ),
        (["polish.normal_weight=0", "polish.anchors={rgb: 0, mask: 0, normal: 0}"], "polish"),
        (["texture.weight=0", "texture.anchors.rgb=0"], "texture"),
        (["texture.lambda_stable=0", "texture.lambda_realistic=0"], "texture"),
    ],
)
def test_a_stage_that_nothing_guides_is_refused(overrides: list[str], stage: str) -> None:
    with pytest.raises(ConfigError, match=f"^{stage}: .* are all 0"):
        load_config("home", CONFIGS, overrides)
    for fewer in range(len(overrides)):
        load_config("home", CONFIGS, overrides[:fewer])
    load_config("home", CONFIGS, [*overrides, f"{stage}.steps=0"])


VALUES = st.one_of(
    st.integers(-(10**6), 10**6),
    st.floats(allow_nan=True, allow_infinity=True),
    st.tuples(st.floats(-400, 400), st.floats(-400, 400)).map(list),
    st.fixed_dictionaries(
        {"start": st.floats(-2, 2), "end": st.floats(-2, 2)}, optional={"begin": st.floats(-1, 2), "until": st.floats(-1, 2)}
    ),
    st.sampled_from(["sds", "dsd", "late", "cpu", "none", "true", ""]),
)


@given(st.sampled_from([name for name in names(Config) if name not in ALL_STAGES]), VALUES)
@settings(max_examples=300)
def test_any_value_of_any_setting_is_valid_or_refused_in_one_line(name: str, value: object) -> None:
    try:
        config = merged(Config(), {}, [f"{name}={json.dumps(value)}"])
    except ConfigError as error:
        assert str(error).strip()
        assert "\n" not in str(error)
        assert len(str(error)) < 400
        return
    assert Config.model_validate_json(config.model_dump_json()) == config
    for stage in (config.nerf, config.neus, config.dmtet, config.polish, config.texture):
        assert -90 < stage.cameras.elevation_deg[0] <= stage.cameras.elevation_deg[1] < 90
        assert 0 < stage.cameras.fov_deg[0] <= stage.cameras.fov_deg[1] < 180
    for progress in (0.0, 0.3, 1.0):
        assert 0 <= config.texture.t_min.at_progress(progress) <= 1
        assert config.texture.weight.at_progress(progress) >= 0
