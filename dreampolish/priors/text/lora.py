"""The variational domain of VSD and DSD: a LoRA adapter on the text prior's network, conditioned on the camera.

The camera, sixteen numbers of the camera-to-world matrix, passes an MLP and is added to the time embedding (source: threestudio's
ProlificDreamer guidance); without a camera the MLP sees zeros. The MLP's last layer starts at zero and LoRA's second factor does
too, so that a fresh domain predicts exactly what the frozen network does. While switched off, the network's output is
bit-identical to that without an adapter.
"""

import copy
import math
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import LoraConfig
from torch import Tensor, nn

from dreampolish.priors.latents import LatentSpace
from dreampolish.priors.protocols import TextEmbedding
from dreampolish.priors.text.networks import ScoreNetwork

ADAPTER = "variational"


class CameraEmbedding(nn.Module):
    """Sixteen camera numbers to an addition to the time embedding; zero at the start."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first, self.second = nn.utils.skip_init(nn.Linear, 16, width), nn.utils.skip_init(nn.Linear, width, width)
        _fill_uniform(self.first.weight, 1 / math.sqrt(16), generator)
        for parameter in (self.first.bias, self.second.weight, self.second.bias):
            nn.init.zeros_(parameter)

    def forward(self, cameras: Float[Tensor, "b 16"]) -> Float[Tensor, "b d"]:
        """Additions to the time embedding."""
        return self.second(nn.functional.silu(self.first(cameras)))


@torch.no_grad()
def _fill_uniform(weight: Tensor, bound: float, generator: torch.Generator) -> None:
    values = torch.rand(weight.shape, generator=generator, device=generator.device)
    weight.copy_(values * 2 * bound - bound)


class LoraDomain:
    """A LoRA-fitted score network (protocols.VariationalDomain). Made by `DiffusionTextPrior.add_lora`.

    number_format: of the network under the adapter; where it is not the frozen network's own, the adapter gets a copy of it.
    """

    def __init__(
        self,
        network: ScoreNetwork,
        space: LatentSpace,
        rank: int,
        generator: torch.Generator,
        number_format: torch.dtype | None = None,
    ) -> None:
        if rank < 1:
            raise ValueError(f"LoRA rank {rank} must be at least 1")
        module = network.module
        if number_format not in (None, module.dtype):
            module = copy.deepcopy(module).to(number_format)
        self._network, self._module, self._space, self.number_format = network, module, space, module.dtype
        self._computes_again = space.memory.checkpoint_adapter
        if self._computes_again:
            module.enable_gradient_checkpointing()
        with torch.random.fork_rng(devices=[]):  # peft fills its factors from the global generator
            module.add_adapter(
                LoraConfig(r=rank, lora_alpha=rank, target_modules=list(network.adapted), init_lora_weights=True),
                adapter_name=ADAPTER,
            )
        device = next(module.parameters()).device
        self._camera_embedding = CameraEmbedding(network.time_width(), generator).to(device)
        self._adapter = {name: p for name, p in module.named_parameters() if f".{ADAPTER}." in name}
        for name, parameter in self._adapter.items():
            parameter.data = parameter.data.float()  # whatever the frozen network computes in, the adapter learns in float32
            parameter.requires_grad_(True)
            if "lora_A" in name:  # Kaiming's bound with a = sqrt(5), as peft does, but from our generator
                _fill_uniform(parameter, 1 / math.sqrt(parameter.shape[1]), generator)
        self._camera_addition: Tensor | None = None
        self._hook = network.time_embedding(module).register_forward_hook(self._add_camera)
        self.switch_off()

    def _add_camera(self, module: nn.Module, inputs: Any, embedding: Tensor) -> Tensor:
        return embedding if self._camera_addition is None else embedding + self._camera_addition.to(embedding.dtype)

    def switch_off(self) -> None:
        """Let the frozen network answer alone. The adapter's numbers stay those that a loss of before reaches: peft takes their gradients
        away with the adapter, and a backward pass that came after would leave them as they are."""
        self._module.disable_adapters()
        for parameter in self._adapter.values():
            parameter.requires_grad_(True)

    def remove(self) -> None:
        """Take the adapter and its hook off the network for good."""
        self._hook.remove()
        self._module.delete_adapters(ADAPTER)

    def parameters(self) -> list[nn.Parameter]:
        """Adapter and camera-embedding parameters, in a fixed order."""
        return [*self._adapter.values(), *self._camera_embedding.parameters()]

    def predict_epsilon(
        self,
        noisy: Float[Tensor, "b c m n"],
        timesteps: Int[Tensor, " b"],
        text: TextEmbedding,
        world_from_camera: Float[Tensor, "b 4 4"] | None,
    ) -> Float[Tensor, "b c m n"]:
        """e_lora; builds a graph when gradients are enabled. None: the zeroed camera.

        Where inner layers are computed again on the way back, the adapter stays on until then; the frozen network switches it off.
        """
        cameras = noisy.new_zeros(len(noisy), 16) if world_from_camera is None else world_from_camera.reshape(-1, 16)

        def output(rows: slice) -> Tensor:
            self._camera_addition = self._camera_embedding(cameras[rows])
            return self._network.output(self._module, noisy[rows], timesteps[rows], text.rows(rows))

        self._module.enable_adapters()
        try:
            predicted = self._space.by_rows(len(noisy), output)
        finally:
            self._camera_addition = None
            if not (self._computes_again and torch.is_grad_enabled()):
                self.switch_off()
        return self._space.epsilon_from_output(predicted, noisy, timesteps)

    def state_dict(self) -> dict[str, Tensor]:
        """The adapter's and camera embedding's tensors."""
        camera = {f"camera.{name}": value for name, value in self._camera_embedding.state_dict().items()}
        return {name: value.detach() for name, value in self._adapter.items()} | camera

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave; KeyError for unknown or missing names."""
        own = self.state_dict()
        if set(own) != set(state):
            raise KeyError(f"adapter state differs in {sorted(set(own) ^ set(state))[:4]}")
        for name, value in own.items():
            value.copy_(state[name])
