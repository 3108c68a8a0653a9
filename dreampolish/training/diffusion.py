"""What the trainings of all three U-Nets share: their making, their average, their loss.

The loss is the squared error of v, weighted by min(SNR + 1, gamma) / (SNR + 1) (noise.bounded_snr_weight); noise and timesteps come
from one generator, timesteps stratified over a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreampolish.optim.fit import Term
from dreampolish.priors.folders.loading import Float32Attention
from dreampolish.priors.sampling import bounded_snr_weight, noisy_latents, velocity


@dataclass(frozen=True)
class UnetShape:
    """Size of a small U-Net. block_channels: per resolution, halving each time; attended: which of them attend; pose_labels:
    whether four pose numbers join the time embedding."""

    in_channels: int
    out_channels: int
    sample_size: int
    block_channels: tuple[int, ...]
    attended: tuple[bool, ...]
    heads: int
    context_dim: int
    pose_labels: bool


@dataclass(frozen=True)
class DenoiserBatch:
    """Clean latents (B, C, h, w) and whatever the network is told besides, by keyword."""

    latents: Float[Tensor, "b c m n"]
    told: dict[str, Any]


Denoiser = Callable[[Tensor, Tensor, dict[str, Any]], Tensor]
"""(noisy, timesteps, told) -> v prediction."""

BatchSource = Callable[[torch.Generator], DenoiserBatch]
"""A batch from a generator."""


def build_unet(shape: UnetShape, seed: int) -> UNet2DConditionModel:
    """A U-Net with random weights of the given seed, its last layer zero. One layer a block; attention with few heads."""
    down = tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in shape.attended)
    up = tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(shape.attended))
    with torch.random.fork_rng(devices=[]):  # modules fill themselves from the global generator
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=shape.sample_size,
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            block_out_channels=shape.block_channels,
            layers_per_block=1,
            down_block_types=down,
            up_block_types=up,
            cross_attention_dim=shape.context_dim,
            attention_head_dim=shape.heads,  # diffusers reads this as the number of heads
            norm_num_groups=16,
            resnet_time_scale_shift="scale_shift",
            class_embed_type="projection" if shape.pose_labels else None,
            projection_class_embeddings_input_dim=4 if shape.pose_labels else None,
        )
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)
    return unet


def build_schedule() -> DDIMScheduler:
    """The cosine schedule over 1000 steps with v-prediction (arXiv:2102.09672); its end is as good as pure noise."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


class RunningAverage(EMAModel):
    """diffusers' running average of parameters, restorable on any device.

    decay: of one step, in [0, 1); the first step takes the parameters as they are and early ones use less, so that the random start
    is soon forgotten.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        super().__init__(parameters, decay=decay, foreach=True)
        self.parameters = parameters

    def update(self) -> None:
        """Take the present parameters in."""
        self.step(self.parameters)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the block the parameters hold the averages."""
        self.store(self.parameters)
        self.copy_to(self.parameters)
        try:
            yield
        finally:
            self.restore(self.parameters)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave. Raises KeyError for the state of another kind of average."""
        averages = state_dict["shadow_params"]
        placed = [average.to(own) for average, own in zip(averages, self.shadow_params, strict=True)]
        super().load_state_dict({**state_dict, "shadow_params": placed})


def stratified_timesteps(n: int, n_train: int, exponent: float, generator: torch.Generator) -> Int[Tensor, " n"]:
    """Timesteps T u^exponent, u uniform and stratified over n equal parts, in random order.

    exponent: 1 is uniform; below 1 there are more noisy ones, which decide layout and need the condition most.
    """
    parts = (torch.randperm(n, generator=generator) + torch.rand(n, generator=generator)) / n
    return (parts**exponent * n_train).long().clamp_max(n_train - 1)


def normal_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of a tensor's shape, on its device. Where the generator lives elsewhere, one of the tensor's device
    is seeded from it: large draws stay off the CPU, and the stream still hangs on the generator alone."""
    if generator.device.type != like.device.type:
        seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
        generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


@dataclass(frozen=True)
class DenoisingLoss:
    """One training's loss, step by step; calling it averages the weights that the last step left.

    draw: a batch from the generator. channel_weights: of the latent's channels, mean 1. gamma: bound of the weight. exponent: of
    stratified_timesteps. autocast: compute in bfloat16 where the processor is good at it.
    """

    denoiser: Denoiser
    average: RunningAverage
    draw: BatchSource
    alphas_cumprod: Float[Tensor, " t"]
    channel_weights: Float[Tensor, " c"]
    gamma: float
    exponent: float
    autocast: bool
    generator: torch.Generator

    def __call__(self, step: int) -> dict[str, Term]:
        """The weighted squared error of v of one batch, as the term `denoise`, and the plain one for the curve."""
        if step > 0:
            self.average.update()
        batch = self.draw(self.generator)
        latents = batch.latents
        timesteps = stratified_timesteps(len(latents), len(self.alphas_cumprod), self.exponent, self.generator).to(
            latents.device
        )
        noise = normal_noise(latents, self.generator)
        noisy = noisy_latents(latents, noise, self.alphas_cumprod, timesteps)
        with torch.autocast(latents.device.type, torch.bfloat16, enabled=self.autocast):
            predicted = self.denoiser(noisy, timesteps, batch.told).float()
        squares = (predicted - velocity(latents, noise, self.alphas_cumprod, timesteps)).square().mean(dim=(2, 3))
        error = (squares * self.channel_weights).mean(dim=1)
        weighted = (bounded_snr_weight(self.alphas_cumprod, timesteps, self.gamma) * error).mean()
        return {"denoise": Term(weighted, 1.0), "v_error": Term(squares.detach().mean(), 0.0)}


def prepare_for_training(unet: UNet2DConditionModel, device: torch.device) -> None:
    """Training mode on a device, gradients on; on the CPU the attention that is fast backwards, on a GPU the network compiled."""
    unet.train().requires_grad_(True).to(device)
    if device.type == "cpu":
        unet.set_attn_processor(Float32Attention())
    else:
        unet.compile()


LAST_RATE = 0.05
"""Share of the learning rate that is left at the end. [choice]"""


def learning_rate_factor(step: int, warmup: int, decay_from: int, steps: int) -> float:
    """Linear rise over `warmup` steps, then 1, then a linear fall from `decay_from` to a twentieth at `steps`."""
    rise = min(1.0, (step + 1) / max(warmup, 1))
    if step <= decay_from:
        return rise
    return rise * max(LAST_RATE, 1 - 0.95 * (step - decay_from) / max(steps - decay_from, 1))


@torch.no_grad()
def start_from(unet: UNet2DConditionModel, other: UNet2DConditionModel, inputs: Sequence[int | None]) -> list[str]:
    """Copy another U-Net's weights where names and shapes agree (source: Zero123, Marigold start from Stable Diffusion so).

    inputs: for each input channel of `unet`, the channel of `other` whose weights it begins with, or None for zero. Returns the
    names of the parameters that keep their own start.
    """
    theirs, kept = dict(other.named_parameters()), []
    for name, own in unet.named_parameters():
        source = theirs.get(name)
        if name == "conv_in.weight" and source is not None:
            for channel, origin in enumerate(inputs):
                own[:, channel] = 0 if origin is None else source[:, origin]
        elif source is not None and source.shape == own.shape:
            own.copy_(source)
        else:
            kept.append(name)
    return kept
