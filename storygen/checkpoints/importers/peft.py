"""A LoRA adapter of PEFT over a GPT-2, merged into one network: W + (alpha / r) B A.

Any of GPT-2's matrices may have been adapted. The base is a directory, a model in the weights
directory, or a name on the hub.
"""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from storygen.checkpoints.adapter_files import BASE, CONFIG, MAX_RANK, WEIGHTS
from storygen.checkpoints.hf import AGAIN
from storygen.checkpoints.importers.network import Checkpoint, Network
from storygen.checkpoints.json_files import read_json
from storygen.checkpoints.weights import Weight
from storygen.errors import CheckpointError

DIALECT = "LoRA adapter of PEFT"
PICKLE = "adapter_model.bin"
FILES = (WEIGHTS, PICKLE)
_PREFIXES = ("base_model.model.transformer.", "base_model.model.")
_OTHER_KINDS = ("use_dora", "use_qalora", "modules_to_save", "lora_bias")
# Ways to begin a training that leave the base as it was. Others, pissa, olora, corda, loftq and
# lora_ga, change it, and save what they have learnt over the changed one.
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
_TIED = ("wte.weight", "lm_head.weight")


def base_name(directory: Path) -> str:
    """What an adapter says it was trained over."""
    name = read_json(directory / CONFIG).get(BASE)
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{directory / CONFIG} names no base model: add it as {BASE}.")
    return name


def merge(checkpoint: Checkpoint, base: Network) -> Network:
    """The base with the adapter's changes; base has its weights as torch.nn.Linear has them."""
    config_path = checkpoint.path / CONFIG
    config = read_json(config_path)
    _check_kind(config_path, config)
    changes: dict[str, dict[str, Weight]] = {}
    scales: dict[str, float] = {}
    for name, weight in checkpoint.weights.items():
        layer, _, which = name.removesuffix(".weight").rpartition(".lora_")
        prefix = next((p for p in _PREFIXES if layer.startswith(p)), "")
        ours = f"{layer.removeprefix(prefix)}.weight"
        if which not in ("A", "B") or ours not in base.weights or len(weight.shape) != 2:
            raise CheckpointError(
                f"{checkpoint.path} changes {name[:80]!r}, which its base does not have, or not "
                "by LoRA alone: merge it with PEFT's merge_and_unload() and import the result."
            )
        changes.setdefault(ours, {})[which] = weight
        if which == "A":
            module = layer.removeprefix(_PREFIXES[-1])
            scales[ours] = _scale(config_path, config, module, weight.shape[0])
    if not changes:
        raise CheckpointError(
            f"{checkpoint.path} changes nothing: its file holds no tensors. "
            "Copy or download it again."
        )
    merged = base.config
    if merged.tied and any(name in changes for name in _TIED):
        if _TIED[0] in changes:
            raise CheckpointError(
                f"{checkpoint.path} changes the token embedding, which is its base's output head "
                "as well: merge it with PEFT's merge_and_unload() and import the result."
            )
        merged = replace(merged, tied=False)  # the head changes, the embedding does not
    weights = dict(base.weights)
    for ours, pair in changes.items():
        a, b = pair.get("A"), pair.get("B")
        rows, columns = weights[ours].shape
        if a is None or b is None or (b.shape[0], *a.shape) != (rows, b.shape[1], columns):
            raise CheckpointError(
                f"{checkpoint.path}: the change of {ours} is not of its base's size {rows} x "
                f"{columns}. It was trained over another model: say which in {CONFIG}, as {BASE}."
            )
        weights[ours] = _changed(weights[ours], a, b, scales[ours])
    return replace(base, dialect=f"{DIALECT} over {base.dialect}", config=merged, weights=weights)


def _check_kind(path: Path, config: dict[str, Any]) -> None:
    """Raise CheckpointError for what is not W + (alpha / r) B A over a base as it was published."""
    if config.get("peft_type") != "LORA" or any(config.get(kind) for kind in _OTHER_KINDS):
        raise CheckpointError(
            f"{path} is of an adapter that is not plain LoRA: merge it with PEFT's "
            "merge_and_unload() and import the result."
        )
    start = config.get("init_lora_weights", True)
    if start not in _STARTS:
        raise CheckpointError(
            f"{path}: init_lora_weights is {str(start)[:40]!r}, and such a training may have "
            "changed its base before it began. Merge it with PEFT's merge_and_unload(), in the "
            "program that trained it, and import the result."
        )
    if config.get("layer_replication"):
        raise CheckpointError(
            f"{path} repeats layers of its base (layer_replication), which makes another network: "
            "merge it with PEFT's merge_and_unload() and import the result."
        )


def _scale(path: Path, config: dict[str, Any], module: str, rows: int) -> float:
    """alpha / r, or alpha / sqrt(r), of a module whose A has rows rows."""
    rank, alpha = _said(path, config, "r", module), _said(path, config, "lora_alpha", module)
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise CheckpointError(
            f"{path}: r is {str(rank)[:40]}, not a number from 1 to {MAX_RANK}. {AGAIN}"
        )
    if not isinstance(alpha, int | float) or not 0 < alpha < 1e6:
        raise CheckpointError(
            f"{path}: lora_alpha is {str(alpha)[:40]}, not a positive number. {AGAIN}"
        )
    if rank != rows:
        raise CheckpointError(
            f"{path} makes the rank of {module[:80]} {rank}, and the file has one of {rows}: these "
            f"are not of one adapter. {AGAIN}"
        )
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _said(path: Path, config: dict[str, Any], key: str, module: str) -> Any:
    """r or lora_alpha of a module, which may have its own by the end of its name."""
    own = config.get({"r": "rank_pattern", "lora_alpha": "alpha_pattern"}[key]) or {}
    if not isinstance(own, dict) or not all(re.fullmatch(r"[\w.]+", name) for name in own):
        raise CheckpointError(
            f"{path} gives modules their own {key} by more than their names: merge it with PEFT's "
            "merge_and_unload() and import the result."
        )
    names = (name for name in own if f".{module}".endswith(f".{name}"))
    return own.get(next(names, ""), config.get(key))


def _changed(weight: Weight, a: Weight, b: Weight, scale: float) -> Weight:
    """weight (out, in) + scale * B (out, r) A (r, in). As exact as float32."""
    dtype = max((weight.dtype, a.dtype), key=lambda d: d.itemsize)
    return Weight(
        weight.shape,
        dtype,
        lambda: (weight.read().float() + scale * (b.read().float() @ a.read().float())).to(dtype),
    )
