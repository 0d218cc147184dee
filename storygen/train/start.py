"""The network a run begins with: a new one, a trained one, or a trained one to be adapted."""

from dataclasses import replace
from pathlib import Path

from storygen.checkpoints import load
from storygen.checkpoints.adapter_files import base_of
from storygen.checkpoints.hf import read_config
from storygen.checkpoints.hub import fetch
from storygen.errors import TrainError
from storygen.model import GPT
from storygen.model.lora import add_lora
from storygen.tokenizers import Tokenizer
from storygen.train.config import TrainConfig


def in_context(config: TrainConfig) -> TrainConfig:
    """This run in windows as long as the context of the model directory it begins with, where the
    recipe leaves block_size out: adapters fit a small base and a large one."""
    directory = Path(config.init)
    if not config.init or "block_size" in config.model_fields_set or not directory.is_dir():
        return config
    context = read_config(base_of(directory) or directory).block_size
    return config.model_copy(update={"block_size": context})


def first_model(config: TrainConfig, tokenizer: Tokenizer) -> GPT:
    """The model of a recipe before its first step.

    Raises TrainError when the model of `init` reads other tokens than the corpus is made of, or
    has a shorter context than the recipe's windows, and CheckpointError when it cannot be had.
    """
    if not config.init:
        return GPT(config.model_config_for(tokenizer.vocab_size)).init_weights()
    directory = Path(config.init)
    if config.lora_rank and not directory.is_dir():
        raise TrainError(
            f"{config.init} is no directory: an adapter needs its base model beside it, as in "
            "--init weights/base."
        )
    if config.lora_rank and (base := base_of(directory)):
        raise TrainError(
            f"{config.init} is an adapter itself, and an adapter needs a whole model: begin with "
            f"its base, --init {base}, or make one model of the two with python -m storygen export "
            f"{directory.name} --format hf --merge --out NAME."
        )
    loaded, theirs = load(directory if directory.is_dir() else fetch(config.init))
    if _tokens(theirs) != _tokens(tokenizer):
        raise TrainError(
            f"{config.init} reads other tokens than this corpus holds: prepare the corpus with "
            f"--tokenizer {config.init}."
        )
    if config.window_size > loaded.config.block_size:
        raise TrainError(
            f"{config.init} reads {loaded.config.block_size:,} tokens at once: set window to at "
            f"most that, not {config.window_size:,}."
        )
    model = GPT(replace(loaded.config, dropout=config.dropout))
    model.load_state_dict(loaded.state_dict())
    return add_lora(model, config.lora_rank, config.lora_alpha) if config.lora_rank else model


def _tokens(tokenizer: Tokenizer) -> list[object]:
    """What tells vocabularies apart: their tokens in order, and the typography they read."""
    return [tokenizer.plain, *map(tokenizer.token_bytes, range(tokenizer.vocab_size))]
