"""A LoRA adapter as PEFT keeps it: adapter_config.json and adapter_model.safetensors over a base.

The base is a model directory beside the adapter's. Loading merges, so that nobody else needs to
know that a model is two. The adapter remembers the hash of the weights it was trained on: over
others it would be noise.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from storygen.checkpoints import hf, models
from storygen.checkpoints.adapter_files import (
    BASE,
    CONFIG,
    MODULES,
    WEIGHTS,
    base_hash,
    read_config,
)
from storygen.checkpoints.json_files import write_json
from storygen.checkpoints.stored import read_metadata, read_shapes
from storygen.checkpoints.tensors import read_tensor
from storygen.errors import CheckpointError
from storygen.files import atomic_directory, recovered, write_sums
from storygen.model import GPT
from storygen.model.lora import add_lora, lora_matrices, merge_lora
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
    rank, alpha, base = read_config(directory)
    hf.check_sums(directory)
    shapes = read_shapes(directory / WEIGHTS)
    _check_base(directory, base)
    model, tokenizer = models.load(base)
    add_lora(model, rank, alpha)
    matrices = {
        _their_name(layer, which): weight
        for layer, change in lora_matrices(model).items()
        for which, weight in (("A", change.A), ("B", change.B))
    }
    wrong = next((n for n in {**matrices, **shapes} if not _fits(n, matrices, shapes)), None)
    if wrong is not None:
        raise CheckpointError(
            f"{directory / WEIGHTS}: {wrong} is {shapes.get(wrong, 'missing')}, and the base and "
            f"{CONFIG} make it {_shape(matrices, wrong)}. These files are not of one model."
        )
    with torch.no_grad():
        for name, weight in matrices.items():
            weight.copy_(read_tensor(directory / WEIGHTS, name))
    merged = merge_lora(model).to(device=device, dtype=dtype).requires_grad_(False)
    return merged.eval(), tokenizer


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
        _their_name(layer, which): weight.detach().to("cpu", torch.float16).contiguous()
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


def _check_base(directory: Path, base: Path) -> None:
    trained_on = read_metadata(directory / WEIGHTS).get("base_sha256")
    if trained_on is not None and trained_on != base_hash(base):
        raise CheckpointError(
            f"{directory} was trained over another {base.name!r} than the one in {base}: get the "
            "two together, or train the adapter again."
        )


def _their_name(layer: str, which: str) -> str:
    return f"base_model.model.transformer.{layer}.lora_{which}.weight"


def _shape(matrices: Mapping[str, torch.Tensor], name: str) -> tuple[int, ...] | str:
    return tuple(matrices[name].shape) if name in matrices else "nothing"


def _fits(
    name: str, matrices: Mapping[str, torch.Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> bool:
    return shapes.get(name) == _shape(matrices, name)
