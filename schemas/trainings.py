"""Settings of the trainings of the embedded priors; the defaults are those of `priors/home` but for its history.

`priors/home` was trained in pieces: the loss's weight was Min-SNR's for the first 3,800 steps of text and 1,500 of view, view and
normals drew other timesteps at first, and learning rates fell and rose. Up to 8,900 steps of text and 7,500 of view, half of the
pictures were nearly flat and half of the references frontal; then both continued from their own weights for 7,900 and 7,500 steps
(learning rate 4e-4, falling from step 4,600) under random light. For the next 11,500 and 10,800 steps both continued once more with
the present data (studio light, straight front views, noisy references) and, but for the first 1,800 and 1,700 of these,
`pixel_emphasis`; learning rates 4e-4 and 5e-4, falling from step 7,300 of these. The view prior went on from its own weights for 9,500
steps (4e-4, falling from step 4,200 of these), the normal prior, which began with 1,700 steps from the view prior's weights of that
time, for 4,000 (6e-4, falling from 1,600). Totals and final settings of this, the part made on CPUs, are the defaults here.
The last leg of all three ran on one GPU (an H200), side by side, within eight minutes: 5,700 steps of text and of view and 6,650 of
normals with 512 pictures each, learning rate 8e-4 and from a third of the time on falling to nothing, gradients' norm at most 1, over
the training objects in four to five shapes each (fourteen views a shape, one shape the object's own; data/renders.py's stretched rounds
do the same). It was a script of its own around this code's recipes, losses and batches: it kept drawn rows and used each one several
times under other noise (view 3 times, normals 2, text some 20), where the trainings here draw every row once. View was taken as it came
out; of text and normals, which had begun to know their training objects by heart, the mean of the weights before and after, 0.3 and
0.7 (arXiv:2109.01903), chosen among 0, 0.5 (normals), 0.7 and 1 by the held-out figures.
"""

from pydantic import Field

from schemas.base import Frozen


class AutoencoderTraining(Frozen):
    """The patch autoencoder. whitening: 0 keeps the channels' spreads, 1 equalises them. latent_noise: added while the decoder learns."""

    latent_channels: int = Field(default=32, ge=1, le=192)
    patch_size: int = Field(default=8, ge=2)
    hidden_channels: int = Field(default=96, ge=1)
    whitening: float = Field(default=0.5, ge=0, le=1)
    basis_pictures: int = Field(default=6400, ge=1)
    steps: int = Field(default=700, ge=1)
    batch: int = Field(default=32, ge=4)
    learning_rate: float = Field(default=1e-3, gt=0)
    latent_noise: float = Field(default=0.03, ge=0)
    seed: int = 3


class DenoiserTraining(Frozen):
    """One U-Net and its training. decay_from: the step from which the learning rate falls. gamma: bound of the loss's weight.
    unconditional: share of conditions dropped. autocast: bfloat16, where the processor is good at it."""

    block_channels: tuple[int, ...] = (64, 160, 192)
    attended: tuple[bool, ...] = (False, True, False)
    heads: int = Field(default=4, ge=1)
    steps: int = Field(default=28300, ge=1)
    decay_from: int = Field(default=24100, ge=0)
    warmup: int = Field(default=200, ge=0)
    batch: int = Field(default=32, ge=1)
    learning_rate: float = Field(default=4e-4, gt=0)
    gamma: float = Field(default=5.0, ge=1)
    timestep_exponent: float = Field(default=0.7, gt=0)
    """Below 1: more of the noisy timesteps."""
    pixel_emphasis: float = Field(default=0.75, ge=0, le=1)
    """0: the latent's channels weigh alike, and fine detail outweighs shades inside an outline; 1: as in the picture's squared
    error."""
    average_decay: float = Field(default=0.999, ge=0, lt=1)
    unconditional: float = Field(default=0.1, ge=0, le=1)
    autocast: bool = True
    continued: bool = False
    """Begin with the weights that the folder holds, in place of the parent prior's or random ones."""
    seed: int = 11


class JudgeTraining(Frozen):
    """The image-text judge's heads. samples: pictures whose features are computed; logit_scale: fixed inverse temperature."""

    samples: int = Field(default=5120, ge=1)
    steps: int = Field(default=400, ge=1)
    batch: int = Field(default=256, ge=2)
    logit_scale: float = Field(default=14.0, gt=0)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    learning_rate: float = Field(default=0.001, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    width: int = Field(default=384, ge=1)
    embedding: int = Field(default=192, ge=1)
    seed: int = 20


class PriorsTraining(Frozen):
    """Everything that `dreampolish priors train` needs. Folders are relative to the project."""

    renders: str = "data/renders"
    split: str = "configs/data/split.json"
    home: str = "priors/home"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where the three U-Nets are trained; auto: CUDA if there is one."""
    checkpoint_interval: int = Field(default=500, ge=1)
    autoencoder: AutoencoderTraining = AutoencoderTraining()
    text: DenoiserTraining = DenoiserTraining()
    view: DenoiserTraining = DenoiserTraining(steps=35300, decay_from=30000, learning_rate=4e-4, seed=12, timestep_exponent=0.6)
    normals: DenoiserTraining = DenoiserTraining(
        steps=5700, decay_from=3300, learning_rate=6e-4, seed=13, timestep_exponent=0.15
    )
    judge: JudgeTraining = JudgeTraining()
    sheet_pictures: int = Field(default=48, ge=1)
    """Held-out pictures that the figures are taken on."""
    sampling_steps: int = Field(default=30, ge=1)
    text_guidance: float = 2.5
    view_guidance: float = 2.0
    view_sampling_steps: int = Field(default=6, ge=1)
    """As many as the geometry stages' targets take."""
    view_pairs: int = Field(default=186, ge=1)
    """Held-out pairs of the view prior: two of every held-out object; 48 left the figures to chance."""
    normal_steps: int = Field(default=1, ge=1)
