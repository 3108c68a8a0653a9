"""Settings of the trainings of the embedded priors. How `priors/home` was really trained stands in docs/history.md."""

from pydantic import Field

from schemas.base import Frozen


class AutoencoderTraining(Frozen):
    """The patch autoencoder: a PCA basis of picture patches and a learned residual decoder."""

    latent_channels: int = Field(default=32, ge=1, le=192)
    """Channels of the latent."""
    patch_size: int = Field(default=8, ge=2)
    """Side of a patch, pixels."""
    hidden_channels: int = Field(default=96, ge=1)
    """Width of the residual decoder."""
    whitening: float = Field(default=0.5, ge=0, le=1)
    """0 keeps the latent channels' spreads, 1 makes them equal."""
    basis_pictures: int = Field(default=6400, ge=1)
    """Pictures that the basis is computed from."""
    steps: int = Field(default=700, ge=1)
    """Steps of the decoder's training."""
    batch: int = Field(default=32, ge=4)
    """Pictures of a step."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Adam's learning rate of the decoder."""
    latent_noise: float = Field(default=0.03, ge=0)
    """Standard deviation of the noise added to latents while the decoder learns."""
    seed: int = 3
    """Seed of every random draw."""


class DenoiserTraining(Frozen):
    """One U-Net and its training."""

    block_channels: tuple[int, ...] = (64, 160, 192)
    """Channels of each resolution, from fine to coarse."""
    attended: tuple[bool, ...] = (False, True, False)
    """Which resolutions attend to the condition."""
    heads: int = Field(default=4, ge=1)
    """Attention heads."""
    steps: int = Field(default=28300, ge=1)
    """Steps of the training."""
    decay_from: int = Field(default=24100, ge=0)
    """Step from which the learning rate falls."""
    warmup: int = Field(default=200, ge=0)
    """Steps over which the learning rate rises."""
    batch: int = Field(default=32, ge=1)
    """Pictures of a step."""
    learning_rate: float = Field(default=4e-4, gt=0)
    """Highest learning rate."""
    gamma: float = Field(default=5.0, ge=1)
    """Bound of the loss's weight by the signal-to-noise ratio."""
    timestep_exponent: float = Field(default=0.7, gt=0)
    """Timesteps are drawn as T u^exponent, u uniform; below 1: more of the noisy ones."""
    pixel_emphasis: float = Field(default=0.75, ge=0, le=1)
    """0: latent channels weigh alike; 1: they weigh as in the picture's squared error."""
    average_decay: float = Field(default=0.999, ge=0, lt=1)
    """Decay of the weights' running average in one step."""
    unconditional: float = Field(default=0.1, ge=0, le=1)
    """Share of conditions that are dropped."""
    autocast: bool = True
    """Whether to compute in bfloat16 where the processor is good at it."""
    continued: bool = False
    """Whether to begin with the weights in the folder, in place of the parent prior's or random ones."""
    seed: int = 11
    """Seed of every random draw."""


class JudgeTraining(Frozen):
    """The heads of the image-text judge."""

    samples: int = Field(default=5120, ge=1)
    """Pictures whose features are computed."""
    steps: int = Field(default=400, ge=1)
    """Steps of the training."""
    batch: int = Field(default=256, ge=2)
    """Pairs of a step."""
    logit_scale: float = Field(default=14.0, gt=0)
    """Fixed inverse temperature of the contrastive loss."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Dropout of the heads."""
    learning_rate: float = Field(default=0.001, gt=0)
    """Highest learning rate."""
    weight_decay: float = Field(default=0.05, ge=0)
    """AdamW's weight decay."""
    width: int = Field(default=384, ge=1)
    """Width of the heads' hidden layer."""
    embedding: int = Field(default=192, ge=1)
    """Length of the joint embedding."""
    seed: int = 20
    """Seed of every random draw."""


class PriorsTraining(Frozen):
    """Everything that `dreampolish priors train` needs. Folders are relative to the project."""

    renders: str = "data/renders"
    """Folder of the rendered views."""
    split: str = "configs/data/split.json"
    """File of the split into train, validation and held out."""
    home: str = "priors/home"
    """Folder that the priors are written to."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where the three U-Nets are trained; auto: CUDA if there is one."""
    checkpoint_interval: int = Field(default=500, ge=1)
    """Steps between checkpoints."""
    autoencoder: AutoencoderTraining = AutoencoderTraining()
    """Training of the autoencoder."""
    text: DenoiserTraining = DenoiserTraining()
    """Training of the text prior."""
    view: DenoiserTraining = DenoiserTraining(steps=35300, decay_from=30000, learning_rate=4e-4, seed=12, timestep_exponent=0.6)
    """Training of the view prior."""
    normals: DenoiserTraining = DenoiserTraining(
        steps=5700, decay_from=3300, learning_rate=6e-4, seed=13, timestep_exponent=0.15
    )
    """Training of the normal prior."""
    judge: JudgeTraining = JudgeTraining()
    """Training of the judge."""
    sheet_pictures: int = Field(default=48, ge=1)
    """Held-out pictures that the figures are taken on."""
    sampling_steps: int = Field(default=30, ge=1)
    """Sampling steps of the text prior's figures and sheets."""
    text_guidance: float = 2.5
    """Guidance scale of the text prior's figures and sheets."""
    view_guidance: float = 2.0
    """Guidance scale of the view prior's figures and sheets."""
    view_sampling_steps: int = Field(default=6, ge=1)
    """Sampling steps of the view prior's figures, as many as the geometry stages' targets take."""
    view_pairs: int = Field(default=186, ge=1)
    """Held-out pairs of pictures that the view prior's figures are taken on."""
    normal_steps: int = Field(default=1, ge=1)
    """Sampling steps of the normal prior's figures."""
