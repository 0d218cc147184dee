"""A model's weights rounded for native code, kept in NAME/packed/FORM.safetensors.

Opening these takes neither the time of rounding nor the memory of the weights they were made of.
Such a file is a copy for this machine, which may be deleted at any time: SHA256SUMS does not list
it, and no other program reads it. It says of which files it was made: where those have changed it
is stale. One that looks as it did then (size and time) has not changed; of any other the hash says.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from io import RawIOBase
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from storygen.checkpoints import adapter_files, hf
from storygen.checkpoints.stored import is_finite, read_metadata, read_places
from storygen.errors import CheckpointError
from storygen.files import atomic_file, sha256
from storygen.model.config import GPTConfig
from storygen.tokenizers import Tokenizer

FOLDER = "packed"


def packed_file(directory: Path, form: str) -> Path:
    """Where a model's weights of a form are, if they are."""
    return directory / FOLDER / f"{form}.safetensors"


def describe(directory: Path) -> tuple[GPTConfig, Tokenizer]:
    """A model's config and tokenizer, whatever its weights are."""
    whole = adapter_files.base_of(directory) or directory
    return hf.describe(whole, unread=[path.name for path in hf.weight_files(whole)])


def sources_now(directory: Path) -> dict[str, list[Any]]:
    """The files that a model is made of, as they are: ask before it is loaded, for they may change
    while it is."""
    try:
        return {
            os.path.relpath(source, directory): [*_looks(source), sha256(source)]
            for source in _sources(directory)
        }
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read: {error}.") from None


def save_packed(
    directory: Path, form: str, tensors: Mapping[str, np.ndarray], made_of: Mapping[str, list[Any]]
) -> Path:
    """Keep tensors that were made of such sources; the file's path."""
    path = packed_file(directory, form)
    metadata = {"made_of": json.dumps(made_of), "sha256": _hash(tensors)}
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as new:
            save_file(dict(tensors), new, metadata=metadata)
            new.chmod(0o644)  # safetensors makes its files the owner's alone
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} could not be written: {error}.") from None
    return path


def read_packed(directory: Path, form: str, into: Mapping[str, np.ndarray]) -> None:
    """Fill tensors with those of the same names; raises CheckpointError for a file that is stale,
    damaged or of another shape."""
    path = packed_file(directory, form)
    again = f"Make it again: python -m storygen quantize {directory.name} --type {form}"
    try:
        places, metadata = read_places(path), read_metadata(path)
        if not _is_fresh(directory, metadata):
            raise CheckpointError(f"{path} was made of other weights than are there. {again}")
        sizes = {name: stop - start for name, (_, start, stop) in places.items()}
        if sizes != {name: tensor.nbytes for name, tensor in into.items()}:
            raise CheckpointError(f"{path} has not the model's shape. {again}")
        with path.open("rb", buffering=0) as file:
            for name, tensor in into.items():
                file.seek(places[name][1])
                _fill(tensor, file)
        if _hash(into) != metadata.get("sha256"):
            raise CheckpointError(f"{path} is damaged. {again}")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. {again}") from None
    if not all(is_finite(tensor) for tensor in into.values() if tensor.dtype.kind == "f"):
        raise CheckpointError(f"{path} holds values that are no finite numbers. {again}")


def _sources(directory: Path) -> list[Path]:
    """The files that a model's numbers come from."""
    whole = adapter_files.base_of(directory) or directory
    own = (
        []
        if whole == directory
        else [directory / adapter_files.CONFIG, directory / adapter_files.WEIGHTS]
    )
    return [*own, whole / "config.json", *hf.weight_files(whole)]


def _is_fresh(directory: Path, metadata: Mapping[str, str]) -> bool:
    """Whether the files that weights were made of are those of the model now."""
    try:
        made_of = {
            os.path.normpath(directory / name): (size, time, digest)
            for name, (size, time, digest) in json.loads(metadata["made_of"]).items()
        }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return False
    sources = _sources(directory)
    if made_of.keys() != {os.path.normpath(source) for source in sources}:
        return False
    for source in sources:
        size, time, digest = made_of[os.path.normpath(source)]
        if _looks(source) != (size, time) and sha256(source) != digest:
            return False
    return True


def _looks(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _hash(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over all bytes, by name."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(_bytes(tensors[name]))
    return found.hexdigest()


def _fill(tensor: np.ndarray, file: RawIOBase) -> None:
    """Read as many bytes as a tensor has."""
    rest = _bytes(tensor)
    while rest:
        n = file.readinto(rest)
        if not n:
            raise OSError("it ends too soon")
        rest = rest[n:]


def _bytes(tensor: np.ndarray) -> memoryview:
    return tensor.data.cast("B")
