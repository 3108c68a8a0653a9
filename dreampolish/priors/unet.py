"""How a text-conditioned U-Net is asked, whatever number format it computes in."""

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional

from dreampolish.priors.protocols import TextEmbedding


def unet_output(unet: UNet2DConditionModel, noisy: Tensor, timesteps: Tensor, text: TextEmbedding) -> Tensor:
    """What the U-Net predicts under a text, in the latents' number format; padding is masked unless every token counts."""
    mask = None if bool(text.mask.all()) else text.mask
    states = text.states.to(unet.dtype)
    output = unet(noisy.to(unet.dtype), timesteps, encoder_hidden_states=states, encoder_attention_mask=mask).sample
    return output.to(noisy.dtype)


class Float32Attention:
    """A diffusers attention processor that attends in float32, whatever the autocast; the same function as diffusers' own."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **unused: Any,
    ) -> Tensor:
        """Attend from hidden_states (B, N, D) to itself or to encoder_hidden_states; attention_mask: (B, 1, L) additive."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        queries, keys, values = attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)
        batch, length, width = queries.shape

        def heads(states: Tensor) -> Tensor:
            return states.view(batch, -1, attn.heads, width // attn.heads).transpose(1, 2).float()

        mask = None if attention_mask is None else attention_mask[:, None].float()
        with torch.autocast(hidden_states.device.type, enabled=False):
            attended = functional.scaled_dot_product_attention(heads(queries), heads(keys), heads(values), attn_mask=mask)
        joined = attended.transpose(1, 2).reshape(batch, length, width).to(queries.dtype)
        return attn.to_out[1](attn.to_out[0](joined))
