"""The view prior: novel views of a reference picture (protocols.ViewPrior), in Zero123's structure.

The U-Net sees the noisy latent beside the reference's latent (2 C input channels) and attends to context tokens joined with the
pose, four numbers, through one linear projection (source: Zero123, arXiv:2303.11328). Two kinds of context:
"latent_patches" (the embedded prior): the reference latent cut into square patches, one token each, so nothing besides the
autoencoder is needed; "image_embedding": one token of a CLIP image tower, as Zero123's released weights expect.
The unconditional domain keeps the pose and zeroes latent and tokens, as Zero123's training does; with Zero123's released weights the
projected tokens are zero too, as its pipelines and threestudio sample.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from diffusers import UNet2DConditionModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionModelWithProjection

from dreampolish.priors.folders.loading import load_autoencoder, load_schedule, load_unet, open_transformers
from dreampolish.priors.folders.projection import OWN, checked_projection, refuse_other_tower, refuse_other_width
from dreampolish.priors.folders.source import PriorError, PriorSource, json_object
from dreampolish.priors.latents import LatentSpace, pixels_per_latent
from dreampolish.priors.protocols import ViewCondition
from dreampolish.priors.sampling import (
    Predictor,
    Renewal,
    denoise_ddim,
    guided,
    noisy_latents,
    sample_ddim,
    trailing_timesteps,
)
from dreampolish.scene.cameras import pose_condition

PoseConvention = Literal["distance_change", "reference_elevation"]
"""What a pose's fourth number is: the change of distance (Zero123), which our constant framing makes 0, or the reference camera's angle
from the top, rad(90 - elevation) (Stable-Zero123; source: threestudio's stable_zero123_guidance)."""

ContextEncoder = Callable[[Tensor, Tensor], Tensor]
"""(pictures (B, 3, H, W), their latents (B, C, m, n)) -> tokens (B, L, D), before the pose joins them."""


class LatentPatchContext:
    """Context tokens that are the reference latent's patches: (B, (m/k)(n/k), C k^2), nothing learned."""

    def __init__(self, patch: int) -> None:
        self.patch = patch

    def __call__(self, images: Float[Tensor, "b 3 h w"], latents: Float[Tensor, "b c m n"]) -> Float[Tensor, "b l d"]:
        """One token a patch, row by row."""
        return functional.unfold(latents, self.patch, stride=self.patch).transpose(1, 2)


class ImageEmbeddingContext:
    """One token: a CLIP image tower's projected embedding (Zero123's context)."""

    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

    def __init__(self, tower: CLIPVisionModelWithProjection) -> None:
        self.tower = tower

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b 3 h w"], latents: Float[Tensor, "b c m n"]) -> Float[Tensor, "b l d"]:
        """The embedding as a sequence of one token."""
        side = int(self.tower.config.image_size)
        sized = functional.interpolate(images, (side, side), mode="bicubic", antialias=True, align_corners=False)
        mean, deviation = (images.new_tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.deviation))
        return self.tower(pixel_values=(sized - mean) / deviation).image_embeds[:, None]


class PoseProjection(ModelMixin, ConfigMixin):
    """Zero123's single linear projection of [context token, pose] to a context token of the U-Net's width, one row a token.

    context_dim: D of the tokens that come in. output_dim: the U-Net's cross-attention width. tokens: how many positions get a
    learned offset of their own; 0 for none, as in Zero123. context, patch: the context encoder that the tokens come from.
    pose: the convention of the pose's fourth number that the projection was trained with. empty_context: whether rows of zero tokens,
    the unconditional domain, get a context of zeros, as Zero123's pipelines sample; else the projection of the pose alone, as it trains.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        context_dim: int = 768,
        output_dim: int = 768,
        tokens: int = 0,
        context: str = "image_embedding",
        patch: int = 4,
        pose: str = "distance_change",
        empty_context: bool = False,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(context_dim + 4, output_dim)
        self.offsets = nn.Parameter(torch.zeros(max(tokens, 1), output_dim), requires_grad=tokens > 0)

    def forward(self, tokens: Float[Tensor, "b l d"], pose: Float[Tensor, "b 4"]) -> Float[Tensor, "b l e"]:
        """Context with the pose in every token."""
        joined = torch.cat([tokens, pose[:, None].expand(-1, tokens.shape[1], -1)], dim=-1)
        projected = self.linear(joined)
        if self.config.empty_context:
            projected = projected * tokens.ne(0).flatten(1).any(dim=1)[:, None, None]
        return projected + self.offsets if self.config.tokens else projected


class DiffusionViewPrior(LatentSpace):
    """A U-Net that paints the view at a pose, given a reference."""

    def __init__(
        self,
        space: LatentSpace,
        unet: UNet2DConditionModel,
        projection: PoseProjection,
        context: ContextEncoder,
        pose_convention: PoseConvention = "distance_change",
    ) -> None:
        super().__init__(space.autoencoder, space.schedule, space.image_size)
        self.unet, self.projection, self.context = unet, projection, context
        self.pose_convention = pose_convention
        # Stable Diffusion's encoder latents enter Zero123's U-Net unscaled; ours has a scale of 1 anyway.
        self._reference_scale = 1 / float(space.autoencoder.config.scaling_factor)

    def networks(self) -> tuple[nn.Module, ...]:
        """The U-Net."""
        return (self.unet,)

    def to(self, device: torch.device | str) -> None:
        """Move autoencoder, network, projection and context encoder."""
        super().to(device)
        self.projection.to(device)
        if not self.memory.towers_on_cpu:
            self._move_tower(device)

    def _move_tower(self, device: torch.device | str) -> None:
        if isinstance(self.context, ImageEmbeddingContext):
            self.context.tower.to(device)

    def pose(
        self, azimuth_deg: Float[Tensor, " b"], elevation_deg: Float[Tensor, " b"], reference_elevation_deg: float
    ) -> Float[Tensor, "b 4"]:
        """Poses of cameras relative to the reference's, which stands at azimuth 0, in this prior's convention."""
        found = pose_condition(azimuth_deg, elevation_deg, reference_elevation_deg)
        if self.pose_convention == "reference_elevation":
            found[:, 3] = math.radians(90 - reference_elevation_deg)
        return found

    @torch.no_grad()
    def condition(self, reference: Float[Tensor, "1 3 h w"]) -> ViewCondition:
        """Encode the reference picture once."""
        latents = self.encode(reference)
        self._move_tower(latents.device)
        tokens = self.context(reference, latents)
        if self.memory.towers_on_cpu:
            self._move_tower("cpu")
        return ViewCondition(latents * self._reference_scale, tokens)

    def _output(self, noisy: Tensor, timesteps: Tensor, reference: ViewCondition | None, pose: Tensor) -> Tensor:
        return self.by_rows(len(noisy), lambda rows: self._output_of_rows(noisy[rows], timesteps[rows], reference, pose[rows]))

    def _output_of_rows(self, noisy: Tensor, timesteps: Tensor, reference: ViewCondition | None, pose: Tensor) -> Tensor:
        latents, tokens = self._seen(noisy, reference)
        return view_output(
            unet=self.unet,
            projection=self.projection,
            noisy=noisy,
            timesteps=timesteps,
            reference_latents=latents,
            tokens=tokens,
            pose=pose,
        )

    def _seen(self, noisy: Tensor, reference: ViewCondition | None) -> tuple[Tensor, Tensor]:
        """Latents (B, C, h, w) and tokens (B, L, D) of the reference for a batch of noisy views; zeros without one."""
        n = len(noisy)
        if reference is None:
            shape = (n, max(self.projection.config.tokens, 1), self.projection.config.context_dim)
            return torch.zeros_like(noisy), noisy.new_zeros(shape)
        return reference.latent.expand(n, -1, -1, -1), reference.context.expand(n, -1, -1)

    def _both_outputs(self, noisy: Tensor, timesteps: Tensor, reference: ViewCondition, pose: Tensor) -> tuple[Tensor, Tensor]:
        """What the network predicts with the reference and without it, in one call."""
        (latents, tokens), (no_latents, no_tokens) = self._seen(noisy, reference), self._seen(noisy, None)
        twice, times, poses = torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), torch.cat([pose, pose])
        joint_latents, joint_tokens = torch.cat([latents, no_latents]), torch.cat([tokens, no_tokens])

        def output(rows: slice) -> Tensor:
            return view_output(
                unet=self.unet,
                projection=self.projection,
                noisy=twice[rows],
                timesteps=times[rows],
                reference_latents=joint_latents[rows],
                tokens=joint_tokens[rows],
                pose=poses[rows],
            )

        with_it, without = self.by_rows(len(twice), output).chunk(2)
        return with_it, without

    @torch.no_grad()
    def predict_both(
        self,
        noisy: Float[Tensor, "b c m n"],
        timesteps: Int[Tensor, " b"],
        reference: ViewCondition,
        pose: Float[Tensor, "b 4"],
    ) -> tuple[Float[Tensor, "b c m n"], Float[Tensor, "b c m n"]]:
        """As `predict_epsilon` with the reference and without it, in one network call."""
        with_it, without = self._both_outputs(noisy, timesteps, reference, pose)
        return self.epsilon_from_output(with_it, noisy, timesteps), self.epsilon_from_output(without, noisy, timesteps)

    @torch.no_grad()
    def predict_epsilon(
        self,
        noisy: Float[Tensor, "b c m n"],
        timesteps: Int[Tensor, " b"],
        reference: ViewCondition | None,
        pose: Float[Tensor, "b 4"],
    ) -> Float[Tensor, "b c m n"]:
        """The noise of the view at `pose`; None: the unconditional domain. No gradient."""
        return self.epsilon_from_output(self._output(noisy, timesteps, reference, pose), noisy, timesteps)

    @torch.no_grad()
    def sample(
        self,
        reference: ViewCondition,
        pose: Float[Tensor, "b 4"],
        guidance_scale: float,
        steps: int,
        renewed: float,
        generator: torch.Generator,
    ) -> Float[Tensor, "b 3 h w"]:
        """Novel views by DDIM, one per row of `pose`; a guidance scale of 1 needs one network call a step. renewed: DDIM's eta."""
        predict_v = self._guided_v(reference, pose, guidance_scale)
        renewal = Renewal(renewed, lambda: self.draw_noise(len(pose), generator))
        return self.decode(
            sample_ddim(
                predict_v=predict_v,
                noise=self.draw_noise(len(pose), generator),
                alphas_cumprod=self.alphas_cumprod,
                steps=steps,
                renewal=renewal,
            )
        )

    @torch.no_grad()
    def repaint(
        self,
        reference: ViewCondition,
        images: Float[Tensor, "b 3 h w"],
        pose: Float[Tensor, "b 4"],
        strength: float,
        guidance_scale: float,
        steps: int,
        renewed: float,
        generator: torch.Generator,
    ) -> Float[Tensor, "b 3 h w"]:
        """`images` noised up to the fraction `strength` of the timesteps, then denoised again; at 1 they no longer matter.

        renewed: DDIM's eta. All rows share one noise, the fresh one too, so that views of one object agree in what the noise
        decides. source of the idea: SDEdit (arXiv:2108.01073); Instruct-NeRF2NeRF (arXiv:2303.12789) renews a NeRF's pictures so.
        """
        n_noisy = max(1, round(strength * len(self.alphas_cumprod)))
        timesteps = trailing_timesteps(n_noisy, min(steps, n_noisy)).to(self.alphas_cumprod.device)

        def shared_noise() -> Tensor:
            return self.draw_noise(1, generator).expand(len(pose), -1, -1, -1)

        noise = shared_noise()
        latents = torch.zeros_like(noise) if strength >= 1 else self.encode(images)
        noisy = noisy_latents(latents, noise, self.alphas_cumprod, timesteps[:1].expand(len(pose)))
        predict_v, renewal = self._guided_v(reference, pose, guidance_scale), Renewal(renewed, shared_noise)
        return self.decode(
            denoise_ddim(
                predict_v=predict_v, noisy=noisy, alphas_cumprod=self.alphas_cumprod, timesteps=timesteps, renewal=renewal
            )
        )

    def _guided_v(self, reference: ViewCondition, pose: Float[Tensor, "b 4"], guidance_scale: float) -> Predictor:
        """v under guidance on the reference."""

        def predict_v(noisy: Tensor, timesteps: Tensor) -> Tensor:
            if guidance_scale == 1:
                return self.v_from_output(self._output(noisy, timesteps, reference, pose), noisy, timesteps)
            with_and_without = self._both_outputs(noisy, timesteps, reference, pose)
            conditional, unconditional = (self.v_from_output(each, noisy, timesteps) for each in with_and_without)
            return guided(conditional, unconditional, guidance_scale)

        return predict_v


def view_output(
    unet: UNet2DConditionModel,
    projection: PoseProjection,
    noisy: Float[Tensor, "b c m n"],
    timesteps: Int[Tensor, " b"],
    reference_latents: Float[Tensor, "b c m n"],
    tokens: Float[Tensor, "b l d"],
    pose: Float[Tensor, "b 4"],
) -> Tensor:
    """What the U-Net predicts for noisy views; the pose also joins the time embedding where the U-Net has a place for it."""
    labels = pose.to(unet.dtype) if unet.config.class_embed_type is not None else None
    joined = torch.cat([noisy, reference_latents], dim=1).to(unet.dtype)
    context = projection(tokens, pose).to(unet.dtype)
    return unet(joined, timesteps, encoder_hidden_states=context, class_labels=labels).sample.to(noisy.dtype)


def load_projection(source: PriorSource) -> PoseProjection:
    """The pose projection, under any of its names and with any of its layer's. PriorError where it holds other tensors."""
    found = checked_projection(source)
    if found.layer == OWN:
        projection = PoseProjection.from_config(json_object(source.component("cc_projection") / "config.json"))
    else:
        projection = PoseProjection(context_dim=found.context_dim, output_dim=found.output_dim, empty_context=True)
    state = {
        name.replace(f"{found.layer}.", "linear.", 1): tensor
        for path in found.tensors.files
        for name, tensor in load_file(path).items()
    }
    projection.load_state_dict({**projection.state_dict(), **state})
    return projection.float().eval().requires_grad_(False)


def load_context(source: PriorSource, projection: PoseProjection) -> ContextEncoder:
    """The context encoder that the projection was trained with."""
    if projection.config.context == "latent_patches":
        return LatentPatchContext(projection.config.patch)
    folder = source.component("image_encoder")
    tower = open_transformers(folder)
    if not isinstance(tower, CLIPVisionModelWithProjection):
        raise PriorError(f"{folder} is a {type(tower).__name__}: a view prior needs a CLIPVisionModelWithProjection")
    refuse_other_tower(source, checked_projection(source), tower.config)
    return ImageEmbeddingContext(tower)


STABLE_ZERO123 = "stable-zero123"


def pose_convention(source: PriorSource) -> PoseConvention:
    """What the fourth number of a prior's poses is: what the projection's config says under "pose", else known by the model's name."""
    said: object = json_object(source.component("cc_projection") / "config.json").get("pose")
    if said in get_args(PoseConvention):
        return cast(PoseConvention, said)
    names = (Path(source.location).name, str(source.index().get("_name_or_path", "")))
    stable = any(STABLE_ZERO123 in name.lower().replace("_", "-") for name in names)
    return "reference_elevation" if stable else "distance_change"


def load_view_prior(source: PriorSource, pose: PoseConvention | None = None) -> DiffusionViewPrior:
    """Open a view prior: the embedded one, or a folder of Zero123's components (vae, unet, scheduler, image_encoder, and cc_projection
    or clip_camera_projection). pose: the convention of its poses; None: what the folder says."""
    autoencoder, unet, projection = load_autoencoder(source), load_unet(source), load_projection(source)
    refuse_other_width(source, checked_projection(source), unet.config)
    size = int(unet.config.sample_size) * pixels_per_latent(autoencoder)
    space = LatentSpace(autoencoder, load_schedule(source), size)
    context = load_context(source, projection)
    return DiffusionViewPrior(
        space=space,
        unet=unet,
        projection=projection,
        context=context,
        pose_convention=pose or pose_convention(source),
    )
