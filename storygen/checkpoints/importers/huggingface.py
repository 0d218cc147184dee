"""GPT-2 as Hugging Face's transformers keeps it, in safetensors or pickled, whole or in shards,
with or without the prefix `transformer.`. config.json beside the weights says what they are."""

from pathlib import Path

from storygen.checkpoints import hf
from storygen.checkpoints.importers.nanogpt import RULES
from storygen.checkpoints.importers.network import (
    Asked,
    Checkpoint,
    Network,
    complete,
    heads,
    network,
    renamed,
    width,
)
from storygen.checkpoints.weights import turned

DIALECT = "GPT-2 of transformers"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def translate(checkpoint: Checkpoint, asked: Asked) -> Network:
    """The checkpoint as a Network."""
    weights = {
        name: turned(weight) if name.endswith(hf.CONV1D) and len(weight.shape) == 2 else weight
        for name, weight in renamed(checkpoint, RULES, DIALECT).items()
    }
    directory = checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent
    if not (directory / "config.json").is_file():
        n_head, notes = heads(checkpoint, asked, width(checkpoint, weights))
        return network(
            checkpoint, DIALECT, weights, n_head=n_head, activation="gelu_new", notes=notes
        )
    config = hf.read_config(directory)
    if config.tied:
        weights.pop("lm_head.weight", None)
    return Network(DIALECT, config, complete(checkpoint.path, config, weights, False))


def weight_files(directory: Path) -> list[Path]:
    """The files that a directory's weights are in: safetensors, and pickles only without them."""
    pickled, index = (directory / name for name in PICKLES)
    if (directory / hf.INDEX).is_file() or (directory / hf.WEIGHTS).is_file():
        return list(hf.weight_files(directory))
    if index.is_file():
        return list(hf.indexed_files(index))
    return [pickled] if pickled.is_file() else []
