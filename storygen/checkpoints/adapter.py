"""A network from a model's or an adapter's directory, and an adapter from a network.

Loading merges, so that nobody else needs to know that a model is two (see adapter_files.py).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from storygen.checkpoints import hf, models
from storygen.checkpoints.adapter_files import (
    BASE,
    CONFIG,
    MODULES,
    WEIGHTS,
    Merged,
    base_hash,
    read_config,
    stored_name,
)
from storygen.checkpoints.json_files import write_json
from storygen.files import atomic_directory, recovered, write_sums
from storygen.model import GPT
from storygen.model.lora import lora_matrices
from storygen.tokenizers import Tokenizer


def load(
    directory: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = torch.float32,
) -> tuple[GPT, Tokenizer]:
    """A model in eval mode, and its tokenizer, from a model's or an adapter's directory; dtype None
    is the file's.

    Raises CheckpointError with what is missing, damaged or does not fit.
    """
    directory = recovered(Path(directory))
    if not (directory / CONFIG).is_file():
        return models.load(directory, device, dtype)
    config, tokenizer = hf.describe(read_config(directory)[2])
    merged = Merged(directory, config)
    weights = {name: torch.from_numpy(np.ascontiguousarray(merged[name])) for name in merged}
    return models.network(config, weights, device, dtype), tokenizer


def save_adapter(
    directory: str | Path,
    model: GPT,
    base: Path,
    *,
    rank: int,
    alpha: float,
    files: Mapping[str, str],
) -> None:
    """Write the changes that model carries (see add_lora) as an adapter over the directory base;
    all or nothing. files are further texts by name."""
    tensors = {
        stored_name(layer, which): weight.detach().to("cpu", torch.float16).contiguous()
        for layer, change in lora_matrices(model).items()
        for which, weight in (("A", change.A), ("B", change.B))
    }
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        BASE: base.name,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": list(MODULES),
        "fan_in_fan_out": True,  # transformers' Conv1D keeps its matrices as (in, out)
        "bias": "none",
        "inference_mode": True,
    }
    with atomic_directory(Path(directory)) as new:
        write_json(new / CONFIG, config)
        metadata = {"format": "pt", "base_sha256": base_hash(base)}
        save_file(tensors, new / WEIGHTS, metadata=metadata)
        for name, text in files.items():
            (new / name).write_text(text, encoding="utf-8")
        write_sums(new)
        for path in new.iterdir():
            path.chmod(0o644)
