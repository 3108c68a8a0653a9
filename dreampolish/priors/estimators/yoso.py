"""The normal prior of one step: StableNormal's first part, YOSO, in the layout of its repositories (arXiv:2406.16864).

A control network sees the picture's latent, the U-Net gives the normal map's latent at timestep 0 at once. Two generations (source: the
authors' pipelines and hubconf.py): the first ("yoso-normal-v0") starts from noise under the index's prompt; the second
("yoso-normal-v1"), which has no text tower, starts from the picture's latent under a context of zeros. Their second part, which refines in
ten steps with features of DINO, is not opened.
"""

from typing import Any

import torch
from diffusers import ControlNetModel
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from dreampolish.priors.estimators.regressor import signs_of_axes
from dreampolish.priors.folders.architectures import DIFFUSERS_BASE, refuse_other_tensors
from dreampolish.priors.folders.loading import load_autoencoder, load_text_encoder, load_unet
from dreampolish.priors.folders.source import PriorError, PriorSource, json_object
from dreampolish.priors.folders.weights import Tensors, tensors_of
from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.sampling import NoiseSchedule
from dreampolish.priors.text.towers import TextTower

CLASS = "YOSONormalsPipeline"
"""What the folders name in model_index.json."""
CONTROLS = ("ControlNetVAEModel", "ControlNetModel")
"""Classes that the control network's config may name: diffusers' network without the part that sees a picture of pixels."""
UNUSED = "controlnet_cond_embedding"
ZERO_TOKENS, TIMESTEP = 257, 0
NO_SCHEDULE = NoiseSchedule(torch.ones(1), "sample")
"""Of a prior that draws in one step."""
USUAL_SIDE = 768
"""Pixels of a side where the index says nothing (source: the pipeline's default)."""


class NoPicture(nn.Module):
    """In the place of the part that sees a picture of pixels: it adds nothing."""

    def forward(self, picture: Tensor) -> Tensor:
        """Zero."""
        return picture.new_zeros(())


class OneStepNormalPrior(LatentSpace):
    """A U-Net under a control network (protocols.NormalPrior). context: the text's states, or zeros (1, L, D). from_picture: whether the
    U-Net starts from the picture's latent, else from noise. axes: where its x, y and z point."""

    def __init__(
        self,
        space: LatentSpace,
        unet: Any,
        control: Any,
        context: Float[Tensor, "1 l d"],
        axes: str,
        *,
        from_picture: bool,
    ) -> None:
        super().__init__(space.autoencoder, space.schedule, space.image_size)
        self.unet, self.control, self._context = unet, control, context
        self._signs, self._from_picture = signs_of_axes(axes), from_picture

    def networks(self) -> tuple[nn.Module, ...]:
        """U-Net and control network."""
        return self.unet, self.control

    def to(self, device: torch.device | str) -> None:
        """Move everything."""
        super().to(device)
        self._context, self._signs = self._context.to(device), self._signs.to(device)

    @torch.no_grad()
    def estimate(self, images: Float[Tensor, "b 3 h w"], steps: int, generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
        """Unit normals in the camera frame (X right, Y up, Z to the viewer) at the pictures' size; no gradient. steps: unused, there is
        one."""
        pictures = self.encode(images)
        start = pictures if self._from_picture else self.draw_noise(len(images), generator)
        latents = self.by_rows(len(images), lambda rows: self.output(start[rows], pictures[rows]))
        found = self.by_rows(len(images), lambda rows: self._decoded(latents[rows])) * self._signs
        found = functional.normalize(found, dim=1, eps=1e-6)
        if found.shape[-2:] != images.shape[-2:]:
            found = functional.interpolate(found, images.shape[-2:], mode="bilinear", align_corners=False)
        return functional.normalize(found, dim=1, eps=1e-6)

    def output(self, start: Float[Tensor, "b c m n"], pictures: Float[Tensor, "b c m n"]) -> Float[Tensor, "b c m n"]:
        """The normal map's latents."""
        dtype = self.unet.dtype
        context = self._context.to(dtype).expand(len(start), -1, -1)
        down, middle = self.control(
            pictures.to(dtype), TIMESTEP, encoder_hidden_states=context, controlnet_cond=pictures.to(dtype), return_dict=False
        )
        found: Tensor = self.unet(
            start.to(dtype),
            TIMESTEP,
            encoder_hidden_states=context,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        return found.to(start.dtype)

    def _decoded(self, latents: Float[Tensor, "b c m n"]) -> Float[Tensor, "b 3 h w"]:
        """Of any length: directions count."""
        found: Tensor = self.autoencoder.decode((latents / self._scale).to(self.autoencoder.dtype)).sample
        return found.to(latents.dtype)


def checked_control(source: PriorSource) -> tuple[dict[str, Any], Tensors]:
    """(config, headers) of the control network. PriorError, by name, where a tensor is missing, unexpected or of another shape; the part
    that sees pixels may be there and is not used."""
    folder = source.component("controlnet")
    config = json_object(folder / "config.json")
    name = str(config.get("_class_name", CONTROLS[0]))
    if name not in CONTROLS:
        raise PriorError(f"{folder}/config.json names the class {name}: only {', '.join(CONTROLS)} can be opened here")
    found = tensors_of(folder, DIFFUSERS_BASE)
    network = laid_out_control(config, folder)
    expected = {each: tuple(value.shape) for each, value in network.state_dict().items()}
    used = {each: shape for each, shape in found.shapes.items() if not each.startswith(f"{UNUSED}.")}
    refuse_other_tensors(folder, expected, used)
    return config, found


def laid_out_control(config: dict[str, Any], folder: Any) -> Any:
    """The control network on `meta`. PriorError where its config describes none."""
    try:
        with torch.device("meta"):
            network: Any = ControlNetModel.from_config({**config, "_class_name": "ControlNetModel"})
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise PriorError(f"{folder}/config.json describes no network: {str(error).splitlines()[0]}") from None
    network.controlnet_cond_embedding = NoPicture()
    return network.eval().requires_grad_(requires_grad=False)


def load_control(source: PriorSource) -> Any:
    """The control network. PriorError as `checked_control`."""
    config, found = checked_control(source)
    state = {name: tensor.float() for path in found.files for name, tensor in load_file(path).items()}
    network = laid_out_control(config, source.component("controlnet"))
    used = {name: tensor for name, tensor in state.items() if not name.startswith(f"{UNUSED}.")}
    network.load_state_dict(used, assign=True)
    return network.eval().requires_grad_(requires_grad=False)


def is_one_step(source: PriorSource) -> bool:
    """Whether a folder holds such a prior."""
    return source.index().get("_class_name") == CLASS


def side_of(source: PriorSource) -> int:
    """Pixels of a side that it works at."""
    return int(source.index().get("default_processing_resolution") or USUAL_SIDE)


def load_one_step(source: PriorSource, axes: str) -> OneStepNormalPrior:
    """Open a folder of StableNormal's one-step part. PriorError in one line where it is damaged or another model's."""
    autoencoder, unet, control = load_autoencoder(source), load_unet(source), load_control(source)
    has_words = source.has("text_encoder")
    if has_words:
        tower = TextTower(*load_text_encoder(source))
        context = tower.embed([str(source.index().get("prompt") or "")]).states
    else:
        context = torch.zeros(1, ZERO_TOKENS, int(unet.config.cross_attention_dim))
    space = LatentSpace(autoencoder, NO_SCHEDULE, side_of(source))
    return OneStepNormalPrior(space, unet, control, context, axes=axes, from_picture=not has_words)
