"""The engine of procedural objects: order, resuming, workers that fail, die or hang. A script stands in for Blender."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "priors" / "procedural"


def load(name: str):
    """A module of priors/procedural, which is no package."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


engine = load("engine")


def generators(**seeds: int) -> dict[str, "engine.Generator"]:
    """Generators with so many seeds each."""
    return {name: engine.Generator(name, "somewhere", ("thing",), n, limit_s=1.0) for name, n in seeds.items()}


STAND_IN = """#!{python}
import json, os, pathlib, sys, time
for line in sys.stdin:
    job = json.loads(line)
    if job["generator"] == "Dies": sys.exit(1)
    while job["generator"] == "Hangs": pass
    ok = job["generator"] != "Fails"
    if ok: pathlib.Path(job["path"]).write_bytes(b"")
    answer = {{"generator": job["generator"], "seed": job["seed"], "ok": ok, "reason": "no", "seconds": os.getpid()}}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def env(tmp_path):
    """An environment whose Python answers like a worker."""
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STAND_IN.format(python=sys.executable))
    python.chmod(0o755)
    return tmp_path / "env"


def test_the_list_of_generators_is_sound():
    found = engine.read_generators(HERE / "generators.yaml")
    assert len(found) >= 45
    for generator in found.values():
        assert generator.words
        assert generator.seeds > 0
        assert generator.use or generator.reason
        assert generator.front_deg is None or 0 <= generator.front_deg < 360


def test_an_unknown_field_of_a_generator_is_refused(tmp_path):
    (tmp_path / "g.yaml").write_text("A: {module: a, words: [a], seeds: 1, smell: pine}")
    with pytest.raises(ValueError, match="smell"):
        engine.read_generators(tmp_path / "g.yaml")


def test_the_plan_gives_every_generator_a_few_objects_first_then_takes_turns():
    have = {("Old", seed) for seed in range(4)} | {("New", 1)}
    jobs = engine.plan(generators(Old=6, New=6, Empty=2), have, set())
    first = [("Empty", 0), ("New", 0), ("Empty", 1), ("New", 2)]
    assert jobs[:4] == first
    assert jobs[4:] == [("Old", 4), ("Old", 5), ("New", 3), ("New", 4), ("New", 5)]


def test_what_failed_is_not_tried_again_and_a_generator_that_only_fails_is_dropped():
    failed = {("Bad", seed) for seed in range(engine.DROPPED_AFTER)} | {("Good", 0)}
    assert engine.plan(generators(Bad=9, Good=2), set(), failed) == [("Good", 1)]


def test_a_run_makes_what_is_missing_and_a_second_run_nothing(tmp_path, env):
    known = tmp_path / "known"
    known.mkdir()
    (known / "Good_0001.npz").touch()
    engine.run(generators(Good=8), tmp_path / "out", env, [known])
    made = engine.read_lines(tmp_path / "out" / "made.jsonl")
    assert [line["seed"] for line in made] == [0, 2, 3, 4, 5, 6, 7]
    assert len({line["seconds"] for line in made}) == 2, "a new worker after WORKER_OBJECTS objects"
    engine.run(generators(Good=8), tmp_path / "out", env, [known])
    assert engine.read_lines(tmp_path / "out" / "made.jsonl") == made


def test_failures_deaths_and_hanging_workers_are_recorded_and_the_rest_goes_on(tmp_path, env):
    engine.run(generators(Dies=1, Hangs=1, Fails=1, Good=1), tmp_path / "out", env, [])
    failed = {line["generator"]: line["reason"] for line in engine.read_lines(tmp_path / "out" / "failed.jsonl")}
    assert failed == {"Dies": "the worker died", "Hangs": "not within 1 s of the processor", "Fails": "no"}
    assert engine.objects_in(tmp_path / "out" / "objects") == {("Good", 0)}


def test_workers_that_die_one_after_another_end_the_run(tmp_path, env):
    with pytest.raises(RuntimeError, match="workers died one after another"):
        engine.run(generators(Dies=engine.DEATHS), tmp_path / "out", env, [])


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path):
    path = tmp_path / "made.jsonl"
    path.write_text(json.dumps({"seed": 1}) + "\n" + '{"seed": 2, "na')
    assert engine.read_lines(path) == [{"seed": 1}]


@pytest.mark.parametrize(
    ("shares", "word"),
    [
        ({"shader_wood": 0.7, "shader_metal": 0.3}, "wooden"),
        ({"shader_brushed_metal": 0.3, "shader_metal": 0.3, "shader_wood": 0.4}, "metal"),
        ({"shader_shelves_white": 0.8, "shader_wood": 0.2}, None),
        ({}, None),
    ],
)
def test_material_word_is_that_of_most_of_the_surface(shares, word):
    assert load("manifest").material_word(shares) == word


def test_the_manifest_says_what_is_measured_and_leaves_out_what_is_black(tmp_path):
    np = pytest.importorskip("numpy")
    (tmp_path / "objects").mkdir()
    corners = np.array([[0, 0, 0], [30000, 0, 0], [0, 30000, 0], [0, 0, 30000]], np.int16)
    faces = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]], np.uint16)
    for seed, value in ((0, 255), (1, 0)):
        path = tmp_path / "objects" / f"Good_{seed:04d}.npz"
        np.savez(path, vertices=corners, size=np.float32(2), faces=faces, colors=np.full((4, 3, 3), value, np.uint8))
    white, black = load("manifest").write_manifest(tmp_path, generators(Good=2))
    assert (white.color, white.use, white.reason) == ("white", True, "")
    assert (black.color, black.use, black.reason) == ("black", False, "black")
    assert white.extent_m == pytest.approx((0.9155, 0.9155, 0.9155), abs=1e-3)
