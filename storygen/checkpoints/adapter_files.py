"""What lies beside an adapter's weights: its settings, and where its base is. Knows no torch."""

import hashlib
from pathlib import Path
from typing import Any

from storygen.checkpoints import hf
from storygen.checkpoints.json_files import read_json
from storygen.errors import CheckpointError
from storygen.files import recovered, sha256
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
