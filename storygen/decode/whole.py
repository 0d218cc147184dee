"""Linear layers in 8 bits by PyTorch, for processors without a compiler."""

import warnings
from functools import cache

import torch
from torch import Tensor, nn

ENGINE = "fbgemm"  # FBGEMM, for x86
LARGEST = 127  # of a weight
SMALLEST = 1e-30  # of a scale, where a row has zeros alone


class WholeLinear(nn.Module):
    """nn.Linear with its weights rounded to 8 bits, a scale for each output, and what it is given
    rounded alike, a scale for each row: not one for all rows, as PyTorch's dynamic quantization
    has. Products of whole numbers are added exactly, so a row's result does not depend on the
    others. FBGEMM packs the weights, into the order in which it reads them."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        self.packed = _packed(weight, weight.abs().amax(dim=1).clamp_min_(SMALLEST) / LARGEST)
        self.bias = linear.bias
        self.zero, self.smallest = largest_input() + 1, torch.tensor(SMALLEST)
        self.step = torch.tensor(1 / largest_input())  # a number would be made a tensor each time

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        rows = x.reshape(-1, x.shape[-1])
        scale = torch.addcmul(self.smallest, rows.abs().amax(dim=-1, keepdim=True), self.step)
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        y: Tensor = multiply(rows / scale, 1.0, self.zero, self.packed)
        y = y * scale if self.bias is None else torch.addcmul(self.bias, y, scale)
        return y.view(x.shape[:-1] + y.shape[-1:])


def in_whole_numbers(network: nn.Module) -> None:
    """Put WholeLinear in the place of every nn.Linear. Where FBGEMM is not, as on ARM, the network
    stays as it is."""
    if ENGINE not in torch.backends.quantized.supported_engines:
        return
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    for name in names:  # one by one, so that few are in memory twice
        parent, _, last = name.rpartition(".")
        linear = network.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        setattr(network.get_submodule(parent), last, WholeLinear(linear))


@cache
def largest_input() -> int:
    """To what the largest number of a row is rounded: 127; or 63 where the processor has no VNNI
    and adds products of bytes in pairs of 16 bits, which hold no more exactly."""
    packed = _packed(torch.full((16, 64), float(LARGEST)), torch.ones(16))
    y = _product(torch.full((1, 64), 127.0), 128, packed)
    return 127 if bool((y == 64 * 127 * LARGEST).all()) else 63


def _packed(weight: Tensor, scale: Tensor) -> object:
    """Weights (out, in) in multiples of their output's scale (out,), as FBGEMM wants them."""
    torch.backends.quantized.engine = ENGINE
    zero = torch.zeros(len(scale), dtype=torch.long)
    with warnings.catch_warnings():  # a later PyTorch may be without it; ours is pinned
        warnings.filterwarnings("ignore", r"torch\.quantize_per_tensor", UserWarning)
        whole = torch.quantize_per_channel(weight, scale.double(), zero, 0, torch.qint8)
    packed: object = torch.ops.quantized.linear_prepack(whole, None)
    return packed


def _product(rows: Tensor, zero: int, packed: object) -> Tensor:
    """Rows (n, in), rounded to bytes around `zero`, times packed weights: (n, out) in 32 bits."""
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    y: Tensor = multiply(rows, 1.0, zero, packed)
    return y
