"""Models whose weights are never looked at, for engines that do not compute."""

from pathlib import Path

from storygen import checkpoints
from storygen.corpora.__main__ import VOCABULARY
from storygen.model import GPT, GPTConfig
from storygen.tokenizers import CharTokenizer, Tokenizer

ALPHABET = CharTokenizer("".join(map(chr, range(32, 127))) + "\n")
ANY_TEXT = checkpoints.load_tokenizer(VOCABULARY)


def tiny(tokenizer: Tokenizer) -> GPTConfig:
    """The shape of such a model."""
    size = tokenizer.vocab_size
    return GPTConfig(vocab_size=size, block_size=512, n_layer=1, n_head=1, n_embd=8)


def make_weights(folder: Path, *names: str, tokenizer: Tokenizer = ALPHABET) -> Path:
    """A weights directory with models of these names."""
    for name in names:
        checkpoints.save(folder / name, GPT(tiny(tokenizer)), tokenizer)
    return folder
