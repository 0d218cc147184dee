"""Opening a model: from weights that were rounded before and kept, or from those it came with."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from storygen import checkpoints
from storygen.checkpoints import adapter_files, hf
from storygen.checkpoints.ngrams import NGrams, read_ngrams
from storygen.checkpoints.packed import (
    describe,
    packed_file,
    read_packed,
    save_packed,
    sources_now,
)
from storygen.decode.choose import Arithmetic, native_decoder, open_decoder
from storygen.decode.interface import Decoder
from storygen.decode.weights import packed, unfilled
from storygen.errors import CheckpointError
from storygen.files import recovered
from storygen.model.config import GPTConfig
from storygen.model.shapes import vector_shapes
from storygen.tokenizers import Tokenizer

if TYPE_CHECKING:  # see decode/choose.py
    import torch

    from storygen.model import GPT

log = logging.getLogger(__name__)

Loader = Callable[[Path, str, "torch.dtype | None"], tuple["GPT", Tokenizer]]


def open_model(
    by: Arithmetic, directory: Path, slots: int, threads: int, load: Loader | None = None
) -> tuple[Decoder, Tokenizer]:
    """A decoder for so many stories at a time, and the tokenizer; load makes a network of a
    directory in its own way. Without it native code needs no network, and no PyTorch."""
    if by.library is not None and packed_file(directory, by.form).is_file():
        try:
            return open_packed(by, directory, slots, threads)
        except CheckpointError as error:
            log.warning("%s", error)
    if by.library is not None and load is None:
        config, tokenizer, weights = read_model(directory)
        return native_decoder(by, config, weights, slots, threads), tokenizer
    network, tokenizer = (load or checkpoints.load)(directory, by.device, by.load_dtype)
    return open_decoder(by, network, slots, threads), tokenizer


def open_packed(
    by: Arithmetic, directory: Path, slots: int, threads: int
) -> tuple[Decoder, Tokenizer]:
    """The same from kept weights alone; raises CheckpointError where they cannot be used."""
    config, tokenizer = describe(directory)
    matrices = unfilled(config, by.form)
    vectors = {name: np.empty(shape, np.float32) for name, shape in vector_shapes(config).items()}
    read_packed(directory, by.form, vectors | {name: m.data for name, m in matrices.items()})
    return native_decoder(by, config, vectors, slots, threads, matrices), tokenizer


def read_model(directory: Path) -> tuple[GPTConfig, Tokenizer, Mapping[str, np.ndarray]]:
    """A model as arrays, of which each is read when it is looked at, and no more than that is in
    memory; an adapter is put into its base's."""
    directory = recovered(directory)
    base = adapter_files.base_of(directory)
    config, tokenizer = hf.describe(base or directory)
    kind = hf.Weights if base is None else adapter_files.Merged
    return config, tokenizer, kind(directory, config)


def ngrams_of(directory: Path, tokenizer: Tokenizer) -> NGrams | None:
    """What a model's guesses are looked up in; it can do without."""
    try:
        return read_ngrams(recovered(directory), tokenizer)
    except CheckpointError as error:
        log.warning("%s", error)
        return None


def quantize(directory: Path, form: str) -> Path:
    """Keep a model's weights in a form beside it; the file's path."""
    made_of = sources_now(directory)
    config, _, weights = read_model(directory)
    vectors = {name: weights[name] for name in vector_shapes(config)}
    matrices = {name: m.data for name, m in packed(config, weights, form).items()}
    return save_packed(directory, form, vectors | matrices, made_of)
