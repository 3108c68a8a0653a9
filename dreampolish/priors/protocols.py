"""What the pipeline asks of a prior, whatever its size.

Notation for every method: pictures x (B, 3, H, W) in [0, 1] on a white background, latents z (B, C, h, w), integer timesteps
t (B,), noise eps; z_t = alpha_t z + sigma_t eps with alpha_t^2 = abar_t (docs/conventions.md). Networks that predict v are converted:
eps = sigma_t z_t + alpha_t v. `predict_*` run without building a graph through the network (score distillation uses no U-Net Jacobian);
`encode` is differentiable.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class TextEmbedding:
    """Token states (B, L, D), their mask (B, L), True where a token counts, and the whole text's vector (B, P) where the prior has one."""

    states: Float[Tensor, "b l d"]
    mask: Tensor
    pooled: Float[Tensor, "b p"] | None = None

    def rows(self, index: slice | list[int]) -> "TextEmbedding":
        """The embeddings of some of the texts."""
        return TextEmbedding(self.states[index], self.mask[index], None if self.pooled is None else self.pooled[index])

    def expand(self, n: int) -> "TextEmbedding":
        """One embedding repeated for n pictures."""
        pooled = None if self.pooled is None else self.pooled.expand(n, -1)
        return TextEmbedding(self.states.expand(n, -1, -1), self.mask.expand(n, -1), pooled)

    def pooled_states(self) -> Float[Tensor, "b p"]:
        """The whole texts' vectors. ValueError where the prior's tower has none."""
        if self.pooled is None:
            raise ValueError("these embeddings carry no pooled text, which SDXL, Stable Diffusion 3 and FLUX need")
        return self.pooled

    def mixed(self, other: "TextEmbedding", share: Float[Tensor, " b"]) -> "TextEmbedding":
        """`share` of these embeddings and the rest of the other ones, text by text; share in [0, 1]."""
        states = torch.lerp(other.states, self.states, share[:, None, None])
        pooled = None
        if self.pooled is not None and other.pooled is not None:
            pooled = torch.lerp(other.pooled, self.pooled, share[:, None])
        return TextEmbedding(states, self.mask | other.mask, pooled)

    @staticmethod
    def joined(texts: "Sequence[TextEmbedding]") -> "TextEmbedding":
        """All texts of several embeddings, one after the other; the shorter ones are padded with tokens that do not count."""
        length = max(each.mask.shape[1] for each in texts)
        missing = [length - each.mask.shape[1] for each in texts]
        pooled = [each.pooled for each in texts if each.pooled is not None]
        return TextEmbedding(
            torch.cat([functional.pad(each.states, (0, 0, 0, n)) for each, n in zip(texts, missing, strict=True)]),
            torch.cat([functional.pad(each.mask, (0, n)) for each, n in zip(texts, missing, strict=True)]),
            torch.cat(pooled) if pooled else None,
        )

    def followed_by(self, others: "TextEmbedding") -> "TextEmbedding":
        """These embeddings and others behind them; the shorter ones are padded with tokens that do not count."""
        length = max(self.mask.shape[1], others.mask.shape[1])
        padded = [
            (functional.pad(each.states, (0, 0, 0, missing)), functional.pad(each.mask, (0, missing)))
            for each, missing in ((each, length - each.mask.shape[1]) for each in (self, others))
        ]
        return TextEmbedding(*(torch.cat(parts) for parts in zip(*padded, strict=True)))


@runtime_checkable
class LatentPrior(Protocol):
    """What text and view priors share: a latent space and a noise schedule."""

    image_size: int
    """Pixels of a side that the prior was trained at."""
    alphas_cumprod: Float[Tensor, " t"]
    """abar_t for every training timestep."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of one latent."""
        ...

    @property
    def views_at_once(self) -> int | None:
        """Pictures whose graph through the encoder is kept at once; None: all."""
        ...

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c m n"]:
        """Scaled latents of pictures; differentiable, so that distillation can reach the renderer."""
        ...

    def decode(self, latents: Float[Tensor, "b c m n"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures of scaled latents, clamped to [0, 1]."""
        ...


@runtime_checkable
class TextPrior(LatentPrior, Protocol):
    """A text-to-image diffusion model."""

    def embed(self, prompts: Sequence[str]) -> TextEmbedding:
        """Token states of prompts; the empty string is the unconditional domain."""
        ...

    def predict_epsilon(
        self, noisy: Float[Tensor, "b c m n"], timesteps: Int[Tensor, " b"], text: TextEmbedding
    ) -> Float[Tensor, "b c m n"]:
        """e_y, e_0 or e_n, by the text that is given."""
        ...

    def sample(
        self,
        text: TextEmbedding,
        negative: TextEmbedding,
        guidance_scale: float,
        steps: int,
        renewed: float,
        generator: torch.Generator,
    ) -> Float[Tensor, "b 3 h w"]:
        """Pictures by DDIM of eta `renewed` with classifier-free guidance, one per row of `text`."""
        ...

    def add_lora(self, rank: int, generator: torch.Generator) -> "VariationalDomain":
        """A LoRA adapter with a camera embedding on the frozen network: the variational domain e_lora of VSD and DSD."""
        ...


@runtime_checkable
class VariationalDomain(Protocol):
    """A LoRA-fitted score network, conditioned on the camera (source: threestudio's ProlificDreamer guidance)."""

    number_format: torch.dtype
    """What the network under the adapter computes in; gradients through float16 vanish unless the loss is scaled."""

    def parameters(self) -> list[torch.nn.Parameter]:
        """The trainable adapter and camera-embedding parameters, in a fixed order."""
        ...

    def predict_epsilon(
        self,
        noisy: Float[Tensor, "b c m n"],
        timesteps: Int[Tensor, " b"],
        text: TextEmbedding,
        world_from_camera: Float[Tensor, "b 4 4"] | None,
    ) -> Float[Tensor, "b c m n"]:
        """e_lora; builds a graph when gradients are enabled (its own training needs one). None: the zeroed camera."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The adapter's tensors alone, for checkpoints."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave; unknown or missing names are errors."""
        ...


@dataclass(frozen=True)
class ViewCondition:
    """A reference picture made ready: its latent (1, C, h, w) and its context tokens (1, L, D)."""

    latent: Float[Tensor, "1 c m n"]
    context: Float[Tensor, "1 l d"]


@runtime_checkable
class ViewPrior(LatentPrior, Protocol):
    """A view-conditioned diffusion model of Zero123's structure."""

    def pose(
        self, azimuth_deg: Float[Tensor, " b"], elevation_deg: Float[Tensor, " b"], reference_elevation_deg: float
    ) -> Float[Tensor, "b 4"]:
        """Poses of cameras relative to the reference's, in the prior's own convention."""
        ...

    def condition(self, reference: Float[Tensor, "1 3 h w"]) -> ViewCondition:
        """Encode the reference picture once."""
        ...

    def predict_epsilon(
        self,
        noisy: Float[Tensor, "b c m n"],
        timesteps: Int[Tensor, " b"],
        reference: ViewCondition | None,
        pose: Float[Tensor, "b 4"],
    ) -> Float[Tensor, "b c m n"]:
        """The noise of the view at `pose` of the reference object; None: the unconditional domain."""
        ...

    def predict_both(
        self,
        noisy: Float[Tensor, "b c m n"],
        timesteps: Int[Tensor, " b"],
        reference: ViewCondition,
        pose: Float[Tensor, "b 4"],
    ) -> tuple[Float[Tensor, "b c m n"], Float[Tensor, "b c m n"]]:
        """As `predict_epsilon` with the reference and without it, in one network call."""
        ...

    def sample(
        self,
        reference: ViewCondition,
        pose: Float[Tensor, "b 4"],
        guidance_scale: float,
        steps: int,
        renewed: float,
        generator: torch.Generator,
    ) -> Float[Tensor, "b 3 h w"]:
        """Novel views by DDIM of eta `renewed`, one per row of `pose`."""
        ...

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
        """Views noised up to the fraction `strength` of the timesteps and denoised again; no gradient."""
        ...


@dataclass(frozen=True)
class SetSubject:
    """What sets of views are painted of: a picture on white (1, 3, H, W) in [0, 1] and its mask (1, 1, H, W), its camera's elevation in
    degrees, and the prompt."""

    picture: Float[Tensor, "1 3 h w"]
    mask: Float[Tensor, "1 1 h w"]
    elevation_deg: float
    prompt: str


@runtime_checkable
class SetPrior(Protocol):
    """A prior that paints several views of one object together. Azimuths are relative to the subject's, elevations to the ground."""

    image_size: int
    """Pixels of a side of each view."""
    own_views: tuple[tuple[float, float], ...] | None
    """(azimuth, elevation) in degrees of the only views that it paints; None: any."""
    background: float
    """Grey value that lies behind its pictures, in and out: 1 is white."""

    def repaint(
        self,
        subject: SetSubject,
        images: Float[Tensor, "n 3 s s"],
        views: Sequence[tuple[float, float]],
        strength: float,
        guidance_scale: float,
        steps: int,
        renewed: float,
        generator: torch.Generator,
    ) -> Float[Tensor, "n 3 s s"]:
        """Views noised up to the fraction `strength` of the timesteps and denoised together again; at 1 they no longer matter; no
        gradient. views: their (azimuth, elevation) in degrees. renewed: DDIM's eta."""
        ...


@runtime_checkable
class NormalPrior(Protocol):
    """A normal-estimation diffusion model of Marigold's structure."""

    image_size: int

    def estimate(self, images: Float[Tensor, "b 3 h w"], steps: int, generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
        """Unit normals in the camera frame (X right, Y up, Z to the viewer); no gradient."""
        ...


@runtime_checkable
class ImageTextScorer(Protocol):
    """An image-text judge: `alignment` for the embedded one, CLIP where one is configured."""

    name: str
    """The metric's name: `alignment` or `clip`."""

    def embed_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit feature vectors of pictures."""
        ...

    def embed_texts(self, prompts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit feature vectors of texts."""
        ...
