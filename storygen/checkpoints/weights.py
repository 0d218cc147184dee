"""A tensor that is read when it is needed, with its shape known before.

A model is translated from one form to another by joining, turning and scaling such weights; what
is in memory at any time is the few that are being written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from storygen.checkpoints.tensors import read_floats, read_tensor


@dataclass(frozen=True)
class Weight:
    """Shape and number format of a tensor, and how to get it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor in its number format."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def weights_of(path: Path, source: Path | None = None) -> dict[str, Weight]:
    """The floating-point tensors of a safetensors file by name; bounds are checked, none read.
    source is the file that people know, where path is made of it."""
    return {
        name: Weight(shape, _narrow(dtype), partial(_read_narrow, path, name, source))
        for name, (shape, dtype) in read_floats(path).items()
    }


def _narrow(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype == torch.float64 else dtype


def _read_narrow(path: Path, name: str, source: Path | None) -> Tensor:
    tensor = read_tensor(path, name, source)
    return tensor.to(_narrow(tensor.dtype))


def given(tensor: Tensor, dtype: torch.dtype | None = None) -> Weight:
    """A tensor that is in memory anyway, in another number format perhaps."""
    kind = dtype or tensor.dtype
    return Weight(tuple(tensor.shape), kind, lambda: tensor.to("cpu", kind))


def zeros(shape: Sequence[int], dtype: torch.dtype) -> Weight:
    """What stands for a bias that is not there."""
    return Weight(tuple(shape), dtype, lambda: torch.zeros(tuple(shape), dtype=dtype))


def identity(size: int, dtype: torch.dtype) -> Weight:
    """What stands for a matrix that is not there."""
    return Weight((size, size), dtype, lambda: torch.eye(size, dtype=dtype))


def flat(weight: Weight) -> Weight:
    """Without the leading dimensions of 1 that a parameter may have for broadcasting."""
    shape = weight.shape
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if shape == weight.shape:
        return weight
    return Weight(shape, weight.dtype, lambda: weight.read().reshape(shape))


def turned(weight: Weight) -> Weight:
    """The transposed matrix."""
    rows, columns = weight.shape
    return Weight((columns, rows), weight.dtype, lambda: weight.read().t().contiguous())


def joined(parts: Sequence[Weight]) -> Weight:
    """Several below one another: (n, ...) and (m, ...) -> (n + m, ...)."""
    first = parts[0]
    shape = (sum(part.shape[0] for part in parts), *first.shape[1:])
    dtype = max((part.dtype for part in parts), key=lambda d: d.itemsize)
    return Weight(shape, dtype, lambda: torch.cat([part.read().to(dtype) for part in parts]))


def scaled(weight: Weight, factor: float) -> Weight:
    """Every number times factor. Kept in float32: half precision would round the product."""
    if factor == 1.0:
        return weight
    return Weight(weight.shape, torch.float32, lambda: weight.read().float() * factor)


def same(a: Weight, b: Weight) -> bool:
    """Whether two weights hold the same numbers."""
    if a.read is b.read:
        return True
    return (a.shape, a.dtype) == (b.shape, b.dtype) and torch.equal(a.read(), b.read())
