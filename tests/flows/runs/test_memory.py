"""The plan of a GPU's memory: what is counted, what is chosen, what is refused; full-size architectures without their weights."""

from pathlib import Path

import pytest
import torch

from dreampolish.fields.color import ColorField
from dreampolish.fields.density import DensityField
from dreampolish.fields.hash_grid import GridSizes
from dreampolish.fields.occupancy import OccupancyGrid
from dreampolish.fields.sdf import SdfField
from dreampolish.mesh.topology import face_adjacency
from dreampolish.optim.live_bytes import LiveBytes
from dreampolish.priors.folders.source import PriorSource
from dreampolish.priors.rehearsal.architectures import FULL
from dreampolish.priors.rehearsal.counting import adapter_bytes, network_bytes
from dreampolish.priors.rehearsal.folders import write_normals, write_text, write_view
from dreampolish.priors.text.loading import load_text_prior
from dreampolish.renderers.mesh import Mesh, color_of_field
from dreampolish.renderers.scenes import DensityScene, SdfScene, step_size_for
from dreampolish.scene.cameras import SCENE_HALF_SIZE, turntable_cameras
from flows.runs.create import CONFIGS, with_plan
from flows.runs.memory.plan import plan_of, planned
from flows.runs.memory.renders import Pictures, mesh_bytes, volume_bytes
from flows.runs.memory.told import told
from schemas.config.presets import ConfigError, load_config
from schemas.config.run import Config
from schemas.config.shared.geometry import GridConfig
from schemas.plans import CARDS_GIB, MemoryPlan
from schemas.runs import STAGES, RunRecord
from stages.runtime.context import context_of, memory_figures, out_of_memory
from tests.support.hub_folders import write_stable_diffusion

GRID = GridConfig(n_levels=16, base_resolution=16, log2_table_size=12)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """`sd` on full-size folders, holes for weights."""
    hub = tmp_path_factory.mktemp("hub")
    write_text(hub / "text", FULL, "sd", "holes")
    write_view(hub / "view", FULL, "holes")
    write_normals(hub / "normals", FULL, "holes")
    return load_config(
        "sd", CONFIGS, ["device=cpu", *(f"priors.{each}.source={hub / each}" for each in ("text", "view", "normals"))]
    )


@pytest.fixture(scope="module")
def plans(full: Config) -> dict[int, MemoryPlan]:
    return {size: plan_of(full, float(size), STAGES) for size in CARDS_GIB}


def test_every_stage_of_sd_fits_every_card(plans: dict[int, MemoryPlan]) -> None:
    for size, plan in plans.items():
        assert list(plan.stages) == ["reference", "nerf", "neus", "dmtet", "polish", "texture"]
        for stage in plan.stages.values():
            assert stage.total_gib <= size
            assert stage.total_gib >= sum(stage.kept.values()) + max(stage.moments.values())


def test_what_is_known_of_stable_diffusion_is_counted(plans: dict[int, MemoryPlan]) -> None:
    """An audit counted: four views of 512 pixels through the encoder keep about 6 GiB in halves, a LoRA on the U-Net about 4.2."""
    texture = plans[80].stages["texture"]
    assert texture.execution.views_at_once == 4
    assert texture.kept["text prior's weights"] == pytest.approx((865.9 + 83.7) * 1e6 * 2 / 2**30, rel=0.01)
    assert 5.5 < texture.moments["text prior"] < 8.0
    assert 3.5 < texture.moments["LoRA's update"] < 5.5


def test_a_smaller_card_computes_in_smaller_parts(plans: dict[int, MemoryPlan]) -> None:
    large, small = plans[80], plans[8]
    assert all(not each.execution.checkpoint_encoder for each in large.stages.values())
    assert small.stages["neus"].execution.views_at_once == 1
    assert small.stages["neus"].execution.checkpoint_encoder
    assert small.stages["neus"].execution.points_at_once is not None
    assert small.stages["dmtet"].execution.checkpoint_renders
    totals = [plans[size].stages["neus"].total_gib for size in CARDS_GIB]
    assert totals == sorted(totals)


def test_a_plan_is_told_with_what_each_part_takes(plans: dict[int, MemoryPlan]) -> None:
    lines = told(plans[8])
    assert "8.0 GiB as asked" in lines[0] and "not measured" in lines[0]
    assert len(lines) == 7
    assert any("neus" in line and "text prior's weights 1.8" in line and "1 view at once" in line for line in lines)


def test_what_cannot_fit_is_refused_with_what_would(full: Config) -> None:
    with pytest.raises(
        ConfigError, match=r"needs \d\.\d GiB of CUDA memory at the least, and 4.0 are allowed; .*--vram 8"
    ) as caught:
        plan_of(full, 4.0, STAGES)
    assert "\n" not in str(caught.value)


def test_only_a_new_run_may_be_put_into_halves(full: Config) -> None:
    whole = full.model_copy(update={"priors": full.priors.model_copy(update={"precision": "float32"})})
    config, plan = planned(whole, 8.0, STAGES)
    assert config.priors.precision == "float16" and plan.limit_gib == 8.0
    kept, _ = planned(whole, 80.0, STAGES)
    assert kept.priors.precision == "float32"
    with pytest.raises(ConfigError, match="float16"):
        plan_of(whole, 8.0, STAGES)


def record_of(config: Config, plan: MemoryPlan | None = None) -> RunRecord:
    return RunRecord(run="a" * 8, prompt="a chair", config=config, created="now", plan=plan)


def test_on_a_cpu_nothing_is_planned_unless_asked(full: Config, plans: dict[int, MemoryPlan]) -> None:
    assert with_plan(record_of(full), None, is_new=True).plan is None
    asked = with_plan(record_of(full), 12.0, is_new=True)
    assert asked.plan == plans[12]
    assert with_plan(asked, None, is_new=False).plan == plans[12]  # a limit that was named holds
    assert with_plan(asked, 8.0, is_new=False).plan == plans[8]


def test_a_card_is_planned_for_by_what_it_has_free(full: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (12 * 2**30, 24 * 2**30))
    monkeypatch.setattr("flows.runs.create.device_from_name", lambda name: torch.device("cuda"))
    plan = with_plan(record_of(full), None, is_new=True).plan
    assert plan is not None and plan.limit_gib == 12 and not plan.asked


def test_running_out_of_memory_is_told_with_what_goes_on(full: Config, plans: dict[int, MemoryPlan], tmp_path: Path) -> None:
    def line(plan: MemoryPlan | None) -> str:
        run = context_of(record_of(full, plan), tmp_path, None, show_progress=False)
        return str(out_of_memory("neus", run))

    assert line(plans[24]) == (
        "neus ran out of CUDA memory, planned for 24.0 GiB; "
        "dreampolish resume aaaaaaaa --vram 16 goes on in smaller parts, with what is finished"
    )
    assert "--vram 8" in line(None)
    assert "image_size=256" in line(plans[8])


def test_a_peak_stands_beside_its_plan(full: Config, plans: dict[int, MemoryPlan], tmp_path: Path) -> None:
    class Done:
        cuda_peak_memory = 3 * 2**30

    run = context_of(record_of(full, plans[8]), tmp_path, None, show_progress=False)
    figures = memory_figures("neus", run, Done(), is_new=True)  # type: ignore[arg-type]
    assert figures == {"cuda_peak_gib": 3.0, "cuda_planned_gib": plans[8].stages["neus"].total_gib}
    assert memory_figures("neus", run, Done(), is_new=False) == {"cuda_peak_gib": 3.0}  # type: ignore[arg-type]
    Done.cuda_peak_memory = 0
    assert memory_figures("neus", run, Done(), is_new=True) == {}  # type: ignore[arg-type]


def test_networks_count_on_meta_what_they_take_on_a_cpu(tmp_path: Path) -> None:
    source = PriorSource(str(write_stable_diffusion(tmp_path / "text")), None)
    counted = network_bytes(source, 64, torch.float32, torch.float32)
    prior = load_text_prior(source)
    for n in (1, 3):
        images = torch.rand(n, 3, 64, 64, requires_grad=True)
        with LiveBytes([*prior.autoencoder.parameters(), images]) as live:
            prior.autoencoder.encode(images).latent_dist.mode().sum().backward()
        assert live.peak == pytest.approx(n * counted.encode, rel=0.15)
        noisy, t, text = torch.rand(n, 4, 8, 8), torch.zeros(n, dtype=torch.long), prior.embed(["a chair"]).expand(n)
        with LiveBytes([*prior.network.module.parameters(), noisy, text.states]) as live:
            prior.predict_epsilon(noisy, t, text)
        assert live.peak == pytest.approx(n * counted.row, rel=0.25)
    assert counted.encode_again <= counted.encode
    adapter = adapter_bytes(source, 64, torch.float32, 2)
    assert 0 < adapter.picture_again < adapter.picture
    domain = prior.add_lora(2, torch.Generator().manual_seed(0))
    n_camera = sum(each.numel() for each in domain._camera_embedding.parameters())
    assert adapter.once == 16 * (sum(each.numel() for each in domain.parameters()) - n_camera)


def grid_sizes() -> GridSizes:
    return GridSizes(GRID.n_levels, GRID.n_features, GRID.base_resolution, GRID.growth, 2**GRID.log2_table_size, 1.0)


@pytest.mark.parametrize("at_once", [None, 4096])
def test_volumes_take_what_the_formula_says(at_once: int | None) -> None:
    generator, steps = torch.Generator().manual_seed(0), 128
    density = DensityField(
        grid_sizes=grid_sizes(),
        hidden_width=64,
        density_scale=15.0,
        blob_scale=8.0,
        blob_std=0.3,
        blob_offset=5.0,
        generator=generator,
    )
    sdf = SdfField(grid_sizes(), 64, sphere_radius=0.5, initial_inverse_std=60.0, generator=generator)
    rough = DensityScene(density, OccupancyGrid(32, SCENE_HALF_SIZE, "cpu"), step_size_for(steps), generator)
    rough.update_occupancy(0, early_steps=4)
    sharp = SdfScene(sdf, OccupancyGrid(64, SCENE_HALF_SIZE, "cpu"), step_size_for(steps), 1, generator)
    sharp.update_occupancy()
    cameras = turntable_cameras(2, 10.0, 20.0, 64)
    for field in (density, sdf):
        field.network.points_at_once = at_once
    with LiveBytes(density.parameters()) as of_density:
        picture = rough.render(cameras, with_normals=True, stratified=True)
        assert picture.normals_camera is not None
        (picture.rgb.sum() + picture.normals_camera.sum()).backward()
    with LiveBytes(sdf.parameters()) as of_sdf:
        shown = sharp.render(cameras, stratified=True)
        (shown.picture.rgb.sum() + shown.gradients.square().sum()).backward()
    for measured, samples in ((of_density.peak, len(picture.samples.weights)), (of_sdf.peak, len(shown.sdf))):
        pictures = [Pictures(1, 1)] * 1
        scale = samples / (steps * 0.08)
        counted = volume_bytes(pictures, GRID, round(steps * scale), at_once).peak
        assert 0.85 * measured < counted < 1.8 * measured  # on the safe side: normals and slopes are not always wanted


@pytest.mark.parametrize("at_once", [None, 1, 2])
def test_meshes_take_what_the_formula_says(at_once: int | None) -> None:
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.6)
    vertices, faces = torch.tensor(ball.vertices, dtype=torch.float32, requires_grad=True), torch.tensor(ball.faces)
    mesh = Mesh(vertices, faces, face_adjacency(faces), views_at_once=at_once)
    colors = ColorField(grid_sizes(), 64, torch.Generator().manual_seed(0))
    with LiveBytes([*colors.parameters(), vertices, faces]) as live:
        shown = mesh.render(turntable_cameras(4, 10.0, 20.0, 128), color_of_field(colors), 1, smooth=True)
        (shown.rgb.square().sum() + shown.alpha.square().sum() + shown.normals_camera.square().sum()).backward()
    assert 0.85 * live.peak < mesh_bytes([Pictures(4, 128)], at_once).peak < 1.6 * live.peak


def test_parts_of_a_mesh_have_the_same_pictures_and_gradients() -> None:
    trimesh = pytest.importorskip("trimesh")
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.6)
    faces, found = torch.tensor(ball.faces), []
    for at_once in (None, 2):
        vertices = torch.tensor(ball.vertices, dtype=torch.float32, requires_grad=True)
        mesh = Mesh(vertices, faces, face_adjacency(faces), views_at_once=at_once)
        shown = mesh.render(turntable_cameras(3, 10.0, 20.0, 64), lambda points, normals: points.sigmoid(), 1, smooth=True)
        (shown.rgb.square().sum() + shown.alpha.square().sum()).backward()
        found.append((shown.rgb.detach(), shown.fragments.face_index, vertices.grad))
    torch.testing.assert_close(found[0][0], found[1][0])
    assert bool((found[0][1] == found[1][1]).all())
    torch.testing.assert_close(found[0][2], found[1][2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("with_normals", [False, True])
def test_parts_of_a_volume_have_the_same_gradients(with_normals: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    field = SdfField(grid_sizes(), 16, sphere_radius=0.5, initial_inverse_std=60.0, generator=generator)
    points, found = torch.rand(1000, 3, generator=generator) * 2 - 1, []
    for at_once in (None, 300):
        field.network.points_at_once = at_once
        field.zero_grad()
        sdf, *more = field.with_gradient(points) if with_normals else field(points)
        (sdf.square().sum() + sum(each.square().sum() for each in more)).backward()
        found.append((sdf.detach(), *(each.grad.clone() for each in field.network.parameters() if each.grad is not None)))
    assert len(found[0]) == 6
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
