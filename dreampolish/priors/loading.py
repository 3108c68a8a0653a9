"""Opening priors: a folder in diffusers layout, or a hub repository pinned to a commit, component by component.

A folder holds `unet/`, `scheduler/` and either `vae/`, `text_encoder/`, `tokenizer/` beside them, as Stable Diffusion's do, or a
`model_index.json` whose "references" say where a component lies: a path relative to the folder ("../autoencoder") or
"package:NAME/sub/folder" for files that an installed Python package carries. Weights are read from safetensors only.
"""

import hashlib
import importlib.util
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer

from dreampolish.optim.atomic_files import sha256_of
from dreampolish.priors.autoencoder import PatchAutoencoder
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


_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")
_REVISION = re.compile(r"[0-9a-f]{40}")
AnyModule = TypeVar("AnyModule", bound=nn.Module)


class PriorError(ValueError):
    """A prior cannot be opened; the message says what, where and what to do, in one line."""


@dataclass(frozen=True)
class PriorSource:
    """Where a prior comes from: an existing folder, or a hub id `owner/name` with its commit as revision."""

    location: str
    revision: str | None

    def folder(self) -> Path | None:
        """The local folder, or None for a valid hub id; PriorError for anything else."""
        path = Path(self.location)
        if path.is_dir():
            return path
        if self.revision is None:
            raise PriorError(
                f"no prior folder at {path.absolute()}: restore it from the repository, or set a hub id with its revision"
            )
        if not _HUB_ID.fullmatch(self.location):
            raise PriorError(f"'{self.location}' is neither a folder nor a hub id of the form owner/name")
        if not _REVISION.fullmatch(self.revision):
            raise PriorError(f"revision '{self.revision}' of {self.location} must be a commit: 40 hexadecimal digits")
        return None

    def component(self, name: str) -> tuple[str, dict[str, Any]]:
        """What `from_pretrained` needs for one component: (folder or id, its further arguments)."""
        folder = self.folder()
        if folder is None:
            return self.location, {"subfolder": name, "revision": self.revision}
        return str(_component_folder(folder, name)), {"local_files_only": True}


def _component_folder(folder: Path, name: str) -> Path:
    if (folder / name).is_dir():
        return folder / name
    index = folder / "model_index.json"
    references = json.loads(index.read_text()).get("references", {}) if index.is_file() else {}
    if name not in references:
        raise PriorError(f"the prior at {folder.absolute()} has no component '{name}': its folder is incomplete, restore it")
    found = _referenced_folder(folder, references[name])
    if not found.is_dir():
        raise PriorError(f"component '{name}' of {folder.absolute()} should lie at {found}, which does not exist: restore it")
    return found


def _referenced_folder(folder: Path, reference: str) -> Path:
    if not reference.startswith("package:"):
        return (folder / reference).resolve()
    package, _, inside = reference.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise PriorError(f"the Python package {package}, which carries part of {folder.name}, is not installed: install it")
    return Path(spec.origin).parent / inside


def _refuse_unsafe(path: str, weights: str) -> None:
    """A local component must bring safetensors; without them a loader might fall back to pickles."""
    folder = Path(path)
    if folder.is_dir() and not any(folder.glob(f"{weights}*.safetensors")):
        raise PriorError(f"{folder} holds no {weights}.safetensors: only safetensors are read, convert or restore the weights")


def _frozen(module: AnyModule) -> AnyModule:
    """Float32, evaluation mode, no gradients of parameters."""
    return module.float().eval().requires_grad_(False)


def load_autoencoder(source: PriorSource) -> PatchAutoencoder | AutoencoderKL:
    """The latent space: `vae`, of the class that its config names."""
    path, arguments = source.component("vae")
    return _open_autoencoder(path, arguments)


def _open_autoencoder(path: str, arguments: dict[str, Any]) -> PatchAutoencoder | AutoencoderKL:
    _refuse_unsafe(path, "diffusion_pytorch_model")
    local = Path(path) / "config.json"
    name = json.loads(local.read_text()).get("_class_name") if local.is_file() else "AutoencoderKL"
    if name not in ("PatchAutoencoder", "AutoencoderKL"):
        raise PriorError(f"{local} names the class {name}: only PatchAutoencoder and AutoencoderKL are known")
    if name == "PatchAutoencoder":
        return _frozen(PatchAutoencoder.from_pretrained(path, use_safetensors=True, low_cpu_mem_usage=False, **arguments))
    return _frozen(AutoencoderKL.from_pretrained(path, use_safetensors=True, **arguments))


def load_autoencoder_folder(folder: Path) -> PatchAutoencoder | AutoencoderKL:
    """The autoencoder that a folder holds itself; PriorError where there is none."""
    if not folder.is_dir():
        raise PriorError(f"no autoencoder at {folder.absolute()}: train it first with `dreampolish priors train autoencoder`")
    return _open_autoencoder(str(folder), {"local_files_only": True})


def load_unet(source: PriorSource) -> UNet2DConditionModel:
    """The score network."""
    path, arguments = source.component("unet")
    _refuse_unsafe(path, "diffusion_pytorch_model")
    return _frozen(UNet2DConditionModel.from_pretrained(path, use_safetensors=True, low_cpu_mem_usage=False, **arguments))


@dataclass(frozen=True)
class NoiseSchedule:
    """abar_t for every training timestep, and what the network predicts: "epsilon" or "v_prediction"."""

    alphas_cumprod: Float[Tensor, " t"]
    prediction_type: str


def load_schedule(source: PriorSource) -> NoiseSchedule:
    """The noise schedule of the `scheduler` component; PriorError for a prediction type other than epsilon and v."""
    path, arguments = source.component("scheduler")
    scheduler = DDIMScheduler.from_pretrained(path, **arguments)
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise PriorError(f"{path} predicts '{kind}': only epsilon and v_prediction are known")
    return NoiseSchedule(scheduler.alphas_cumprod.float(), kind)


def load_text_encoder(source: PriorSource) -> tuple[Any, nn.Module]:
    """Tokenizer and encoder; a CLIP text tower or any encoder whose last hidden state has one row a token."""
    path, arguments = source.component("tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(path, **arguments)
    path, arguments = source.component("text_encoder")
    return tokenizer, _open_text_encoder(path, arguments)


def _open_text_encoder(path: str, arguments: dict[str, Any]) -> nn.Module:
    _refuse_unsafe(path, "model")
    return _frozen(AutoModel.from_pretrained(path, use_safetensors=True, **arguments))


def load_packaged_text_encoder(reference: str) -> tuple[Any, nn.Module]:
    """Tokenizer and encoder of a "package:NAME/sub/folder" reference."""
    path, arguments = str(_referenced_folder(Path(), reference)), {"local_files_only": True}
    return AutoTokenizer.from_pretrained(path, **arguments), _open_text_encoder(path, arguments)


def digest(folder: Path) -> str:
    """SHA-256 over the relative paths and contents of a prior's files; pictures and cards do not count.

    Components that `model_index.json` refers to, by a relative path or in a Python package, count as well.
    PriorError when one is not there.
    """
    if not folder.is_dir():
        raise PriorError(f"no prior folder at {folder.absolute()}: restore it from the repository")
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors", ".txt")):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + _file_digest(path))
    index = folder / "model_index.json"
    references = json.loads(index.read_text()).get("references", {}) if index.is_file() else {}
    for reference in sorted(set(references.values())):
        total.update(digest(_referenced_folder(folder, reference)).encode())
    return total.hexdigest()


def packaged_digest(reference: str) -> str:
    """The digest of the files that a "package:NAME/sub/folder" reference means. PriorError when the package is not installed."""
    return digest(_referenced_folder(Path(), reference))


def _file_digest(path: Path) -> bytes:
    """SHA-256 of a file, read once in a process unless its size or time changes."""
    status = path.stat()
    return _digest_of(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest_of(path: Path, size: int, modified_ns: int) -> bytes:
    return bytes.fromhex(sha256_of(path))
