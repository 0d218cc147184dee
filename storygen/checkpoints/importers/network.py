"""What every importer starts from and gives back, and the steps they share.

A dialect is a table of names and a few facts. Separate query, key and value matrices, or one for
each head, become GPT-2's c_attn; a bias that is not there is zeros.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from storygen.checkpoints.hf import CONFIG_SIZES
from storygen.checkpoints.weights import Weight, joined, same, scaled, zeros
from storygen.errors import CheckpointError
from storygen.model import GPT, GPTConfig

Rules = Sequence[tuple[str, str]]  # pattern of their names, ours; "" for what is left out

AGAIN = "Copy or download it again, or save all of it, torch.save(model.state_dict(), PATH)."
# Sizes as published: other widths do not say how many heads there are.
GPT2_HEADS = {768: 12, 1024: 16, 1280: 20, 1600: 25}
WRAPPED = re.compile(r"^(?:_orig_mod\.|module\.)+")  # by torch.compile and DistributedDataParallel


@dataclass(frozen=True)
class Asked:
    """What the person who imports says of the checkpoint."""

    dialect: str = "auto"
    tokenizer: Path | None = None
    chars: Path | None = None
    n_head: int | None = None
    attention_scale: str | None = None  # "head" or "embd"


@dataclass(frozen=True)
class Checkpoint:
    """A foreign checkpoint as it is found: weights by their names, and what is said beside them."""

    path: Path
    weights: dict[str, Weight]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """The same as a GPT: weights by our names, in the layout of GPT.state_dict()."""

    dialect: str
    config: GPTConfig
    weights: dict[str, Weight]
    notes: tuple[str, ...] = ()  # what was taken for granted: for the card


def unwrapped(weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """weights without the prefixes that training tools put before all names."""
    return {WRAPPED.sub("", name): weight for name, weight in weights.items()}


def renamed(checkpoint: Checkpoint, rules: Rules, dialect: str) -> dict[str, Weight]:
    """Weights by our names; raises CheckpointError for a name the dialect does not have."""
    found: dict[str, Weight] = {}
    for theirs, weight in checkpoint.weights.items():
        ours = next((m.expand(new) for old, new in rules if (m := re.fullmatch(old, theirs))), None)
        if ours is None:
            raise CheckpointError(
                f"{checkpoint.path} holds {theirs[:80]!r}, which no {dialect} has: this network "
                "differs from those in docs/checkpoints.md. Use the program that trained it."
            )
        if ours in found:
            raise CheckpointError(
                f"{checkpoint.path} holds {theirs[:80]!r} under two names. {AGAIN}"
            )
        if ours:
            found[ours] = weight
    return found


def fused(weights: Mapping[str, Weight], query_factor: float = 1.0) -> dict[str, Weight]:
    """Weights with h.N.attn.{q,k,v}.HEAD.weight joined into h.N.attn.c_attn.weight, biases too;
    HEAD is empty where one matrix serves all heads.

    query_factor times the queries is how another attention scale than GPT-2's is kept.
    """
    rest = {name: weight for name, weight in weights.items() if not _PART.fullmatch(name)}
    parts: dict[tuple[str, str], dict[tuple[int, int], Weight]] = {}
    for name, weight in weights.items():
        if match := _PART.fullmatch(name):
            layer, which, head, kind = match.groups()
            factor = query_factor if which == "q" else 1.0
            place = ("qkv".index(which), int(head or 0))
            parts.setdefault((layer, kind), {})[place] = scaled(weight, factor)
    for (layer, kind), found in parts.items():
        rest[f"{layer}.attn.c_attn.{kind}"] = joined([found[place] for place in sorted(found)])
    return rest


_PART = re.compile(r"(h\.\d+)\.attn\.([qkv])\.(\d*)\.(weight|bias)")


def separate_heads(weights: Mapping[str, Weight]) -> int:
    """How many heads have query matrices of their own, before they are fused; 0 for none."""
    found = {match[3] for name in weights if (match := _PART.fullmatch(name))}
    return len(found - {""})


def network(
    checkpoint: Checkpoint,
    dialect: str,
    weights: dict[str, Weight],
    *,
    n_head: int,
    activation: str,
    missing_biases: bool = True,
    layer_norm_epsilon: float = 1e-5,
    notes: tuple[str, ...] = (),
) -> Network:
    """A Network whose other sizes are those of its weights.

    An output head equal to the token embedding is stored once. Raises CheckpointError where the
    tensors are not those of one GPT.
    """
    path = checkpoint.path
    sizes = {
        "vocab_size": _size(path, weights, "wte.weight", 0),
        "block_size": _size(path, weights, "wpe.weight", 0),
        "n_embd": _size(path, weights, "wte.weight", 1),
        "n_layer": len({name.split(".")[1] for name in weights if name.startswith("h.")}),
        "n_head": n_head,
    }
    for _, (name, largest) in CONFIG_SIZES.items():
        if not 1 <= sizes[name] <= largest:
            raise CheckpointError(
                f"{path}: {name} is {sizes[name]:,}, not from 1 to {largest:,}: no "
                f"{dialect} is of that size. {AGAIN}"
            )
    inner = _size(path, weights, "h.0.mlp.c_fc.weight", 0)
    head = weights.get("lm_head.weight")
    tied = head is None or same(head, weights["wte.weight"])
    try:
        config = GPTConfig(
            **sizes,
            n_inner=None if inner == 4 * sizes["n_embd"] else inner,
            activation=activation,
            layer_norm_epsilon=layer_norm_epsilon,
            tied=tied,
            output_bias="lm_head.bias" in weights,
        )
    except ValueError as error:
        way_out = "Say it with --n-head." if "n_head" in str(error) else AGAIN
        raise CheckpointError(f"{path}: {error}. {way_out}") from None
    return Network(dialect, config, complete(path, config, weights, missing_biases), notes)


def complete(
    path: Path, config: GPTConfig, weights: dict[str, Weight], missing_biases: bool
) -> dict[str, Weight]:
    """The weights of a GPT of this config in its order, each of the shape that it must have."""
    layers = {name.split(".")[1] for name in weights if name.startswith("h.")}
    if len(layers) != config.n_layer:  # said at once: to build 500 layers takes seconds
        raise CheckpointError(
            f"{path} holds {len(layers)} layers, and its config.json makes it {config.n_layer}. "
            f"These are not of one model. {AGAIN}"
        )
    with torch.device("meta"):
        wanted = GPT(config).state_dict()
    found: dict[str, Weight] = {}
    for name, tensor in wanted.items():
        weight = weights.get("wte.weight" if config.tied and name == "lm_head.weight" else name)
        if weight is None and missing_biases and name.endswith(".bias"):
            weight = zeros(tensor.shape, weights["wte.weight"].dtype)
        if weight is None:
            raise CheckpointError(
                f"{path} lacks a part of the model, {name} as GPT-2 calls it: it is not complete, "
                f"or its network differs from those in docs/checkpoints.md. {AGAIN}"
            )
        if weight.shape != tuple(tensor.shape):
            raise CheckpointError(
                f"{path}: {name}, as GPT-2 calls it, is {weight.shape}, and the other tensors "
                f"make it {tuple(tensor.shape)}. These are not of one model. "
                f"{AGAIN}"
            )
        found[name] = weight
    extra = next((name for name in weights if name not in found), None)
    if extra is not None:
        raise CheckpointError(
            f"{path} holds {extra}, which has no place among its other tensors. {AGAIN}"
        )
    return found


def heads(checkpoint: Checkpoint, asked: Asked, n_embd: int) -> tuple[int, tuple[str, ...]]:
    """The number of attention heads, which matrices do not show, and a note where it is assumed."""
    if asked.n_head is not None:
        return asked.n_head, ()
    if n_embd in GPT2_HEADS:
        number = GPT2_HEADS[n_embd]
        return number, (f"{number} attention heads, as GPT-2 has at width {n_embd:,}",)
    raise CheckpointError(
        f"{checkpoint.path} does not say how many attention heads its layers of width {n_embd:,} "
        "have: add --n-head N, the n_heads or n_head it was trained with."
    )


def width(checkpoint: Checkpoint, weights: Mapping[str, Weight]) -> int:
    """n_embd of a checkpoint: the width of its token embedding."""
    return _size(checkpoint.path, weights, "wte.weight", 1)


def _size(path: Path, weights: Mapping[str, Weight], name: str, axis: int) -> int:
    weight = weights.get(name)
    if weight is None or len(weight.shape) != 2:
        raise CheckpointError(
            f"{path} lacks a part of the model, {name} as GPT-2 calls it: it is not complete. "
            f"{AGAIN}"
        )
    return weight.shape[axis]
