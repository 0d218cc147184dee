"""Training of our own byte-level BPE vocabulary, shared by every BPE model we train."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer as Trained
from tokenizers import models, pre_tokenizers, trainers

from storygen.errors import TrainError
from storygen.text import plain_typography
from storygen.tokenizers import END_OF_TEXT, BPETokenizer, bpe_from_files

FILES = ("vocab.json", "merges.txt")


def train_bpe(texts: Iterable[str], vocab_size: int) -> BPETokenizer:
    """A vocabulary of vocab_size tokens: the 256 bytes, <|endoftext|>, and the merges that
    shorten the texts most (Sennrich et al. 2016; on bytes as in GPT-2, Radford et al. 2019).
    Texts are read in plain typography, and so is whatever it will encode.

    Raises TrainError when the texts are too small to fill it.
    """
    trained = Trained(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.train_from_iterator(
        (plain_typography(text) for text in texts),
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if trained.get_vocab_size() != vocab_size:
        raise TrainError(
            f"The texts give {trained.get_vocab_size():,} tokens, not {vocab_size:,}: "
            "add text or ask for a smaller vocabulary."
        )
    with tempfile.TemporaryDirectory() as folder:  # the library tells its merges through files
        trained.model.save(folder)
        vocab, merges = (Path(folder, name).read_text("utf-8") for name in FILES)
    return bpe_from_files(vocab, merges, plain=True)
