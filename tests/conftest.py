"""Tiny models that everything is tested with: random, so that nothing is learnt, but not flat."""

import os
from ctypes import CDLL
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from storygen import checkpoints
from storygen.decode.build import native_library
from storygen.model import GPT, GPTConfig
from storygen.tokenizers import BYTE_SPELLING, END_OF_TEXT, BPETokenizer, CharTokenizer

# A busy machine is no failure. Long runs (benchmarks/reliability/fuzz.py) try more examples.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
settings.register_profile("storygen", deadline=None, max_examples=EXAMPLES)
settings.load_profile("storygen")
torch.set_num_threads(1)  # models this small only wait for each other's threads

CHARACTERS = "\n !'(),-.:;?" + "".join(map(chr, range(65, 91))) + "".join(map(chr, range(97, 123)))

# Merges worked out by hand, in the order of training: " the" is one token, "hen" is two.
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "a"), ("e", "r"), ("Ġa", "n"), ("Ġan", "d")]


def random_model(vocab_size: int, block_size: int = 32, seed: int = 0, **config: object) -> GPT:
    """A GPT of 2 layers, width 32 and 2 heads, whose next token depends on all before it."""
    torch.manual_seed(seed)
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 32} | config
    model = GPT(GPTConfig(vocab_size=vocab_size, block_size=block_size, **sizes)).init_weights()
    with torch.no_grad():  # as initialised, all tokens are about as probable
        for weight in model.parameters():
            weight.mul_(8 if weight.dim() > 1 else 1)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="session")
def native_folder(pytestconfig: pytest.Config) -> Path:
    """Where decode.c is compiled to, once and for the next runs too."""
    return pytestconfig.cache.mkdir("native")


@pytest.fixture(scope="session")
def library(native_folder: Path) -> CDLL:
    """decode.c for this processor."""
    return native_library(native_folder)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> BPETokenizer:
    """Byte-level BPE: 256 bytes, seven merges, and the end of a text; 264 tokens."""
    spellings = [*BYTE_SPELLING.values(), *(a + b for a, b in MERGES), END_OF_TEXT]
    return BPETokenizer({spelling: token for token, spelling in enumerate(spellings)}, MERGES)


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: BPETokenizer) -> GPT:
    """A random model of tiny_tokenizer's vocabulary that reads 32 tokens. Do not change it."""
    return random_model(tiny_tokenizer.vocab_size)


@pytest.fixture(scope="session")
def tiny_weights(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: GPT, tiny_tokenizer: BPETokenizer
) -> Path:
    """A weights directory with a byte-level model `tiny` and a character-level one, `letters`."""
    weights = tmp_path_factory.mktemp("weights")
    checkpoints.save(weights / "tiny", tiny_model, tiny_tokenizer)
    letters = CharTokenizer(CHARACTERS)
    model = random_model(letters.vocab_size, block_size=64, seed=1)
    checkpoints.save(weights / "letters", model, letters)
    return weights
