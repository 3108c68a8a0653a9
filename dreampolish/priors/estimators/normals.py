"""The normal prior: surface normals of a picture by latent diffusion (protocols.NormalPrior), in Marigold's structure.

The U-Net sees the picture's latent beside the noisy latent of the normal map (2 C input channels) under an empty text; a normal n is
stored as the picture (n + 1) / 2 (source: Marigold, arXiv:2312.02145; its order, image first, is kept). In the embedded prior the
background of a normal picture is white, as that of every picture here.

Marigold's own folders differ in four things (source: diffusers' MarigoldNormalsPipeline): the empty text has two tokens, not the tower's
77; the folder's scheduler, DDIM or LCM, takes the steps; `use_full_z_range: false` means that Z was stored as 2 Z - 1; and several
estimates of one picture are joined by taking, at every pixel, the one closest to their mean.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, LCMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from dreampolish.priors.folders.loading import load_autoencoder, load_schedule, load_text_encoder, load_unet, unet_output
from dreampolish.priors.folders.source import PriorError, PriorSource, json_object
from dreampolish.priors.latents import LatentSpace, pixels_per_latent
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.priors.sampling import sample_ddim
from dreampolish.priors.text.towers import TextTower


@dataclass(frozen=True)
class NormalConventions:
    """How a folder's network was trained and is sampled.

    scheduler: of diffusers, which takes the steps; None: DDIM over trailing timesteps, ending at the predicted latent.
    full_z_range: whether Z was stored as it is, in [-1, 1]; else as 2 Z - 1, so that only normals towards the viewer exist.
    """

    scheduler: DDIMScheduler | LCMScheduler | None
    full_z_range: bool


EMBEDDED = NormalConventions(scheduler=None, full_z_range=True)


class DiffusionNormalPrior(LatentSpace):
    """A U-Net that paints normal maps. ensemble: estimates of a picture that are joined to one."""

    def __init__(
        self,
        space: LatentSpace,
        unet: UNet2DConditionModel,
        empty_text: TextEmbedding,
        conventions: NormalConventions = EMBEDDED,
        ensemble: int = 1,
    ) -> None:
        super().__init__(space.autoencoder, space.schedule, space.image_size)
        self.unet, self._empty_text = unet, empty_text
        self._conventions, self._ensemble = conventions, ensemble

    def networks(self) -> tuple[nn.Module, ...]:
        """The U-Net."""
        return (self.unet,)

    def to(self, device: torch.device | str) -> None:
        """Move autoencoder, network and the empty text."""
        super().to(device)
        self._empty_text = TextEmbedding(self._empty_text.states.to(device), self._empty_text.mask.to(device))

    @torch.no_grad()
    def estimate(self, images: Float[Tensor, "b 3 h w"], steps: int, generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
        """Unit normals in the camera frame (X right, Y up, Z to the viewer) at the pictures' size; no gradient.

        On a white background the normals mean nothing. steps: sampling steps; few suffice, since a picture leaves little choice.
        """
        latents = self.encode(images).repeat_interleave(self._ensemble, dim=0)
        text = self._empty_text.expand(len(latents))

        def output(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return self.by_rows(
                len(noisy),
                lambda rows: normals_output(
                    unet=self.unet,
                    noisy=noisy[rows],
                    timesteps=timesteps[rows],
                    image_latents=latents[rows],
                    text=text.rows(rows),
                ),
            )

        noise = self.draw_noise(len(latents), generator)
        pictures = self.decode(self._sampled(output, noise, steps, generator))
        if not self._conventions.full_z_range:
            pictures = torch.cat([pictures[:, :2], (pictures[:, 2:] + 1) / 2], dim=1)
        if self._ensemble > 1:
            found = normals_from_pictures(pictures).unflatten(0, (-1, self._ensemble))
            pictures = (closest_to_mean(found) + 1) / 2
        if pictures.shape[-2:] != images.shape[-2:]:
            pictures = functional.interpolate(pictures, images.shape[-2:], mode="bilinear", align_corners=False)
        return normals_from_pictures(pictures)

    def _sampled(
        self,
        output: Callable[[Tensor, Tensor], Tensor],
        noise: Float[Tensor, "b c m n"],
        steps: int,
        generator: torch.Generator,
    ) -> Float[Tensor, "b c m n"]:
        """Latents out of noise, by the folder's scheduler where it has a say."""
        scheduler = self._conventions.scheduler
        if scheduler is None:

            def predict_v(noisy: Tensor, timesteps: Tensor) -> Tensor:
                return self.v_from_output(output(noisy, timesteps), noisy, timesteps)

            return sample_ddim(predict_v=predict_v, noise=noise, alphas_cumprod=self.alphas_cumprod, steps=steps, renewal=None)
        scheduler.set_timesteps(steps, device=noise.device)
        latents = noise
        for timestep in scheduler.timesteps:
            predicted = output(latents, timestep.expand(len(latents)))
            latents = scheduler.step(predicted, timestep, latents, generator=generator).prev_sample
        return latents


def closest_to_mean(normals: Float[Tensor, "b e 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """At every pixel, of e unit normals the one with the largest cosine to their mean (source: MarigoldNormalsPipeline, "closest")."""
    mean = functional.normalize(normals.mean(dim=1, keepdim=True), dim=2, eps=1e-6)
    chosen = (mean * normals).sum(dim=2, keepdim=True).argmax(dim=1, keepdim=True)
    return torch.take_along_dim(normals, chosen, dim=1)[:, 0]


def pictures_from_normals(normals: Float[Tensor, "b 3 h w"], mask: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Normals as pictures (n + 1) / 2 on white."""
    return (normals + 1) / 2 * mask + (1 - mask)


def normals_from_pictures(pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Unit normals 2 p - 1; a grey pixel, which has no direction, faces the viewer."""
    raw = pictures * 2 - 1
    length = raw.norm(dim=1, keepdim=True)
    towards_viewer = raw.new_tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    return torch.where(length > 1e-3, raw / length.clamp_min(1e-3), towards_viewer)


def normals_output(
    unet: UNet2DConditionModel,
    noisy: Float[Tensor, "b c m n"],
    timesteps: Int[Tensor, " b"],
    image_latents: Float[Tensor, "b c m n"],
    text: TextEmbedding,
) -> Tensor:
    """What the U-Net predicts for noisy normal latents."""
    return unet_output(unet, torch.cat([image_latents, noisy], dim=1), timesteps, text)


MARIGOLD = "MarigoldNormalsPipeline"
"""The class that Marigold's folders name in model_index.json."""


def load_normal_prior(source: PriorSource, ensemble: int = 1) -> DiffusionNormalPrior:
    """Open a normal prior: the embedded one, or a Marigold normals folder. ensemble: estimates of a picture joined to one."""
    autoencoder, unet = load_autoencoder(source), load_unet(source)
    size, tower = int(unet.config.sample_size) * pixels_per_latent(autoencoder), TextTower(*load_text_encoder(source))
    index = source.index()
    if index.get("_class_name") != MARIGOLD:
        space = LatentSpace(autoencoder, load_schedule(source), size)
        return DiffusionNormalPrior(space, unet, tower.embed([""]), ensemble=ensemble)
    size = int(index.get("default_processing_resolution") or size)
    space = LatentSpace(autoencoder, load_schedule(source), size)
    conventions = NormalConventions(_own_scheduler(source), full_z_range=index.get("use_full_z_range") is not False)
    return DiffusionNormalPrior(space, unet, empty_text=tower.embed_unpadded([""]), conventions=conventions, ensemble=ensemble)


def _own_scheduler(source: PriorSource) -> DDIMScheduler | LCMScheduler:
    """The scheduler that the folder was made for. PriorError for another class."""
    folder = source.component("scheduler")
    name = json_object(folder / "scheduler_config.json").get("_class_name")
    kinds: dict[Any, Any] = {"DDIMScheduler": DDIMScheduler, "LCMScheduler": LCMScheduler}
    if name not in kinds:
        raise PriorError(f"{folder} names the scheduler {name}: Marigold's are DDIMScheduler and LCMScheduler")
    return kinds[name].from_pretrained(folder, local_files_only=True)
