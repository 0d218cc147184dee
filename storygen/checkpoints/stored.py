"""A safetensors file: what it says it holds, bounded before any tensor is read, and one array.

The library checks offsets and overlaps; it also accepts headers of 100 MB with a million empty
tensors, which take half a minute and gigabytes to open. Ours are small, so the bounds are too.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from storygen.errors import CheckpointError

MAX_HEADER = 1_000_000  # bytes; GPT-2 XL's is 60,000
MAX_TENSORS = 4096
MAX_DIMS = 8
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "I8": 1, "BOOL": 1}
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of each tensor by name; raises CheckpointError for a file that is not as it says."""
    return {name: tuple(entry["shape"]) for name, entry in read_header(path).items()}


def read_places(path: Path) -> dict[str, tuple[str, int, int]]:
    """Number format of each tensor, and where in the file its bytes begin and end."""
    entries = read_header(path)
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    with safe_open(path, framework="np"):  # checks that none overlap and all are there
        pass
    return {
        name: (entry["dtype"], *(start + offset for offset in entry["data_offsets"]))
        for name, entry in entries.items()
    }


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that the writer of a file has put beside its tensors."""
    with safe_open(path, framework="np") as file:
        return dict(file.metadata() or {})


def read_header(path: Path) -> dict[str, Any]:
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


class Stored(NamedTuple):
    """An array in a file: its bytes there, and how to read them."""

    path: Path
    name: str
    dtype: str
    start: int
    stop: int
    shape: tuple[int, ...]

    def read(self) -> np.ndarray:
        """Its numbers in float32, all of them finite."""
        if self.dtype not in FLOATS:
            raise no_finite_numbers(self.path, self.name)
        kind = np.dtype(FLOATS[self.dtype])
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                found = np.fromfile(file, kind, (self.stop - self.start) // kind.itemsize)
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error}.") from None
        if self.dtype == "BF16":  # the upper half of a float
            found = (found.astype(np.uint32) << 16).view(np.float32)
        if not is_finite(found):
            raise no_finite_numbers(self.path, self.name)
        return found.astype(np.float32, copy=False).reshape(self.shape)


def read_arrays(path: Path) -> dict[str, Stored]:
    """Where each array of a file is, by name."""
    shapes = read_shapes(path)
    try:
        places = read_places(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None
    return {name: Stored(path, name, *place, shapes[name]) for name, place in places.items()}


def is_finite(numbers: np.ndarray) -> bool:
    """Whether every number is finite. Takes no memory, as isfinite() does: NaN is passed on by
    minimum and maximum."""
    return not numbers.size or bool(np.isfinite(numbers.min()) and np.isfinite(numbers.max()))


def no_finite_numbers(path: Path, name: str) -> CheckpointError:
    """What to say of a tensor that holds others."""
    return CheckpointError(
        f"{path}: {name} holds values that are no finite numbers. The training that made it went "
        "wrong, or the file is damaged: take an earlier one, or copy it again."
    )


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
