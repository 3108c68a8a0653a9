"""One tiny run with four pictures of a coloured solid, through all stages: each of them holds to each picture."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from torch import Tensor

from dreampolish.optim.fit import Term
from dreampolish.renderers.mesh import mesh_from_parts
from dreampolish.scene.cameras import orbit_cameras
from dreampolish.scene.pictures import write_picture
from flows.report.facts import open_facts
from flows.report.output import contact_sheet
from flows.report.page import run_page
from flows.runs.chain import CHAIN
from flows.runs.create import new_run
from flows.runs.inputs import pictures_of
from schemas.artifacts import Artifact, ReferenceArtifact, StageName
from schemas.runs import STAGES, RunRecord, StageRecord
from stages.guidance.reference_view import REFERENCE_FOV_DEG, load_reference
from stages.results.files import StoredFiles
from stages.runtime.command import arguments_from_record
from stages.runtime.context import context_of
from stages.runtime.shared.stores import store_at
from tests.support.tiny_priors import PROMPT, SETTINGS, write_priors

SIZE = 32
POSES = {"front": (0.0, 10.0), "left": (90.0, 10.0), "back": (180.0, 10.0), "right": (-90.0, 20.0)}
FITTED = STAGES[1:-1]

Losses = Callable[[int], Mapping[str, Term]]


def seen_from(azimuth_deg: float, elevation_deg: float) -> Tensor:
    """The solid, RGBA: a box, red on the side at +y, green at -y, dark at the back, else blue."""
    box = trimesh.creation.box((0.4, 0.6, 0.5))
    mesh = mesh_from_parts(torch.tensor(box.vertices).float(), torch.tensor(box.faces))
    camera = orbit_cameras(torch.tensor([azimuth_deg]), torch.tensor([elevation_deg]), torch.tensor([REFERENCE_FOV_DEG]), SIZE)

    def color_of(points: Tensor, normals: Tensor) -> Tensor:
        red, green = normals[:, 1] > 0.5, normals[:, 1] < -0.5
        return torch.stack([red, green, ~(red | green)], dim=1).float() * torch.where(normals[:, :1] < -0.5, 0.3, 1.0)

    seen = mesh.render(camera, color_of, 4, smooth=False)
    alpha = seen.alpha[0, ..., None]
    return torch.cat([((seen.rgb[0] - (1 - alpha)) / alpha.clamp_min(1e-3)).clamp(0, 1), alpha], dim=-1)


@pytest.fixture(scope="module")
def heard() -> dict[str, list[Mapping[str, Term]]]:
    """By stage, the terms of each of its steps."""
    return {}


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, heard: dict[str, list[Mapping[str, Term]]]
) -> Iterator[tuple[RunRecord, dict[StageName, Artifact], Path]]:
    """A run through all stages that look at pictures, its artifacts and its store."""
    folder = tmp_path_factory.mktemp("several")
    for name, pose in POSES.items():
        write_picture(folder / f"{name}.png", seen_from(*pose))
    lines = [f"{folder / name}.png@{azimuth},{elevation}" for name, (azimuth, elevation) in POSES.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DREAMPOLISH_STORE", str(folder / "store"))
        for name in FITTED:
            patch.setattr(f"stages.{name}.fit", _listening(heard.setdefault(name, []), name))
        given = pictures_of(lines, Path)
        settings = [*given.settings, *SETTINGS, *write_priors(folder / "priors"), "reference.framing=as_is"]
        record = new_run(folder / "store", PROMPT, "smoke", settings, given.front, others=given.others)
        run, done = context_of(record, folder / "store", None, show_progress=False), dict[StageName, Artifact]()
        for name in STAGES[:-1]:
            stage = CHAIN[name]
            done[name] = stage.compute(run, **arguments_from_record(stage, record, run.store, done))
        yield record, done, folder / "store"


def _listening(steps: list[Mapping[str, Term]], name: str) -> Callable[..., Any]:
    """A stage's `fit` whose steps are heard."""
    fit = __import__(f"stages.{name}", fromlist=["fit"]).fit

    def heard(losses: Losses, **given: Any) -> Any:
        def told(step: int) -> Mapping[str, Term]:
            terms = losses(step)
            steps.append(dict(terms))
            return terms

        return fit(losses=told, **given)

    return heard


def test_a_picture_at_90_shows_what_the_renderer_sees_from_there(whole: tuple[RunRecord, dict, Path]) -> None:
    _, done, store = whole
    reference = done["reference"]
    assert isinstance(reference, ReferenceArtifact)
    view = load_reference(StoredFiles(store_at(store), torch.device("cpu")), reference, SIZE)
    assert [(each.azimuth_deg, each.elevation_deg) for each in view.all] == [(0, 10), (90, 10), (-180, 10), (-90, 20)]
    for each in view.all:
        shown = seen_from(each.azimuth_deg, each.elevation_deg)
        torch.testing.assert_close(each.mask[0], shown[..., 3], atol=1 / 255, rtol=0)
        torch.testing.assert_close(each.rgb[0], shown[..., :3] * shown[..., 3:] + 1 - shown[..., 3:], atol=0.01, rtol=0)
    # The side at +y, red, is on the right in the front's picture, and alone in that from 90 degrees.
    assert view.others[0].rgb[0, SIZE // 2, SIZE // 2].tolist() == pytest.approx([1, 0, 0], abs=0.01)
    assert view.others[2].rgb[0, SIZE // 2, SIZE // 2].tolist() == pytest.approx([0, 1, 0], abs=0.01)
    assert reference.metrics["contradiction"] == 0
    assert not any("contradict" in note for note in reference.notes)


@pytest.mark.parametrize(
    ("stage", "terms"),
    [
        ("nerf", {"picture_rgb", "picture_mask"}),
        ("neus", {"picture_rgb", "picture_mask"}),
        ("dmtet", {"picture_mask", "picture_color"}),
        ("polish", {"picture_rgb", "picture_mask", "picture_normal"}),
        ("texture", {"picture_rgb"}),
    ],
)
def test_each_stage_holds_to_the_other_pictures_in_turn(
    whole: tuple[RunRecord, dict, Path], heard: dict[str, list[Mapping[str, Term]]], stage: str, terms: set[str]
) -> None:
    steps = heard[stage]
    assert len(steps) == 4
    for step in steps:
        assert {name for name in step if name.startswith("picture_")} == terms
        for name in terms:
            front = step[name.replace("picture_", "reference_")]
            assert step[name].weight == front.weight > 0
            assert step[name].loss.requires_grad
    # Pictures differ, and so does what they cost; the fourth step has the first one's turn.
    costs = [float(step[sorted(terms)[0]].loss) for step in steps]
    assert len({round(cost, 6) for cost in costs[:3]}) == 3


def test_the_report_shows_all_pictures_with_what_was_cut_out(whole: tuple[RunRecord, dict, Path]) -> None:
    record, done, store = whole
    entries = {
        name: StageRecord(name=name, state="computed", seconds=1, fingerprint=each.fingerprint, metrics={})
        for name, each in done.items()
    }
    of_reference = record.model_copy(update={"stages": {"reference": entries["reference"]}})
    page = run_page(open_facts(of_reference, store, 64))
    assert page.count('alt="The picture as it came"') == page.count('alt="The object cut out"') == len(POSES)
    assert "from 4 pictures" in page
    for pose in ("0°, 10°", "90°, 10°", "-180°, 10°", "-90°, 20°"):
        assert f'<th scope="row">{pose}</th>' in page
    assert contact_sheet(of_reference, store_at(store)).width > 4 * 128


def test_a_run_without_others_has_no_such_terms_and_another_key(whole: tuple[RunRecord, dict, Path]) -> None:
    record, done, store = whole
    run = context_of(record, store, None, show_progress=False)
    stage = CHAIN["reference"]
    alone = record.model_copy(update={"others": ()})
    turned = record.model_copy(
        update={"others": (record.others[0].model_copy(update={"azimuth_deg": 91.0}), *record.others[1:])}
    )
    keys = {stage.key(run, **arguments_from_record(stage, each, store, {})) for each in (record, alone, turned)}
    assert len(keys) == 3
    assert done["reference"].fingerprint in keys
