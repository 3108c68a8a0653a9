"""Zero123++ (arXiv:2310.15110): six fixed views on one sheet; every self-attention also sees the reference picture's states.

Conventions, all from the authors' pipeline: the picture's latent is not scaled by the autoencoder's factor and is noised like the sheet;
the sheet's latents are (x - 0.22) 0.75 of scaled ones; its pictures span 0.5 / 0.8 of the usual range; behind everything lies grey, 0.5.
Words are the empty prompt's, plus the picture's embedding times a ramp over the 77 places. Without the picture (the unconditional
domain) the ramp is left out and a grey picture is attended to.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dreampolish.priors.folders.loading import load_autoencoder, load_schedule, load_text_encoder, load_unet, open_transformers
from dreampolish.priors.folders.source import PriorError, PriorSource, json_object
from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.protocols import SetSubject, TextEmbedding
from dreampolish.priors.sampling import guided, noisy_latents, repainted
from dreampolish.priors.text.towers import TextTower

AZIMUTHS_DEG = (30.0, 90.0, 150.0, 210.0, 270.0, 330.0)
ELEVATIONS_DEG = {"v1.1": (30.0, -20.0), "v1.2": (20.0, -10.0)}
"""In turn, by version (source: the authors' README and release notes)."""
ROWS, COLUMNS = 3, 2

LATENT_SHIFT, LATENT_SCALE, PICTURE_SCALE = 0.22, 0.75, 0.5 / 0.8
GREY = 0.5
WORDS = 77
"""Places of CLIP's text tower."""


class ReferenceMemory:
    """What self-attention layers keep of the reference picture. mode: "keep" while it passes, "use" for the sheet, else None."""

    def __init__(self) -> None:
        self.mode: str | None = None
        self.states: dict[str, Tensor] = {}


class ReferenceAttention:
    """Self-attention of one layer that also attends to what the reference picture left there."""

    def __init__(self, name: str, memory: ReferenceMemory) -> None:
        self._name, self._memory, self._plain = name, memory, AttnProcessor2_0()

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **unused: Any,
    ) -> Tensor:
        """hidden_states (B, N, D)."""
        memory = self._memory
        if memory.mode == "keep":
            memory.states[self._name] = hidden_states
        seen = torch.cat([hidden_states, memory.states[self._name]], dim=1) if memory.mode == "use" else hidden_states
        attended: Tensor = self._plain(attn, hidden_states, seen, attention_mask)
        return attended


@dataclass(frozen=True)
class PictureInput:
    """How a tower wants its pictures: pixels of a side, mean and deviation of the channels (a folder's preprocessor_config.json)."""

    size: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def of(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        """Pictures in [0, 1], resized and normalised."""
        sized = functional.interpolate(
            pictures, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False
        ).clamp(0, 1)
        mean, deviation = (pictures.new_tensor(each).view(1, 3, 1, 1) for each in (self.mean, self.deviation))
        return (sized - mean) / deviation


def load_picture_input(source: PriorSource, name: str) -> PictureInput:
    """The preprocessor of a folder, for square pictures."""
    path = source.component(name) / "preprocessor_config.json"
    found = json_object(path)
    size = found.get("crop_size") or found.get("size")
    size = next(iter(size.values()), None) if isinstance(size, dict) else size
    if not isinstance(size, int) or not {"image_mean", "image_std"} <= set(found):
        raise PriorError(f"{path} names no size, image_mean and image_std: it is damaged, fetch it again")
    return PictureInput(size, tuple(found["image_mean"]), tuple(found["image_std"]))


class Zero123PlusPrior(LatentSpace):
    """Six views on a sheet (protocols.SetPrior).

    tower: CLIP's picture tower. words: states of the empty prompt (1, L, D). ramp: (L,). elevations_deg: of the views, in turn.
    """

    background = GREY

    def __init__(
        self,
        space: LatentSpace,
        unet: Any,
        tower: Any,
        words: TextEmbedding,
        ramp: Float[Tensor, " l"],
        inputs: tuple[PictureInput, PictureInput],
        elevations_deg: tuple[float, float],
    ) -> None:
        super().__init__(space.autoencoder, space.schedule, inputs[0].size)
        self.unet, self._tower, self._words, self._ramp = unet, tower, words.states, ramp
        self._vae_input, self._tower_input = inputs
        self.own_views: tuple[tuple[float, float], ...] | None = tuple(
            (azimuth, elevations_deg[number % len(elevations_deg)]) for number, azimuth in enumerate(AZIMUTHS_DEG)
        )
        self._memory = ReferenceMemory()
        processors = {
            name: ReferenceAttention(name, self._memory) if name.endswith("attn1.processor") else AttnProcessor2_0()
            for name in unet.attn_processors
        }
        unet.set_attn_processor(processors)

    def networks(self) -> tuple[nn.Module, ...]:
        """The U-Net and the picture tower."""
        return self.unet, self._tower

    def to(self, device: torch.device | str) -> None:
        """Move everything."""
        super().to(device)
        self._words, self._ramp = self._words.to(device), self._ramp.to(device)

    @torch.no_grad()
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
        """The six own views painted over; ValueError for any other views."""
        if tuple(views) != self.own_views:
            raise ValueError(f"Zero123++ paints its own six views only, not {list(views)}")
        predict_v = self._guided_v(subject, guidance_scale, generator)
        painted = repainted(
            alphas_cumprod=self.alphas_cumprod,
            latents=self._sheet_latents(sheet_of(images)),
            predict_v=predict_v,
            strength=strength,
            steps=steps,
            renewed=renewed,
            generator=generator,
        )
        return views_of(self._sheet_picture(painted))

    def _sheet_latents(self, sheet: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 c m n"]:
        pixels = ((sheet * 2 - 1) * PICTURE_SCALE).to(self.autoencoder.dtype)
        latents = self.autoencoder.encode(pixels).latent_dist.mode().to(sheet.dtype) * self._scale
        return (latents - LATENT_SHIFT) * LATENT_SCALE

    def _sheet_picture(self, latents: Float[Tensor, "1 c m n"]) -> Float[Tensor, "1 3 h w"]:
        scaled = (latents / LATENT_SCALE + LATENT_SHIFT) / self._scale
        decoded = self.autoencoder.decode(scaled.to(self.autoencoder.dtype)).sample.to(latents.dtype)
        return (decoded / PICTURE_SCALE / 2 + 0.5).clamp(0, 1)

    def reference_latents(self, picture: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 c m n"]:
        """The latent of a picture in [0, 1] on grey, which the layers attend to; not scaled."""
        pixels = self._vae_input.of(picture).to(self.autoencoder.dtype)
        return self.autoencoder.encode(pixels).latent_dist.mode().to(picture.dtype)

    def _grey_latents(self, like: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 c m n"]:
        size = self._vae_input.size
        nothing = torch.zeros(1, 3, size, size, device=like.device, dtype=self.autoencoder.dtype)
        return self.autoencoder.encode(nothing).latent_dist.mode().to(like.dtype)

    def contexts(self, picture: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "2 l d"]:
        """Words without and with the picture's embedding."""
        pixels = self._tower_input.of(picture).to(next(self._tower.parameters()).dtype)
        embedding = self._tower(pixel_values=pixels).image_embeds.to(picture.dtype)
        return torch.cat([self._words, self._words + embedding[:, None] * self._ramp[None, :, None]])

    def _guided_v(
        self, subject: SetSubject, guidance_scale: float, generator: torch.Generator
    ) -> Callable[[Tensor, Tensor], Tensor]:
        picture = subject.picture - (1 - subject.mask) * (1 - GREY)
        references = torch.cat([self._grey_latents(picture), self.reference_latents(picture)])
        contexts = self.contexts(picture)

        def predict_v(noisy: Tensor, timesteps: Tensor) -> Tensor:
            drawn = torch.randn(references.shape, generator=generator, device=generator.device).to(references.device)
            output = self.output(noisy.expand(2, -1, -1, -1), timesteps.expand(2), references, drawn, contexts=contexts)
            v = self.v_from_output(output, noisy.expand(2, -1, -1, -1), timesteps.expand(2))
            return guided(v[1:], v[:1], guidance_scale)

        return predict_v

    def output(
        self,
        noisy: Float[Tensor, "b c m n"],
        timesteps: Int[Tensor, " b"],
        references: Float[Tensor, "b c k k"],
        noise: Float[Tensor, "b c k k"],
        *,
        contexts: Float[Tensor, "b l d"],
    ) -> Float[Tensor, "b c m n"]:
        """What the network predicts for noisy sheets beside references that get `noise` at the same timesteps."""
        words, dtype = contexts.to(self.unet.dtype), self.unet.dtype
        beside = noisy_latents(references, noise, self.alphas_cumprod, timesteps)
        try:
            self._memory.mode = "keep"
            self.unet(beside.to(dtype), timesteps, encoder_hidden_states=words)
            self._memory.mode = "use"
            found = self.unet(noisy.to(dtype), timesteps, encoder_hidden_states=words).sample
        finally:
            self._memory.mode = None
            self._memory.states.clear()
        return found.to(noisy.dtype)


def sheet_of(views: Float[Tensor, "6 c h w"]) -> Float[Tensor, "1 c y x"]:
    """Six pictures on a sheet of three rows and two columns, row by row."""
    rows = [torch.cat(list(views[row * COLUMNS : (row + 1) * COLUMNS]), dim=-1) for row in range(ROWS)]
    return torch.cat(rows, dim=-2)[None]


def views_of(sheet: Float[Tensor, "1 c y x"]) -> Float[Tensor, "6 c h w"]:
    """The inverse of `sheet_of`."""
    rows = sheet[0].chunk(ROWS, dim=-2)
    return torch.stack([view for row in rows for view in row.chunk(COLUMNS, dim=-1)])


def version_of(source: PriorSource) -> str:
    """ "v1.1" or "v1.2": what the index says under "version", else by the folder's or the model's name, else the newer one."""
    index = source.index()
    said = str(index.get("version", ""))
    if said in ELEVATIONS_DEG:
        return said
    names = f"{source.location} {index.get('_name_or_path', '')}"
    return next((version for version in ELEVATIONS_DEG if version in names), "v1.2")


def load_ramp(source: PriorSource) -> Float[Tensor, " l"]:
    """Factors of the picture's embedding, one a place of the words. PriorError where the index has none."""
    found = source.index().get("ramping_coefficients")
    if not isinstance(found, list) or len(found) != WORDS:
        raise PriorError(
            f"{source.location}/model_index.json has no `ramping_coefficients`, one for each of {WORDS} words: the index is "
            "incomplete, fetch it again"
        )
    return torch.tensor(found, dtype=torch.float32)


def load_zero123plus(source: PriorSource) -> Zero123PlusPrior:
    """Open a folder of Zero123++'s components. PriorError in one line for what cannot be opened."""
    unet, autoencoder = load_unet(source), load_autoencoder(source)
    words = TextTower(*load_text_encoder(source)).embed([""])
    inputs = load_picture_input(source, "feature_extractor_vae"), load_picture_input(source, "feature_extractor_clip")
    space = LatentSpace(autoencoder, load_schedule(source), inputs[0].size)
    return Zero123PlusPrior(
        space=space,
        unet=unet,
        tower=open_transformers(source.component("vision_encoder")),
        words=words,
        ramp=load_ramp(source),
        inputs=inputs,
        elevations_deg=ELEVATIONS_DEG[version_of(source)],
    )
