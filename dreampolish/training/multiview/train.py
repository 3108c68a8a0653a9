"""Training of the joint view prior: sets with a clean reference, sets under words, sets under nothing; by steps or by the clock.

The loss is that of the other denoisers (priors.training_diffusion), averaged over the noisy views. Nothing in a step waits for the
device; a run may be cut off at any time after its first checkpoint.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from dreampolish.priors.multiview.network import MultiviewNetwork, SetCondition
from dreampolish.priors.sampling import bounded_snr_weight
from dreampolish.training.multiview.codec import PatchCodec
from dreampolish.training.multiview.objects import Tables
from dreampolish.training.multiview.sets import PaintedSets, SetPool

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MultiviewTraining:
    """Settings. reference_share, absent_share: sets with a clean reference, and with neither reference nor words; the others have
    words alone. reference_text: references that come with words too. renew_share: part of the time that rendering may take."""

    batch: int = 512
    learning_rate: float = 6e-4
    warmup: int = 300
    decay_from: float = 0.45
    weight_decay: float = 0.01
    average_decay: float = 0.999
    gamma: float = 5.0
    timestep_exponent: float = 0.7
    pixel_emphasis: float = 0.75
    reference_share: float = 0.45
    absent_share: float = 0.08
    reference_text: float = 0.35
    unconditional: float = 0.1
    reference_noise: float = 0.25
    elevation_error_deg: float = 3.0
    renew_share: float = 0.1
    seed: int = 31


@dataclass(frozen=True)
class NoisySets:
    """One batch: what the network sees, what it should answer, and the weight of each view's error (B, V)."""

    noisy: Float[Tensor, "b v c m n"]
    timesteps: Tensor
    told: SetCondition
    target: Float[Tensor, "b v c m n"]
    weights: Float[Tensor, "b v"]


@torch.no_grad()
def noisy_sets(
    sets: PaintedSets, codec: PatchCodec, tables: Tables, settings: MultiviewTraining, generator: torch.Generator
) -> NoisySets:
    """Latents of a batch, noised, with the conditions drawn. All views of a set share their timestep."""
    device = generator.device
    latents = codec.encode(sets.pictures.flatten(0, 1)).unflatten(0, sets.pictures.shape[:2]).float()
    b, v = latents.shape[:2]

    def uniform(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    kind = uniform((b, 1))
    referred = kind < settings.reference_share
    nothing = (kind >= settings.reference_share) & (kind < settings.reference_share + settings.absent_share)
    first = torch.zeros(b, v, dtype=torch.bool, device=device)
    first[:, 0] = True
    clean, absent = (first & referred).float(), (first & nothing).float()
    parts = (torch.randperm(b, generator=generator, device=device) + uniform((b,))) / b
    n_train = len(codec.alphas_cumprod)
    times = (parts**settings.timestep_exponent * n_train).long().clamp_max(n_train - 1)
    level = codec.alphas_cumprod[times].view(b, 1, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=generator, device=device)
    noisy = level.sqrt() * latents + (1 - level).sqrt() * noise
    spread = settings.reference_noise * uniform((b, 1, 1, 1, 1)) * (uniform((b, 1, 1, 1, 1)) < 0.5)
    shape = (b, v, 1, 1, 1)
    noisy = torch.where(clean.view(shape) > 0, latents + spread * noise, noisy) * (1 - absent.view(shape))
    told = _told(
        sets,
        clean=clean,
        absent=absent,
        tables=tables,
        settings=settings,
        slots=(referred | nothing, nothing),
        generator=generator,
    )
    weights = bounded_snr_weight(codec.alphas_cumprod, times, settings.gamma)[:, None] * (1 - clean) * (1 - absent)
    target = level.sqrt() * noise - (1 - level).sqrt() * latents
    timesteps = times[:, None].expand(b, v) * (1 - clean - absent).long()
    return NoisySets(noisy=noisy, timesteps=timesteps, told=told, target=target, weights=weights)


def _told(
    sets: PaintedSets,
    clean: Tensor,
    absent: Tensor,
    tables: Tables,
    settings: MultiviewTraining,
    slots: tuple[Tensor, Tensor],
    generator: torch.Generator,
) -> SetCondition:
    """Poses relative to a reference, where slot 0 is none of the drawn; captions, some of them dropped.

    slots: (B, 1) whether slot 0 is a reference's, present or absent; and whether neither reference nor words are told.
    """
    device, b = generator.device, len(clean)
    taken, nothing = slots
    azimuth = sets.azimuth_deg - torch.where(taken, sets.azimuth_deg[:, :1], 0.0)
    error = settings.elevation_error_deg * torch.randn(b, 1, generator=generator, device=device) * taken
    elevation = torch.cat([sets.elevation_deg[:, :1] + error, sets.elevation_deg[:, 1:]], dim=1)
    kept = torch.where(taken[:, 0], settings.reference_text, 1 - settings.unconditional)
    worded = (torch.rand(b, generator=generator, device=device) < kept) & ~nothing[:, 0]
    captions = torch.where(worded, sets.captions, 0)
    return SetCondition(
        clean=clean,
        absent=absent,
        azimuth_deg=azimuth,
        elevation_deg=elevation,
        text=tables.states[captions].float(),
        mask=tables.masks[captions],
    )


def set_loss(predicted: Tensor, batch: NoisySets, channel_weights: Float[Tensor, " c"]) -> Tensor:
    """The weighted squared error of v, averaged over noisy views."""
    squares = (predicted.float() - batch.target).square().mean(dim=(3, 4))
    return ((squares * channel_weights).mean(dim=2) * batch.weights).sum() / (batch.weights > 0).sum().clamp(min=1)


class Average:
    """A running average of a network's parameters on its device."""

    def __init__(self, network: MultiviewNetwork, decay: float) -> None:
        self._live = list(network.parameters())
        self.averages = [p.detach().clone() for p in self._live]
        self._decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self) -> None:
        """Take the present parameters in; early ones are soon forgotten."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.averages, [p.detach() for p in self._live], 1 - decay)
        self.updates += 1


def learning_rate_factor(step: int, progress: float, warmup: int, decay_from: float) -> float:
    """Linear rise by steps, then 1, then 1 - sqrt to zero from the share `decay_from` of the run on (arXiv:2405.18392)."""
    rise = min(1.0, (step + 1) / max(warmup, 1))
    if progress <= decay_from:
        return rise
    return rise * max(0.0, 1 - ((progress - decay_from) / (1 - decay_from)) ** 0.5)


class Trainer:
    """One network in training. forward: the network itself, or its compiled form."""

    def __init__(
        self,
        network: MultiviewNetwork,
        codec: PatchCodec,
        tables: Tables,
        pool: SetPool,
        settings: MultiviewTraining,
        generator: torch.Generator,
    ) -> None:
        self.network, self.pool, self.settings, self.step = network, pool, settings, 0
        self.forward: Callable[..., Tensor] = network
        self._codec, self._tables, self._generator = codec, tables, generator
        self._device = generator.device
        fused = self._device.type == "cuda"
        self.optimizer = torch.optim.AdamW(
            network.parameters(), settings.learning_rate, (0.9, 0.98), weight_decay=settings.weight_decay, fused=fused
        )
        self.average = Average(network, settings.average_decay)
        self._good = [average.clone() for average in self.average.averages]
        self._channel_weights = codec.channel_weights(settings.pixel_emphasis)

    def train_step(self, batch: int, progress: float) -> Tensor:
        """One step; answers the loss, on the device."""
        drawn = noisy_sets(
            self.pool.draw(batch), codec=self._codec, tables=self._tables, settings=self.settings, generator=self._generator
        )
        factor = learning_rate_factor(self.step, progress, self.settings.warmup, self.settings.decay_from)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * factor
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            predicted = self.forward(drawn.noisy, drawn.timesteps, drawn.told)
        loss = set_loss(predicted, drawn, self._channel_weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.average.update()
        self.step += 1
        return loss.detach()

    def averaged_state(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        names = [name for name, _ in self.network.named_parameters()]
        return dict(zip(names, self.average.averages, strict=True))

    def save(self, path: Path) -> None:
        """Everything needed to go on, in one safetensors file, written whole or not at all. The pool is drawn anew from here on, in
        the run that goes on as in one that is resumed, so that both are the same."""
        state: dict[str, Tensor] = {}
        for (name, live), average in zip(self.network.named_parameters(), self.average.averages, strict=True):
            state[f"live/{name}"], state[f"average/{name}"] = live.detach(), average
            for key, value in self.optimizer.state.get(live, {}).items():
                state[f"optimizer/{key}/{name}"] = value
        facts = {"step": str(self.step), "updates": str(self.average.updates)}
        partial = path.with_suffix(".part")
        save_file({name: value.contiguous().cpu().clone() for name, value in state.items()}, partial, metadata=facts)
        partial.rename(path)
        self._reseed()

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        from safetensors import safe_open

        state = load_file(path)
        with safe_open(path, "pt") as opened:
            facts = opened.metadata()
        for (name, live), average in zip(self.network.named_parameters(), self.average.averages, strict=True):
            live.data.copy_(state[f"live/{name}"])
            average.copy_(state[f"average/{name}"])
            kept: dict[str, Any] = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"optimizer/{key}/{name}" in state:
                    kept[key] = state[f"optimizer/{key}/{name}"].to(live.device)
            if kept:
                self.optimizer.state[live] = kept
        self.step, self.average.updates = int(facts["step"]), int(facts["updates"])
        self._reseed()

    @torch.no_grad()
    def remember(self) -> None:
        """Keep the averaged weights, for `recover`."""
        self._good = [average.clone() for average in self.average.averages]

    @torch.no_grad()
    def recover(self) -> None:
        """Go on from the weights last remembered, with half the learning rate and a fresh optimizer state: the loss is no number."""
        log.warning("the loss is no number at step %d: back to the weights last remembered, at half the rate", self.step)
        for live, average, good in zip(self.network.parameters(), self.average.averages, self._good, strict=True):
            live.copy_(good)
            average.copy_(good)
        self.optimizer.state.clear()
        self.settings = replace(self.settings, learning_rate=self.settings.learning_rate / 2)

    def _reseed(self) -> None:
        """Draw on from a seed that the step alone decides, with a new pool."""
        self._generator.manual_seed(self.settings.seed * 1_000_003 + self.step)
        self.fill_pool(min(64, self.pool.size))

    def fill_pool(self, chunk: int) -> None:
        """Render the whole pool."""
        for _ in range(self.pool.size // chunk):
            self.pool.renew(chunk)


@dataclass
class Pace:
    """How a run goes on: renew_every steps, render `chunk` sets; progress of the run and whether it ends, by the step."""

    batch: int
    chunk: int
    renew_every: int
    progress: Callable[[int], float]
    every_s: float
    at_half: Callable[[], None] | None = None


def train(trainer: Trainer, pace: Pace, flop_per_set: float) -> list[dict[str, float]]:
    """Train until the pace's progress reaches 1; answers what was logged, about every `every_s` seconds."""
    journal: list[dict[str, float]] = []
    started = marked = time.monotonic()
    first = last = trainer.step
    halved, total, fence = False, None, None
    while (progress := pace.progress(trainer.step)) < 1:
        loss = trainer.train_step(pace.batch, progress)
        total = loss if total is None else total + loss
        if trainer.step % pace.renew_every == 0:
            trainer.pool.renew(pace.chunk)
        if loss.device.type == "cuda" and trainer.step % 16 == 0:
            if fence is not None:
                fence.synchronize()  # of 16 steps ago: keeps the clock honest, the queue full
            fence = torch.cuda.Event()
            fence.record()
        if not halved and progress > 0.5:
            halved = True
            if pace.at_half is not None:
                pace.at_half()
        now = time.monotonic()
        if now - marked >= pace.every_s or (trainer.step - first == 20 and not journal):
            mean = float(total) / (trainer.step - last)
            now = time.monotonic()
            speed = (trainer.step - last) / (now - marked)
            rate = speed * pace.batch * 3 * flop_per_set / 1e12
            entry = {
                "step": float(trainer.step),
                "s": now - started,
                "loss": mean,
                "steps_per_s": speed,
                "tflops": rate,
                "progress": progress,
            }
            journal.append(entry)
            log.info("%s", json.dumps({key: round(value, 4) for key, value in entry.items()}))
            if mean != mean:
                trainer.recover()
            else:
                trainer.remember()
            total, last, marked = None, trainer.step, now
    return journal
