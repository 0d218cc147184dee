"""Opening a model: from weights that were rounded before and kept, or from those it came with."""

import logging
from collections.abc import Callable
from pathlib import Path

import torch

from storygen import checkpoints
from storygen.checkpoints.packed import (
    describe,
    packed_file,
    read_packed,
    save_packed,
    sources_now,
)
from storygen.decode.choose import Arithmetic, native_decoder, open_decoder
from storygen.decode.interface import Decoder
from storygen.decode.weights import packed, unfilled, vector_shapes
from storygen.errors import CheckpointError
from storygen.model import GPT
from storygen.tokenizers import Tokenizer

log = logging.getLogger(__name__)

Loader = Callable[[Path, torch.device, torch.dtype | None], tuple[GPT, Tokenizer]]


def open_model(
    by: Arithmetic, directory: Path, slots: int, threads: int, load: Loader = checkpoints.load
) -> tuple[Decoder, Tokenizer]:
    """A decoder for so many stories at a time, and the tokenizer; load reads a directory."""
    if by.library is not None and packed_file(directory, by.form).is_file():
        try:
            return open_packed(by, directory, slots, threads)
        except CheckpointError as error:
            log.warning("%s", error)
    network, tokenizer = load(directory, by.device, by.load_dtype)
    return open_decoder(by, network, slots, threads), tokenizer


def open_packed(
    by: Arithmetic, directory: Path, slots: int, threads: int
) -> tuple[Decoder, Tokenizer]:
    """The same from kept weights alone; raises CheckpointError where they cannot be used."""
    config, tokenizer = describe(directory)
    matrices = unfilled(config, by.form)
    vectors = {name: torch.empty(shape) for name, shape in vector_shapes(config).items()}
    read_packed(directory, by.form, vectors | {name: m.data for name, m in matrices.items()})
    return native_decoder(by, config, vectors, slots, threads, matrices), tokenizer


def quantize(directory: Path, form: str) -> Path:
    """Keep a model's weights in a form beside it; the file's path."""
    made_of = sources_now(directory)
    network, _ = checkpoints.load(directory, dtype=None)
    weights, config = network.state_dict(), network.config
    vectors = {name: weights[name].float() for name in vector_shapes(config)}
    matrices = {name: m.data for name, m in packed(config, weights, form).items()}
    return save_packed(directory, form, vectors | matrices, made_of)
