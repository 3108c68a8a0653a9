"""The normal prior: surface normals of a picture by latent diffusion (protocols.NormalPrior), in Marigold's structure.

The U-Net sees the picture's latent beside the noisy latent of the normal map (2 C input channels) under an empty text; a normal n is
stored as the picture (n + 1) / 2 (source: Marigold, arXiv:2312.02145; its order, image first, is kept). In the embedded prior the
background of a normal picture is white, as that of every picture here.
"""

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.loading import PriorSource, load_autoencoder, load_schedule, load_text_encoder, load_unet, unet_output
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.priors.sampling import sample_ddim
from dreampolish.priors.text import TextTower


class DiffusionNormalPrior(LatentSpace):
    """A U-Net that paints normal maps."""

    def __init__(self, space: LatentSpace, unet: UNet2DConditionModel, empty_text: TextEmbedding) -> None:
        super().__init__(space.autoencoder, space.schedule, space.image_size)
        self.unet, self._empty_text = unet, empty_text

    def to(self, device: torch.device | str) -> None:
        """Move autoencoder, network and the empty text."""
        super().to(device)
        self.unet.to(device)
        self._empty_text = TextEmbedding(self._empty_text.states.to(device), self._empty_text.mask.to(device))

    @torch.no_grad()
    def estimate(self, images: Float[Tensor, "b 3 h w"], steps: int, generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
        """Unit normals in the camera frame (X right, Y up, Z to the viewer) at the pictures' size; no gradient.

        On a white background the normals mean nothing. steps: DDIM steps; few suffice, since a picture leaves little choice.
        """
        latents = self.encode(images)
        text = self._empty_text.expand(len(images))

        def predict_v(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return self.v_from_output(
                normals_output(unet=self.unet, noisy=noisy, timesteps=timesteps, image_latents=latents, text=text),
                noisy,
                timesteps,
            )

        noise = self.draw_noise(len(images), generator)
        pictures = self.decode(
            sample_ddim(predict_v=predict_v, noise=noise, alphas_cumprod=self.alphas_cumprod, steps=steps, renewal=None)
        )
        if pictures.shape[-2:] != images.shape[-2:]:
            pictures = functional.interpolate(pictures, images.shape[-2:], mode="bilinear", align_corners=False)
        return normals_from_pictures(pictures)


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


def load_normal_prior(source: PriorSource) -> DiffusionNormalPrior:
    """Open a normal prior: the embedded one, or the components of a Marigold normals folder or repository."""
    autoencoder, unet = load_autoencoder(source), load_unet(source)
    shrink = autoencoder.config.patch_size if "patch_size" in autoencoder.config else 8
    space = LatentSpace(autoencoder, load_schedule(source), int(unet.config.sample_size) * shrink)
    return DiffusionNormalPrior(space, unet, TextTower(*load_text_encoder(source)).embed([""]))
