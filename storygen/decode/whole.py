"""Linear layers in 8 bits by PyTorch, for processors without a compiler."""

import torch
from torch import Tensor, nn

LARGEST = 127


class WholeLinear(nn.Module):
    """nn.Linear with its weights rounded to 8 bits, a scale for each output, and what it is given
    rounded alike, a scale for each row. Products of whole numbers are added exactly, so a row's
    result does not depend on the others."""

    weight: Tensor  # (out, in) int8
    scale: Tensor  # (out,)

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = _scale(weight)
        self.register_buffer("weight", (weight / scale).round_().to(torch.int8))
        self.register_buffer("scale", scale[:, 0])
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        rows = x.reshape(-1, x.shape[-1])
        scale = _scale(rows)  # (rows, 1)
        whole = (rows / scale).round().to(torch.int8)
        y = torch._int_mm(whole, self.weight.t()) * scale * self.scale
        return (y if self.bias is None else y + self.bias).view(*x.shape[:-1], -1)


def in_whole_numbers(network: nn.Module) -> None:
    """Put WholeLinear in the place of every nn.Linear, where oneDNN multiplies whole numbers; it is
    done one by one without."""
    if not torch.backends.mkldnn.is_available():
        return
    # Of matrices with one column PyTorch 2.13 makes numbers out of nowhere.
    names = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and module.in_features > 1
    ]
    for name in names:  # one by one, so that few are in memory twice
        parent, _, last = name.rpartition(".")
        linear = network.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        setattr(network.get_submodule(parent), last, WholeLinear(linear))


def _scale(numbers: Tensor) -> Tensor:
    """What makes the largest number of each row 127; 1 for a row of zeros."""
    most = numbers.abs().amax(dim=-1, keepdim=True)
    return torch.where(most == 0, 1.0, most / LARGEST)
