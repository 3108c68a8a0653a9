"""The joint view prior: six views of one object denoised together, from a clean reference, from words, or from both.

Notation: B sets of V views; slot 0 is the reference where one is given, azimuths are then relative to it (as in the view prior), else
they are the object's own, 0 the front. Elevations are absolute; a reference's is about 10 degrees unless known. FOV 20.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dreampolish.priors.multiview.network import MultiviewNetwork, SetCondition
from dreampolish.priors.sampling import Predictor, Renewal, guided, sample_ddim

SET_AZIMUTH_DEG = (0.0, 90.0, 180.0, 270.0, 45.0, 225.0)
SET_ELEVATION_DEG = (10.0, 10.0, 10.0, 10.0, 40.0, 40.0)
"""The usual set: front, left, back, right, and two raised views."""


@runtime_checkable
class PictureSpace(Protocol):
    """What is needed of an autoencoder with a schedule (priors.latents.LatentSpace, training.codec.PatchCodec)."""

    alphas_cumprod: Float[Tensor, " t"]

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c m n"]:
        """Latents of pictures in [0, 1]."""
        ...

    def decode(self, latents: Float[Tensor, "b c m n"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures of latents, in [0, 1]."""
        ...


@dataclass(frozen=True)
class SetRequest:
    """Sets to draw: azimuth_deg, elevation_deg (B, V); reference (B, 3, H, W), which takes slot 0, or None; text (B, L, D) with mask
    (B, L), and the empty prompt's (1, L, D), (1, L)."""

    azimuth_deg: Float[Tensor, "b v"]
    elevation_deg: Float[Tensor, "b v"]
    reference: Float[Tensor, "b 3 h w"] | None
    text: Float[Tensor, "b l d"]
    mask: Tensor
    empty_text: Float[Tensor, "1 l d"]
    empty_mask: Tensor


class MultiviewPrior:
    """A multiview network in a picture space."""

    def __init__(self, space: PictureSpace, network: MultiviewNetwork) -> None:
        self.space, self.network = space, network
        self.alphas_cumprod = space.alphas_cumprod

    @torch.no_grad()
    def predict_v(
        self, latents: Float[Tensor, "b v c m n"], timesteps: Tensor, told: SetCondition
    ) -> Float[Tensor, "b v c m n"]:
        """v of every view; timesteps (B, V). No gradient."""
        return self.network(latents, timesteps, told).to(latents.dtype)

    @torch.no_grad()
    def sample(
        self, request: SetRequest, guidance_scale: float, steps: int, renewed: float, generator: torch.Generator
    ) -> Float[Tensor, "b v 3 h w"]:
        """Pictures by DDIM of eta `renewed`; with a reference, slot 0 is the reference itself, encoded and decoded.

        Guidance pushes away from no condition at all: no reference (if one is given) and no text.
        """
        views, first = request.azimuth_deg.shape[1], 0 if request.reference is None else 1
        sets, shape = len(request.azimuth_deg), self.network.shape
        given = None if request.reference is None else self.space.encode(request.reference)[:, None]
        device = request.azimuth_deg.device

        def fresh() -> Tensor:
            size = (sets * (views - first), shape.latent_channels, shape.latent_size, shape.latent_size)
            return torch.randn(size, generator=generator, device=generator.device).to(device)

        drawn = sample_ddim(
            self._predictor(request, given, guidance_scale),
            noise=fresh(),
            alphas_cumprod=self.alphas_cumprod,
            steps=steps,
            renewal=Renewal(renewed, fresh),
        ).unflatten(0, (sets, -1))
        whole = drawn if given is None else torch.cat([given, drawn], dim=1)
        return self.space.decode(whole.flatten(0, 1)).unflatten(0, (sets, views))

    def _predictor(self, request: SetRequest, given: Tensor | None, guidance_scale: float) -> Predictor:
        """v of the noisy views of all sets, flattened, under guidance."""
        sets, first = len(request.azimuth_deg), 0 if given is None else 1
        slots = torch.zeros_like(request.azimuth_deg)
        slots[:, :first] = 1
        none = torch.zeros_like(slots)
        empty = (request.empty_text.expand(sets, -1, -1), request.empty_mask.expand(sets, -1))
        poses = (request.azimuth_deg, request.elevation_deg)
        with_all = SetCondition(slots, none, *poses, text=request.text, mask=request.mask)
        with_none = SetCondition(none, slots, *poses, *empty)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            latents, times = noisy.unflatten(0, (sets, -1)), timesteps.view(sets, -1)
            if first:
                times = torch.cat([torch.zeros_like(times[:, :1]), times], dim=1)
            outputs = []
            for told, start in ((with_all, given), (with_none, None if given is None else torch.zeros_like(given))):
                joined = latents if start is None else torch.cat([start, latents], dim=1)
                outputs.append(self.predict_v(joined, times, told)[:, first:].flatten(0, 1))
                if guidance_scale == 1:
                    return outputs[0]
            return guided(outputs[0], outputs[1], guidance_scale)

        return predict
