"""A safetensors file: what it says it holds, bounded before any tensor is read, and one tensor.

The library checks offsets and overlaps; it also accepts headers of 100 MB with a million empty
tensors, which take half a minute and gigabytes to open. Ours are small, so the bounds are too.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from storygen.errors import CheckpointError

MAX_HEADER = 1_000_000  # bytes; GPT-2 XL's is 60,000
MAX_TENSORS = 4096
MAX_DIMS = 8
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "I8": 1, "BOOL": 1}
FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor by name; raises CheckpointError for a file that is not as it says."""
    return {name: tuple(entry["shape"]) for name, entry in _read_header(path).items()}


def read_floats(path: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and number format of each tensor that holds floating-point numbers."""
    return {
        name: (tuple(entry["shape"]), FLOATS[entry["dtype"]])
        for name, entry in _read_header(path).items()
        if entry["dtype"] in FLOATS
    }


def read_places(path: Path) -> dict[str, tuple[str, int, int]]:
    """Number format of each tensor, and where in the file its bytes begin and end."""
    entries = _read_header(path)
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    with safe_open(path, framework="pt"):  # checks that none overlap and all are there
        pass
    return {
        name: (entry["dtype"], *(start + offset for offset in entry["data_offsets"]))
        for name, entry in entries.items()
    }


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that the writer of a file has put beside its tensors."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _read_header(path: Path) -> dict[str, Any]:
    """What a header says of each tensor, checked against the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
                raise CheckpointError(
                    f"{path} is no safetensors file, or it was cut off: its header claims "
                    f"{length:,} bytes of {size:,}. Copy or download it again."
                )
            header = json.loads(file.read(length), object_pairs_hook=_unique)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror}. Copy or download it again."
        ) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} has a damaged header: {error}. Copy or download it again."
        ) from None
    if not isinstance(header, dict):
        raise CheckpointError(
            f"{path} has a damaged header: it lists no tensors. Copy or download it again."
        )
    tensors = {k: v for k, v in header.items() if k != "__metadata__"}
    if len(tensors) > MAX_TENSORS:
        raise CheckpointError(
            f"{path} holds {len(tensors):,} tensors, and at most {MAX_TENSORS:,} can be read: save "
            "the model's alone."
        )
    shapes = {name: _shape(path, name, entry) for name, entry in tensors.items()}
    needed = sum(math.prod(shape) * SIZES[tensors[name]["dtype"]] for name, shape in shapes.items())
    if needed != size - 8 - length:
        raise CheckpointError(
            f"{path} is damaged or cut off: its tensors need {needed:,} bytes and "
            f"{size - 8 - length:,} are there. Copy or download it again."
        )
    return tensors


def read_tensor(path: Path, name: str, source: Path | None = None) -> Tensor:
    """One tensor of finite numbers; source is the file that people know, where path is made of
    it."""
    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None
    if not tensor.is_floating_point() or not is_finite(tensor):
        raise CheckpointError(
            f"{source or path}: {name} holds values that are no finite numbers. The training that "
            "made it went wrong, or the file is damaged: take an earlier one, or copy it again."
        )
    return tensor


def is_finite(tensor: Tensor) -> bool:
    """Whether every number is finite. Takes no memory, as tensor.isfinite() does: NaN is passed on
    by minimum and maximum."""
    return not tensor.numel() or all(bool(bound.isfinite()) for bound in tensor.aminmax())


def _shape(path: Path, name: str, entry: Any) -> tuple[int, ...]:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_DIMS
        or not all(isinstance(n, int) and 0 <= n < 2**40 for n in shape)
        or entry.get("dtype") not in list(SIZES)
    ):
        raise CheckpointError(
            f"{path} describes the tensor {name[:80]!r} in a way it cannot have. Copy or download "
            "it again."
        )
    return tuple(shape)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice")
    return found
