"""The tensors of a safetensors file; what it says of them is checked by stored.py."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from storygen.checkpoints.stored import no_finite_numbers, read_header
from storygen.errors import CheckpointError

FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def read_floats(path: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and number format of each tensor that holds floating-point numbers."""
    return {
        name: (tuple(entry["shape"]), FLOATS[entry["dtype"]])
        for name, entry in read_header(path).items()
        if entry["dtype"] in FLOATS
    }


def read_tensor(path: Path, name: str, source: Path | None = None) -> Tensor:
    """One tensor of finite numbers; source is the file that people know, where path is made of
    it."""
    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None
    if not tensor.is_floating_point() or not is_finite(tensor):
        raise no_finite_numbers(source or path, name)
    return tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether every number is finite. Takes no memory, as tensor.isfinite() does: NaN is passed on
    by minimum and maximum."""
    return not tensor.numel() or all(bool(bound.isfinite()) for bound in tensor.aminmax())
