"""LoRA: a small trainable change of a large frozen matrix (Hu et al. 2021).

W becomes W + (alpha / rank) B A, with A (rank, in) random and B (out, rank) zero at first, so that
training begins at the base model. Written as a parametrization of the linear layers' weights: the
network's own code does not know about it.
"""

import math

from torch import Tensor, nn
from torch.nn.utils import parametrize

from storygen.model.gpt import GPT

TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


class LowRank(nn.Module):
    """The change of one matrix."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.A = nn.Parameter(weight.new_empty(rank, columns))
        self.B = nn.Parameter(weight.new_zeros(rows, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """weight (out, in) -> weight with the change (out, in)."""
        return weight + self.scale * (self.B @ self.A)


def add_lora(model: GPT, rank: int, alpha: float) -> GPT:
    """Freeze the model and give each matrix of its blocks a trainable change."""
    model.requires_grad_(False)
    for layer in _linear_layers(model).values():
        change = LowRank(layer.weight, rank, alpha)
        parametrize.register_parametrization(layer, "weight", change)
    return model


def lora_matrices(model: GPT) -> dict[str, LowRank]:
    """The changes by the name of the layer they belong to, such as h.0.attn.c_attn."""
    return {
        name.removesuffix(".parametrizations.weight.0"): module
        for name, module in model.named_modules()
        if isinstance(module, LowRank)
    }


def _linear_layers(model: GPT) -> dict[str, nn.Linear]:
    return {
        f"h.{n}.{target}": layer
        for n, block in enumerate(model.h)
        for target in TARGETS
        if isinstance(layer := block.get_submodule(target), nn.Linear)
    }
