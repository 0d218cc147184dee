"""A network from a model directory, and a model directory from a network (see hf.py)."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from storygen.checkpoints import hf
from storygen.checkpoints.hf import CONFIG_SIZES, CONV1D, INDEX, WEIGHTS, write_tokenizer
from storygen.checkpoints.json_files import write_json
from storygen.checkpoints.stored import Stored
from storygen.checkpoints.tensors import read_tensor
from storygen.checkpoints.weights import Weight, given, turned
from storygen.errors import CheckpointError
from storygen.files import atomic_directory, recovered, write_sums
from storygen.model import GPT, GPTConfig
from storygen.tokenizers import Tokenizer

SHARD_BYTES = 95_000_000


def load(
    directory: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = torch.float32,
) -> tuple[GPT, Tokenizer]:
    """A model in eval mode, and its tokenizer, from a directory; dtype None is the file's.

    Raises CheckpointError with what is missing, damaged or does not fit, before memory is taken
    for a file that does not hold what its config says.
    """
    directory = recovered(Path(directory))
    config, tokenizer = hf.describe(directory)
    weights = {name: _read(name, place) for name, place in hf.places(directory, config).items()}
    return network(config, weights, device, dtype), tokenizer


def network(
    config: GPTConfig,
    weights: Mapping[str, Tensor],
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> GPT:
    """A network in eval mode of weights by our names; dtype None is theirs."""
    with torch.device("meta"):
        model = GPT(config)
    state = {name: weight.to(device=device, dtype=dtype) for name, weight in weights.items()}
    if config.tied:
        state["lm_head.weight"] = state["wte.weight"]
    model.load_state_dict(state, assign=True)
    if config.tied:  # assigning makes two parameters of the one
        model.lm_head.weight = model.wte.weight
    return model.requires_grad_(False).eval()


def save(
    directory: str | Path,
    model: GPT,
    tokenizer: Tokenizer,
    *,
    dtype: torch.dtype = torch.float32,
    files: Mapping[str, str] | None = None,
) -> None:
    """Write a model directory, all or nothing. files are further texts by name (card, extras).

    dtype is that of the file. config.json asks readers for float32 whatever it is, so that
    everybody computes the same from it.
    """
    weights = {name: given(weight, dtype) for name, weight in model.state_dict().items()}
    with atomic_directory(Path(directory)) as new:
        write_model(new, model.config, weights, tokenizer, files or {})


def write_model(
    directory: Path,
    config: GPTConfig,
    weights: Mapping[str, Weight],
    tokenizer: Tokenizer,
    files: Mapping[str, str],
) -> None:
    """Fill a new directory. Weights go by our names and are read one file's worth at a time;
    config.json comes last: until then the directory is no model for anyone who looks."""
    theirs = {
        _their_name(name): turned(weight) if name.endswith(CONV1D) else weight
        for name, weight in weights.items()
        if not (config.tied and name == "lm_head.weight")
    }
    _write_weights(directory, theirs)
    write_tokenizer(directory, tokenizer)
    write_json(
        directory / "generation_config.json",
        {"do_sample": True, "eos_token_id": tokenizer.eot_id, "bos_token_id": tokenizer.eot_id},
    )
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    write_json(directory / "config.json", _to_config_json(config, tokenizer))
    write_sums(directory)
    for path in directory.iterdir():  # safetensors makes its files the owner's alone
        if path.is_file():
            path.chmod(0o644)


def _their_name(name: str) -> str:
    return name if name.startswith("lm_head.") else f"transformer.{name}"


def _read(name: str, place: Stored) -> Tensor:
    weight = read_tensor(place.path, place.name)
    return weight.t() if name.endswith(CONV1D) else weight


def _write_weights(directory: Path, weights: Mapping[str, Weight]) -> None:
    """One file, or shards of at most SHARD_BYTES with the index transformers reads."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, weight in weights.items():
        if shards[-1] and size + weight.nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += weight.nbytes
    names: dict[str, str] = {}
    for n, shard in enumerate(shards, start=1):
        file = f"model-{n:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else WEIGHTS
        tensors = {name: weights[name].read().contiguous() for name in shard}
        try:
            save_file(tensors, directory / file, metadata={"format": "pt"})
        except SafetensorError as error:  # how it says that the disk is full
            raise CheckpointError(f"{directory / file} could not be written: {error}.") from None
        del tensors  # before the next are read
        names |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        total = sum(weight.nbytes for weight in weights.values())
        write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": names})


def _to_config_json(config: GPTConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    ours = asdict(config)
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{theirs: ours[name] for theirs, (name, _) in CONFIG_SIZES.items()},
        "n_inner": config.n_inner,
        "activation_function": config.activation,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config.dropout),
        "tie_word_embeddings": config.tied,
        "bos_token_id": tokenizer.eot_id,
        "eos_token_id": tokenizer.eot_id,
        "dtype": "float32",
    } | ({"output_bias": True} if config.output_bias else {})
