"""A few training steps on two boxes: the loss falls, a resumed run is the run itself, parts fit together."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dreampolish.priors.multiview.network import MultiviewShape, build_network
from dreampolish.training.multiview.codec import load_codec
from dreampolish.training.multiview.objects import dense_meshes, drawing_weights, tables
from dreampolish.training.multiview.pack import (
    CondensedMesh,
    ObjectInfo,
    PackInfo,
    TrainingPack,
    joined_parts,
    packed_mesh,
    write_parts,
)
from dreampolish.training.multiview.raster import rendered
from dreampolish.training.multiview.sets import SetPool
from dreampolish.training.multiview.train import MultiviewTraining, Pace, Trainer, learning_rate_factor, train


def small_pack() -> TrainingPack:
    """Two cubes, one noun, two colours."""
    box = trimesh.creation.box((0.5, 0.7, 0.4))
    faces = np.asarray(box.faces)
    mesh = packed_mesh(
        CondensedMesh(np.asarray(box.vertices), faces, np.full((len(faces), 3, 3), 0.5), np.ones((len(faces), 3), bool))
    )
    one = ObjectInfo("box", "library", "train", "box", 2, (0.5, 0.5, 0.5), 1.0, 0.01, ((0, 1), (1,), ()))
    info = PackInfo((one, one), ("red", "wooden"), (((0.8, 0.1, 0.1),), ((0.6, 0.4, 0.2),)), ("", "a box"))
    states = np.arange(5 * 4, dtype=np.int8).reshape(5, 4)
    return TrainingPack(info, (mesh, mesh), states, np.array([2, 3]), np.ones(4, np.float32))


SHAPE = MultiviewShape(latent_size=4, widths=(16, 32, 32), embedding=32, head=16, text_width=4)


def trainer() -> Trainer:
    pack, device = small_pack(), torch.device("cpu")
    known = tables(pack, [0, 1], device)
    generator = torch.Generator().manual_seed(1)
    weights = drawing_weights(pack.info, [0, 1], frozenset(), 0.5)
    pool = SetPool(dense_meshes(pack, [0, 1], device), known, weights, rendered, 4, 32, generator)
    pool.renew(4)
    codec = load_codec(Path("priors/home/autoencoder/diffusion_pytorch_model.safetensors"))
    settings = MultiviewTraining(batch=4, learning_rate=3e-3, warmup=2)
    return Trainer(build_network(SHAPE, 0), codec, known, pool, settings, generator)


def test_the_loss_falls() -> None:
    found = trainer()
    losses = [float(found.train_step(4, 0.0)) for _ in range(40)]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


def test_a_resumed_run_is_the_run_itself(tmp_path: Path) -> None:
    one, other = trainer(), trainer()
    for _ in range(3):
        one.train_step(4, 0.1)
    one.save(tmp_path / "state.safetensors")
    other.load(tmp_path / "state.safetensors")
    for _ in range(2):
        torch.testing.assert_close(one.train_step(4, 0.2), other.train_step(4, 0.2), atol=0, rtol=0)
    for name, value in one.averaged_state().items():
        torch.testing.assert_close(value, other.averaged_state()[name], atol=0, rtol=0)


def test_a_paced_run_ends_and_keeps_a_journal() -> None:
    found, halves = trainer(), []
    pace = Pace(4, 4, 2, lambda step: step / 22, 1e9, lambda: halves.append(found.step))
    journal = train(found, pace, 1e6)
    assert found.step == 22
    assert journal[0]["step"] == 20
    assert len(halves) == 1


def test_parts_fit_together_or_are_refused(tmp_path: Path) -> None:
    write_parts({"a": torch.randn(1000)}, {"config": {}}, tmp_path)
    content, facts = joined_parts(tmp_path)
    assert len(content) > 2000
    assert facts["parts"] == 1
    (tmp_path / "weights.part0").write_bytes(content[:-1])
    with pytest.raises(ValueError, match="do not belong|older"):
        joined_parts(tmp_path)


def test_the_learning_rate_rises_holds_and_falls_to_nothing() -> None:
    assert learning_rate_factor(0, 0.0, 10, 0.5) == pytest.approx(0.1)
    assert learning_rate_factor(100, 0.4, 10, 0.5) == 1
    assert learning_rate_factor(100, 1.0, 10, 0.5) == 0
