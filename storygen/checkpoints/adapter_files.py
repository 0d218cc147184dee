"""A LoRA adapter as PEFT keeps it, over a base beside it: what it says, and the weights the two
make together. Knows no torch.

The adapter remembers the hash of the weights it was trained on: over others it would be noise.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from storygen.checkpoints import hf
from storygen.checkpoints.json_files import read_json
from storygen.checkpoints.stored import read_arrays, read_metadata
from storygen.errors import CheckpointError
from storygen.files import recovered, sha256
from storygen.model.config import GPTConfig
from storygen.model.shapes import matrix_shapes
from storygen.tokenizers import Tokenizer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "base_model_name_or_path"
MAX_RANK = 1024
MODULES = ("c_attn", "c_proj", "c_fc")


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer of a model's or an adapter's directory alone."""
    directory = recovered(Path(directory))
    is_adapter = (directory / CONFIG).is_file()
    return hf.read_tokenizer(read_config(directory)[2] if is_adapter else directory)


def base_of(directory: Path) -> Path | None:
    """The directory of an adapter's base; None where a directory is a whole model."""
    return read_config(directory)[2] if (directory / CONFIG).is_file() else None


class Merged(Mapping[str, np.ndarray]):
    """The weights of an adapter's base with its changes in them, by our names, each read when it is
    asked for, in float32: W + (alpha / rank) B A."""

    def __init__(self, directory: Path, config: GPTConfig) -> None:
        """Raises CheckpointError where the two do not fit."""
        rank, alpha, base = read_config(directory)
        hf.check_sums(directory)
        found = read_arrays(directory / WEIGHTS)
        trained_on = read_metadata(directory / WEIGHTS).get("base_sha256")
        if trained_on is not None and trained_on != base_hash(base):
            raise CheckpointError(
                f"{directory} was trained over another {base.name!r} than the one in {base}: get "
                "the two together, or train the adapter again."
            )
        needed: dict[str, tuple[int, ...]] = {}
        self._changes: dict[str, tuple[str, str]] = {}
        for name, (rows, columns) in matrix_shapes(config).items():
            if name.split(".")[-2] in MODULES:
                layer = name.removesuffix(".weight")
                both = stored_name(layer, "A"), stored_name(layer, "B")
                needed |= dict(zip(both, ((rank, columns), (rows, rank)), strict=True))
                self._changes[name] = both
        for name in {**needed, **found}:
            shape = found[name].shape if name in found else "missing"
            if shape != needed.get(name):
                raise CheckpointError(
                    f"{directory / WEIGHTS}: {name} is {shape}, and the base and {CONFIG} make it "
                    f"{needed.get(name, 'nothing')}. These files are not of one model."
                )
        self._base, self._found, self._scale = hf.Weights(base, config), found, alpha / rank

    def __getitem__(self, name: str) -> np.ndarray:
        weight = self._base[name]
        if name not in self._changes:
            return weight
        A, B = (self._found[stored].read() for stored in self._changes[name])
        change: np.ndarray = np.float32(self._scale) * (B @ A)
        return weight + change

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def stored_name(layer: str, which: str) -> str:
    """What PEFT calls matrix A or B of a layer such as h.0.attn.c_attn."""
    return f"base_model.model.transformer.{layer}.lora_{which}.weight"


def base_hash(directory: Path) -> str:
    """SHA-256 over the hashes of a directory's weight files."""
    sums = [sha256(path) for path in sorted(directory.glob("*.safetensors"))]
    return hashlib.sha256("".join(sums).encode()).hexdigest()


def read_config(directory: Path) -> tuple[int, float, Path]:
    """Rank, alpha and the base's directory."""
    path = directory / CONFIG
    config = read_json(path)
    rank, alpha, name = config.get("r"), config.get("lora_alpha"), config.get(BASE)
    if config.get("peft_type") != "LORA" or sorted(_list(config.get("target_modules"))) != sorted(
        MODULES
    ):
        raise CheckpointError(
            f"{path} is no LoRA adapter of {', '.join(MODULES)}: other kinds cannot be read."
        )
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise CheckpointError(f"{path}: r is {str(rank)[:40]}, not a number from 1 to {MAX_RANK}.")
    if not isinstance(alpha, int | float) or not 0 < alpha < 1e6:
        raise CheckpointError(f"{path}: lora_alpha is {str(alpha)[:40]}, not a positive number.")
    if not isinstance(name, str) or Path(name).name in ("", "..") or not name:
        raise CheckpointError(f"{path} names no base model.")
    base = recovered(directory.parent / Path(name).name)
    if not (base / "config.json").is_file():
        raise CheckpointError(
            f"{directory} is an adapter for the model {base.name!r}, which is not beside it: "
            f"put that model into {directory.parent}."
        )
    return rank, float(alpha), base


def _list(value: Any) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else []
