"""Bits per byte of a model on excerpts, with characters that its vocabulary lacks paid for."""

import math
from collections.abc import Sequence

from storygen.model import GPT
from storygen.tokenizers import Tokenizer, readable
from storygen.train.evaluate import Score, score_text

UNICODE = 1_112_064  # characters that UTF-8 can hold


def score_excerpts(model: GPT, tokenizer: Tokenizer, excerpts: Sequence[str]) -> Score:
    """One score for all excerpts, each read from its beginning.

    A character that a vocabulary lacks is left out of what the model reads and paid for as whoever
    decodes would have to be told of it: that it is there, where, and which of Unicode's it is.
    """
    total = Score(0, 0, 0.0)
    for text in excerpts:
        known = readable(tokenizer, text)
        lacking = len(text) - len(known)
        read = score_text(model, tokenizer, known) if known else Score(0, 0, 0.0)
        told = Score(lacking, len(text.encode()) - len(known.encode()), _nats(len(text), lacking))
        total += read + told
    return total


def _nats(n: int, lacking: int) -> float:
    """What naming `lacking` of n characters takes: how many, which places, and what they are."""
    if not lacking:
        return 0.0
    places = math.log(math.comb(n, lacking))
    return math.log(n + 1) + places + lacking * math.log(UNICODE)
