"""Equal computations have equal keys in every process and checkout; what a stage reads changes its key, and nothing else does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows.runs.chain import CHAIN
from schemas.artifacts import FileRef, NerfArtifact
from schemas.config.nerf import NerfConfig
from schemas.config.run import Config
from stages.runtime.context import RunContext
from stages.runtime.files import PROJECT
from stages.runtime.keys import key as keys
from stages.runtime.keys.code import Code, code_of, code_of_module
from stages.runtime.keys.key import opened_priors, read_fields, stage_key

FILES = {
    "dreampolish/__init__.py": "",
    "dreampolish/field.py": (
        '"""A field."""\nimport torch\nfrom dreampolish.grid import SIZE as SIDE, Base, cells\n'
        "from dreampolish.kernel import double\n\n"
        'class Field(Base):\n    """Doc."""\n    width: int = 3\n\n    def forward(self, points: "torch.Tensor"):\n'
        '        """Doc."""\n        return torch.relu(points) * SIDE + cells(double)\n\ndef unused():\n    return 1\n'
    ),
    "dreampolish/grid.py": "SIZE = 3\nOTHER = 4\n\nclass Base:\n    scale = 2\n\ndef cells(points, count=7):\n    return count\n",
    "dreampolish/kernel.py": (
        "from typing import no_type_check\nimport warp as wp\n\n"
        "@wp.kernel\n@no_type_check\ndef double(values: wp.array(dtype=wp.float32)):\n    values[wp.tid()] *= 2.0\n"
    ),
    "dreampolish/lookup.py": "TABLE = {}\nTABLE['a'] = 1\n",
    "stages/__init__.py": "",
    "stages/runtime/__init__.py": "",
    "stages/runtime/stage.py": "def stage(name):\n    return lambda function: function\n",
    "stages/nerf.py": (
        "from dreampolish.field import Field\nfrom stages.runtime.stage import stage\n\nSTEPS = 5\n\n"
        "@stage('nerf')\ndef fit_nerf(reference, config):\n    return helper(Field(), STEPS)\n\n"
        "def helper(field, steps):\n    import nerfacc\n    return nerfacc.render(field, steps)\n\n"
        "if __name__ == '__main__':\n    from stages.export import export\n"
    ),
    "stages/export.py": "from dreampolish import lookup\n\ndef export():\n    return lookup.TABLE\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "here"
    for name, source in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root


def digest(root: Path, module: str = "stages.nerf", function: str = "fit_nerf") -> str:
    # Answers are remembered by checkout: a fresh process sees the files as they are now.
    code_module = sys.modules["stages.runtime.keys.code"]
    code_module._code_of.cache_clear()  # type: ignore[attr-defined]
    return code_of(module, function, root).digest


def edit(root: Path, name: str, old: str, new: str) -> None:
    source = (root / name).read_text()
    assert old in source
    (root / name).write_text(source.replace(old, new))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("dreampolish/field.py", '"""Doc."""', '"""Another doc."""'),
        ("dreampolish/field.py", '"""A field."""', '"""A field.\n\nTold at length."""'),
        ("dreampolish/field.py", "width: int = 3", "width: float = 3  # narrow"),
        ("dreampolish/field.py", 'points: "torch.Tensor"', "points"),
        ("dreampolish/field.py", "return 1\n", "return 2\n"),
        ("dreampolish/field.py", "def unused", "def metric(a):\n    return a\n\ndef unused"),
        ("dreampolish/grid.py", "OTHER = 4", "OTHER = 5"),
        ("stages/runtime/stage.py", "lambda function: function", "lambda function: print(function)"),
        ("stages/nerf.py", "@stage('nerf')", "@stage('nerf', 1)"),
        ("stages/nerf.py", "from stages.export import export", "import stages.export"),
        ("dreampolish/lookup.py", "= 1", "= 2"),
    ],
)
def test_what_a_stage_does_not_read_changes_no_key(checkout: Path, name: str, old: str, new: str) -> None:
    before = digest(checkout)
    edit(checkout, name, old, new)
    assert digest(checkout) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("dreampolish/grid.py", "SIZE = 3", "SIZE = 4"),
        ("dreampolish/grid.py", "count=7", "count=8"),
        ("dreampolish/kernel.py", "wp.float32", "wp.float16"),
        ("dreampolish/grid.py", "scale = 2", "scale = 3"),
        ("dreampolish/field.py", "Field(Base)", "Field"),
        ("dreampolish/field.py", "width: int = 3", "width: int = 4"),
        ("dreampolish/field.py", "torch.relu", "torch.sigmoid"),
        ("dreampolish/field.py", "import torch\n", "import numpy as torch\n"),
        ("stages/nerf.py", "STEPS = 5", "STEPS = 6"),
        ("stages/nerf.py", "nerfacc.render(field, steps)", "nerfacc.render(steps, field)"),
    ],
)
def test_what_a_stage_reads_changes_its_key(checkout: Path, name: str, old: str, new: str) -> None:
    before = digest(checkout)
    edit(checkout, name, old, new)
    assert digest(checkout) != before


def test_a_moved_definition_keeps_the_key(checkout: Path) -> None:
    before = digest(checkout)
    edit(checkout, "dreampolish/grid.py", "def cells(points, count=7):\n    return count\n", "")
    (checkout / "dreampolish/cells.py").write_text("def cells(points, count=7):\n    return count\n")
    edit(checkout, "dreampolish/field.py", "Base, cells", "Base\nfrom dreampolish.cells import cells")
    assert digest(checkout) == before


def test_a_definition_that_is_imported_inside_a_function_may_move_too(checkout: Path) -> None:
    within = "    from dreampolish.grid import cells\n    return torch.relu"
    edit(checkout, "dreampolish/field.py", "    return torch.relu", within)
    edit(checkout, "dreampolish/field.py", "Base, cells", "Base")
    before = digest(checkout)
    edit(checkout, "dreampolish/grid.py", "def cells(points, count=7):\n    return count\n", "")
    (checkout / "dreampolish/cells.py").write_text("def cells(points, count=7):\n    return count\n")
    edit(checkout, "dreampolish/field.py", "from dreampolish.grid import cells", "from dreampolish.cells import cells")
    assert digest(checkout) == before
    edit(checkout, "dreampolish/cells.py", "count=7", "count=8")
    assert digest(checkout) != before


def test_what_a_module_does_when_imported_counts_for_who_uses_it(checkout: Path) -> None:
    before = digest(checkout, "stages.export", "export")
    edit(checkout, "dreampolish/lookup.py", "= 1", "= 2")
    assert digest(checkout, "stages.export", "export") != before


def test_libraries_and_names_are_those_that_the_code_reaches(checkout: Path) -> None:
    found = code_of("stages.nerf", "fit_nerf", checkout)
    assert found.libraries == {"torch", "nerfacc", "warp", "typing"}
    assert found.names >= {"stages.nerf.fit_nerf", "stages.nerf.helper", "dreampolish.field.Field", "dreampolish.grid.Base"}
    assert not any(name.startswith(("stages.runtime", "stages.export")) or "unused" in name for name in found.names)


def test_a_moved_checkout_has_the_same_digests(checkout: Path, tmp_path: Path) -> None:
    before = digest(checkout)
    moved = tmp_path / "elsewhere"
    checkout.rename(moved)
    assert digest(moved) == before


def test_absent_code_is_refused(checkout: Path) -> None:
    with pytest.raises(KeyError, match=r"stages\.absent"):
        code_of("stages.absent", "f", checkout)
    with pytest.raises(KeyError):
        code_of("stages.nerf", "absent", checkout)
    assert code_of_module("stages.export", checkout).digest != code_of_module("stages.nerf", checkout).digest


def test_equal_over_processes_and_hash_seeds() -> None:
    script = (
        "from stages.runtime.keys.code import code_of; from stages.runtime.files import PROJECT;"
        "print(code_of('stages.polish', 'polish_mesh', PROJECT).digest)"
    )
    found = set()
    for seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(PROJECT)}
        ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        found.add(ended.stdout)
    assert len(found) == 1


OPENERS = {
    "text": "stages.guidance.priors.open_text_prior",
    "view": "stages.guidance.priors.open_view_prior",
    "views": "stages.guidance.priors.open_set_prior",
    "normals": "stages.guidance.priors.open_normal_prior",
    "depth": "stages.guidance.priors.open_depth_prior",
    "judge": "stages.guidance.priors.alignment",
    "matting": "dreampolish.scene.cutting.matting.Matting",
}


@pytest.mark.parametrize("name", list(CHAIN))
def test_a_stage_declares_the_priors_that_it_opens(name: str) -> None:
    stage = CHAIN[name]  # type: ignore[index]
    reached = code_of(f"stages.{name}", stage.__name__, PROJECT).names
    opened = {prior for prior, opener in OPENERS.items() if any(each.startswith(opener) for each in reached)}
    assert set(stage.priors) - {"clip"} == opened  # CLIP is opened by the scores, where the walk over the code ends


def test_real_stages_reach_no_runtime_no_results_and_their_libraries() -> None:
    reached = {name: code_of(f"stages.{name}", stage.__name__, PROJECT) for name, stage in CHAIN.items()}
    assert not any(each.startswith(("stages.runtime.", "stages.results.")) for code in reached.values() for each in code.names)
    assert "dreampolish.priors.distillation.weights.dsd_weights" in reached["texture"].names
    assert "nerfacc" in reached["nerf"].libraries and "nerfacc" not in reached["export"].libraries
    assert {"xatlas", "fast_simplification"} <= reached["export"].libraries
    assert all("torch" in code.libraries for code in reached.values())


def test_attributes_looked_up_at_run_time_are_few_and_known() -> None:
    """`getattr` with a computed name hides what it reaches from the key."""
    found = []
    for folder in ("dreampolish", "stages"):
        for path in sorted((PROJECT / folder).rglob("*.py")):
            if path.is_relative_to(PROJECT / "stages" / "runtime") or path.is_relative_to(PROJECT / "stages" / "results"):
                continue
            if path.is_relative_to(PROJECT / "dreampolish" / "training"):
                continue
            found += [str(path.relative_to(PROJECT))] * path.read_text().count("getattr(")
    assert sorted(found) == KNOWN_GETATTR


# Fields of weights, settings, trimesh's objects and libraries' configs by name; libraries' classes, whose versions count.
KNOWN_GETATTR = [
    "dreampolish/assets/reading/plain.py",
    "dreampolish/assets/validate.py",
    "dreampolish/assets/validate.py",
    "dreampolish/assets/validate.py",
    "dreampolish/priors/distillation/weights.py",
    "dreampolish/priors/distillation/weights.py",
    "dreampolish/priors/distillation/weights.py",
    "dreampolish/priors/distillation/weights.py",
    "dreampolish/priors/estimators/depth.py",
    "dreampolish/priors/estimators/depth.py",
    "dreampolish/priors/estimators/depth.py",
    "dreampolish/priors/folders/architectures.py",
    "dreampolish/priors/folders/architectures.py",
    "dreampolish/priors/folders/architectures.py",
    "dreampolish/priors/folders/architectures.py",
    "dreampolish/priors/folders/architectures.py",
    "dreampolish/priors/latents.py",
    "dreampolish/priors/rehearsal/clock.py",
    "dreampolish/priors/rehearsal/estimators.py",
    "dreampolish/priors/rehearsal/estimators.py",
    "dreampolish/priors/rehearsal/on_meta.py",
    "dreampolish/renderers/mesh.py",
    "stages/guidance/priors.py",
]


def code(**changes: object) -> Code:
    return Code(**{"digest": "c", "names": frozenset(), "libraries": frozenset({"torch"}), **changes})  # type: ignore[arg-type]


ASKING = NerfConfig(text={"weight": 0.1}, view={"weight": 0.1})  # type: ignore[arg-type]
"""Settings with which a stage opens both priors."""


@pytest.fixture
def base(run_context: RunContext, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(keys, "source_digest", lambda run, setting: f"digest of {setting.source}")

    def key(run: RunContext = run_context, **changes: object) -> str:
        arguments: dict = {
            "name": "nerf",
            "settings": ASKING,
            "inputs": {"prompt": "a chair"},
            "reads": {"reference": {"image": "a"}},
            "priors": ("text", "view"),
            "code": code(),
        }
        return stage_key(run=run, **{**arguments, **changes})

    return key


def test_every_ingredient_counts(base, run_context: RunContext, monkeypatch: pytest.MonkeyPatch) -> None:
    other_text = run_context.priors.model_copy(update={"text": run_context.priors.text.model_copy(update={"source": "x"})})
    found = [
        base(),
        base(name="neus"),
        base(settings=ASKING.model_copy(update={"steps": 5})),
        base(inputs={"prompt": "a couch"}),
        base(reads={"reference": {"image": "b"}}),
        base(reads={"nerf": {"image": "a"}}),
        base(priors=("text",)),
        base(run_context.model_copy(update={"seed": 1})),
        base(run_context.model_copy(update={"priors": other_text})),
        base(code=code(digest="d")),
    ]
    monkeypatch.setattr(keys, "_version", lambda name: "another")
    found.append(base())
    assert len(set(found)) == len(found)


def test_a_named_number_format_counts_apart_from_one_that_was_found(
    base, run_context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 by name holds for the autoencoders too; float32 is float32."""

    def key(named: str, found: str) -> str:
        monkeypatch.setattr(RunContext, "precision", property(lambda run: found))
        return base(run_context.model_copy(update={"priors": run_context.priors.model_copy(update={"precision": named})}))

    assert key("auto", "float32") == key("float32", "float32")
    assert len({key("auto", "float32"), key("auto", "bfloat16"), key("bfloat16", "bfloat16")}) == 3


def test_what_a_stage_does_not_open_or_use_does_not_count(
    base, run_context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = run_context.priors.model_copy(update={"clip": run_context.priors.text})
    normals = run_context.priors.model_copy(update={"normals": run_context.priors.text})
    closer = ASKING.model_copy(update={"preview": Config().export.preview})
    assert base() == base(run_context.model_copy(update={"priors": clip}))
    assert base() == base(run_context.model_copy(update={"priors": normals}))
    assert base() == base(run_context.model_copy(update={"run_id": "another0", "threads": 2, "log_steps": False}))
    assert base() == base(settings=closer)
    before = base()
    monkeypatch.setattr(keys, "_version", lambda name: "another" if name == "xatlas" else keys.version(name))
    assert base() == before


def test_parents_count_by_the_content_that_is_read() -> None:
    reference = FileRef(path="field.safetensors", sha256="a" * 64, bytes=3)
    one = NerfArtifact(
        fingerprint="1" * 64, parents={"reference": "2" * 64}, metrics={"psnr": 1.0}, seconds=1, peak_memory=1,
        field=reference, field_config={"width": 3}, occupancy=reference, steps=5, switch_reason="cap",
    )  # fmt: skip
    other = one.model_copy(update={"fingerprint": "3" * 64, "parents": {}, "seconds": 9.0, "steps": 7})
    names = ("field", "field_config")
    assert read_fields(one, names) == read_fields(other, names) == {"field": "a" * 64, "field_config": {"width": 3}}
    changed = one.model_copy(update={"field": reference.model_copy(update={"sha256": "b" * 64})})
    assert read_fields(changed, names) != read_fields(one, names)


def test_a_prior_that_paints_sets_takes_the_view_priors_place() -> None:
    alone = Config()
    sets = alone.model_copy(update={"priors": alone.priors.model_copy(update={"views": alone.priors.view})})
    text = {"weight": 0.1}
    painting = NerfConfig(text=text, targets={"rgb_weight": 1.0}, view={"weight": 0.0})  # type: ignore[arg-type]
    both = NerfConfig(text=text, targets={"rgb_weight": 1.0}, view={"weight": 0.5})  # type: ignore[arg-type]
    named = ("text", "view", "views")
    without_text = NerfConfig(text={"weight": 0.0}, view={"weight": 0.5})  # type: ignore[arg-type]
    assert opened_priors(alone.priors, painting, named) == ["text", "view", "views"]
    assert opened_priors(sets.priors, painting, named) == ["text", "views"]
    assert opened_priors(sets.priors, both, named) == ["text", "view", "views"]
    assert opened_priors(alone.priors, without_text, named) == ["view", "views"]
