"""ImageDream (arXiv:2312.02201): four views denoised together beside the reference picture, which is a fifth view without a camera."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreampolish.priors.folders.loading import load_autoencoder, load_schedule, load_text_encoder, open_transformers
from dreampolish.priors.folders.source import PriorError, PriorSource
from dreampolish.priors.latents import LatentSpace, pixels_per_latent
from dreampolish.priors.multiview.imagedream_network import MultiviewUnet, load_multiview_unet
from dreampolish.priors.multiview.zero123plus import PictureInput, load_picture_input
from dreampolish.priors.protocols import SetSubject
from dreampolish.priors.sampling import guided, repainted
from dreampolish.priors.text.towers import PromptEmbedder, TextTower
from dreampolish.scene.cameras import orbit_cameras

TOGETHER = 4
"""Views that the network denoises together."""
WHITE = 1.0


class ImageDreamPrior(LatentSpace):
    """Sets of four views (protocols.SetPrior). picture_tower: CLIP's, whose states before the last layer are read."""

    background = WHITE
    own_views: tuple[tuple[float, float], ...] | None = None

    def __init__(
        self, space: LatentSpace, network: MultiviewUnet, words: PromptEmbedder, picture_tower: Any, picture_input: PictureInput
    ) -> None:
        super().__init__(space.autoencoder, space.schedule, space.image_size)
        self.network, self._words, self._tower, self._input = network, words, picture_tower, picture_input

    def networks(self) -> tuple[nn.Module, ...]:
        """The U-Net and the picture tower."""
        return self.network, self._tower

    def to(self, device: torch.device | str) -> None:
        """Move everything."""
        super().to(device)
        self._words.to(device)

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
        """Views painted over in sets of four that lie far from each other; where n is no multiple of four, first views fill the last set
        and are painted twice."""
        rows = rows_of_sets(len(images)).to(images.device)
        cameras = camera_numbers(views).to(images.device)
        latents = self.encode(images)[rows.flatten()]
        predict_v = self._guided_v(subject, cameras[rows], guidance_scale)
        painted = self.decode(
            repainted(
                alphas_cumprod=self.alphas_cumprod,
                latents=latents,
                predict_v=predict_v,
                strength=strength,
                steps=steps,
                renewed=renewed,
                generator=generator,
            )
        )
        result = torch.empty_like(painted[: len(images)])
        order = rows.flatten().flip(0)  # so that a view's first place counts
        result[order] = painted.flip(0)
        return result

    def _guided_v(
        self, subject: SetSubject, cameras: Float[Tensor, "s 4 16"], guidance_scale: float
    ) -> Callable[[Tensor, Tensor], Tensor]:
        words = self._words.embed([subject.prompt, ""]).states
        seen = self.picture_states(subject.picture)
        latent = self.encode(subject.picture)

        def predict_v(noisy: Tensor, timesteps: Tensor) -> Tensor:
            outputs = []
            for row, factor in ((0, 1.0), (1, 0.0)):  # without the picture: zeros in its places
                output = self.output(
                    noisy=noisy,
                    timesteps=timesteps,
                    words=words[row : row + 1],
                    picture=seen * factor,
                    latent=latent * factor,
                    cameras=cameras,
                )
                outputs.append(self.v_from_output(output, noisy, timesteps))
            return guided(outputs[0], outputs[1], guidance_scale)

        return predict_v

    def picture_states(self, picture: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 t e"]:
        """The picture tower's states before its last layer."""
        pixels = self._input.of(picture).to(next(self._tower.parameters()).dtype)
        states: Tensor = self._tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
        return states.to(picture.dtype)

    def output(
        self,
        noisy: Float[Tensor, "b c m n"],
        timesteps: Int[Tensor, " b"],
        words: Float[Tensor, "1 l d"],
        picture: Float[Tensor, "1 t e"],
        latent: Float[Tensor, "1 c m n"],
        cameras: Float[Tensor, "s 4 16"],
    ) -> Float[Tensor, "b c m n"]:
        """What the network predicts for b = 4 s views; the picture's latent goes along as each set's fifth view."""
        n_sets = len(cameras)
        sets = torch.cat([noisy.unflatten(0, (n_sets, TOGETHER)), torch.stack([latent] * n_sets)], dim=1)
        told = torch.cat([cameras, torch.zeros_like(cameras[:, :1])], dim=1)

        def painted(rows: slice) -> Tensor:
            n = told[rows].shape[:2].numel()
            found: Tensor = self.network(
                noisy=sets[rows].flatten(0, 1),
                timesteps=timesteps[:1].expand(n),
                words=words.expand(n, -1, -1),
                picture=picture.expand(n, -1, -1),
                cameras=told[rows].flatten(0, 1),
                n_views=TOGETHER + 1,
            )
            return found.unflatten(0, (-1, TOGETHER + 1))[:, :TOGETHER]

        return self.by_rows(n_sets, painted, pictures_a_row=TOGETHER).flatten(0, 1)


def rows_of_sets(n: int) -> Int[Tensor, "s 4"]:
    """Which of n views each set paints: views of a set lie as far from each other as they can in the order given."""
    n_sets = -(-n // TOGETHER)
    return (torch.arange(n_sets)[:, None] + n_sets * torch.arange(TOGETHER)) % n


def camera_numbers(views: Sequence[tuple[float, float]]) -> Float[Tensor, "n 16"]:
    """Camera-to-world matrices as the network was taught them: z up, the front seen from -y, at distance 1, row by row (source:
    MVDream's camera_utils; in our frame the front is seen from +x)."""
    azimuth, elevation = (torch.tensor([view[axis] for view in views]) for axis in (0, 1))
    pose = orbit_cameras(azimuth, elevation, torch.full_like(azimuth, 20.0), 2).world_from_camera.clone()
    turn = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    pose[:, :3] = turn @ pose[:, :3]
    pose[:, :3, 3] = torch.nn.functional.normalize(pose[:, :3, 3], dim=-1)
    return pose.flatten(1)


def load_imagedream(source: PriorSource) -> ImageDreamPrior:
    """Open a folder of ImageDream's components. PriorError in one line for what cannot be opened."""
    if not source.has("image_encoder"):
        raise PriorError(f"{source.location} has no image_encoder: it is MVDream's, which sees words only; take ImageDream's")
    tower = open_transformers(source.component("image_encoder"))
    network = load_multiview_unet(source, int(tower.config.hidden_size))
    autoencoder = load_autoencoder(source)
    size = int(network.unet.config.sample_size) * pixels_per_latent(autoencoder)
    return ImageDreamPrior(
        space=LatentSpace(autoencoder, load_schedule(source), size),
        network=network,
        words=TextTower(*load_text_encoder(source)),
        picture_tower=tower,
        picture_input=load_picture_input(source, "feature_extractor"),
    )
