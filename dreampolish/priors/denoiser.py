"""How a text-conditioned U-Net is asked, whatever number format it computes in."""

from diffusers import UNet2DConditionModel
from torch import Tensor

from dreampolish.priors.protocols import TextEmbedding


def unet_output(unet: UNet2DConditionModel, noisy: Tensor, timesteps: Tensor, text: TextEmbedding) -> Tensor:
    """What the U-Net predicts under a text, in the latents' number format; padding is masked unless every token counts."""
    mask = None if bool(text.mask.all()) else text.mask
    states = text.states.to(unet.dtype)
    output = unet(noisy.to(unet.dtype), timesteps, encoder_hidden_states=states, encoder_attention_mask=mask).sample
    return output.to(noisy.dtype)
