"""Opening the components of a prior's folder (folders/source.py says where they lie), and asking its U-Net.

Weights are read from safetensors only, and a component opens only if its tensors are those that its config names.
"""

import math
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, DDIMScheduler, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoTokenizer

from dreampolish.priors.autoencoder import PatchAutoencoder
from dreampolish.priors.folders.architectures import checked_diffusers, checked_transformers
from dreampolish.priors.folders.families import TRANSFORMERS, refuse_other_scheduler
from dreampolish.priors.folders.source import PriorError, PriorSource, json_object, referenced_folder
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.priors.sampling import NoiseSchedule, alphas_cumprod_of_flow


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


AnyModule = TypeVar("AnyModule", bound=nn.Module)

AUTOENCODERS = ("AutoencoderKL", "PatchAutoencoder")


HALVES = {frozenset({"F16"}): torch.float16, frozenset({"BF16"}): torch.bfloat16}
"""Number formats that are kept where a network is opened as it is stored, by the kinds of its tensors."""


def _frozen(module: AnyModule, dtype: torch.dtype = torch.float32) -> AnyModule:
    """Evaluation mode, no gradients of parameters."""
    return module.to(dtype).eval().requires_grad_(False)


def open_diffusers(folder: Path, known: tuple[str, ...], *, as_stored: bool = False) -> Any:
    """A frozen network of diffusers out of a component's folder. PriorError unless its tensors are those that its config names.

    as_stored: halves stay halves; otherwise everything is opened as float32.
    """
    kind, _, found = checked_diffusers(folder, known)
    dtype = HALVES.get(found.kinds, torch.float32) if as_stored else torch.float32
    network, told = kind.from_pretrained(
        folder,
        use_safetensors=True,
        low_cpu_mem_usage=False,
        local_files_only=True,
        variant=found.variant,
        torch_dtype=dtype,
        output_loading_info=True,
    )
    return _frozen(_wholly_loaded(network, told, folder), dtype)


def open_transformers(folder: Path, family: Any = None, *, as_stored: bool = False) -> Any:
    """A frozen network of transformers out of a component's folder. PriorError unless its tensors are those that its config names.

    family: an Auto class that chooses the network; None: an encoder. as_stored: as for `open_diffusers`.
    """
    kind, _, found = checked_transformers(folder, family)
    dtype = HALVES.get(found.kinds, torch.float32) if as_stored else torch.float32
    try:
        network, told = kind.from_pretrained(
            folder, use_safetensors=True, local_files_only=True, variant=found.variant, dtype=dtype, output_loading_info=True
        )
    except (RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise PriorError(f"{folder} holds other tensors than its config says ({said}): fetch it again") from None
    return _frozen(_wholly_loaded(network, told, folder), dtype)


def _wholly_loaded(network: AnyModule, told: dict[str, Any], folder: Path) -> AnyModule:
    """The network, unless the library says that it made up a tensor."""
    made_up = sorted(map(str, [*told.get("missing_keys", ()), *told.get("mismatched_keys", ())]))
    if made_up:
        raise PriorError(f"{folder} lacks {', '.join(made_up[:3])} ({len(made_up)} tensors in all): fetch it again")
    unused = sorted(str(name) for name in told.get("unexpected_keys", ()) if not str(name).endswith("position_ids"))
    if unused:
        raise PriorError(f"{folder} holds {', '.join(unused[:3])}, which its config does not know: fetch it again")
    return network


def load_autoencoder(source: PriorSource) -> PatchAutoencoder | AutoencoderKL:
    """The latent space: `vae`, of the class that its config names."""
    return open_diffusers(source.component("vae"), AUTOENCODERS)


def load_autoencoder_folder(folder: Path) -> PatchAutoencoder | AutoencoderKL:
    """The autoencoder that a folder holds itself; PriorError where there is none."""
    if not folder.is_dir():
        raise PriorError(f"no autoencoder at {folder.absolute()}: train it first with `dreampolish priors train autoencoder`")
    return open_diffusers(folder, AUTOENCODERS)


def load_unet(source: PriorSource) -> UNet2DConditionModel:
    """The score network."""
    return open_diffusers(source.component("unet"), ("UNet2DConditionModel",))


def load_transformer(source: PriorSource) -> Any:
    """The score network of rectified flow, in the number format it is stored in: billions of numbers as float32 would fill a machine."""
    return open_diffusers(source.component("transformer"), tuple(TRANSFORMERS), as_stored=True)


def flow_schedule(source: PriorSource, n_tokens: int) -> NoiseSchedule:
    """The schedule of rectified flow, for pictures of n_tokens tokens; timestep t of T is the noise share (t + 1) / T, shifted.

    A share s becomes k s / (1 + (k - 1) s); k is the scheduler's `shift`, or, where it depends on the picture's size, e to the power of a
    line through its two given sizes (source: arXiv:2403.03206, Eq. 23; diffusers' FluxPipeline). PriorError for another scheduler.
    """
    folder = source.component("scheduler")
    config = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, local_files_only=True).config
    refuse_other_scheduler(folder)
    shift = float(config.shift)
    if config.use_dynamic_shifting:
        slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
        shift = math.exp(config.base_shift + slope * (n_tokens - config.base_image_seq_len))
    n = int(config.num_train_timesteps)
    shares = torch.arange(1, n + 1, dtype=torch.float64) / n
    shares = shift * shares / (1 + (shift - 1) * shares)
    return NoiseSchedule(alphas_cumprod_of_flow(shares).float(), "flow")


def load_schedule(source: PriorSource) -> NoiseSchedule:
    """The noise schedule of the `scheduler` component; PriorError for a prediction type other than epsilon and v."""
    folder = source.component("scheduler")
    scheduler = DDIMScheduler.from_pretrained(folder, local_files_only=True)
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise PriorError(f"{folder} predicts '{kind}': only epsilon and v_prediction are known")
    return NoiseSchedule(scheduler.alphas_cumprod.float(), kind)


def load_text_encoder(source: PriorSource, which: str = "") -> tuple[Any, nn.Module]:
    """Tokenizer and encoder; a CLIP text tower or any encoder whose last hidden state has one row a token.

    which: "_2" or "_3" for a prior's second or third one; T5 is opened in the number format it is stored in.
    """
    tokenizer = AutoTokenizer.from_pretrained(source.component(f"tokenizer{which}"), local_files_only=True)
    folder = source.component(f"text_encoder{which}")
    is_t5 = json_object(folder / "config.json").get("model_type") == "t5"
    return tokenizer, open_transformers(folder, as_stored=is_t5)


def load_packaged_text_encoder(reference: str) -> tuple[Any, nn.Module]:
    """Tokenizer and encoder of a "package:NAME/sub/folder" reference."""
    folder = referenced_folder(Path(), reference)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True), open_transformers(folder)
