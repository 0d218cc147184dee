"""Held-out bits per byte: the figure in which models of any vocabulary can be compared."""

import math
from dataclasses import asdict, dataclass

import numpy as np

from storygen.model import GPT
from storygen.model.score import token_logprobs
from storygen.tokenizers import Tokenizer

STRETCH = 4096  # tokens


@dataclass(frozen=True)
class Score:
    """How well a model predicts a text; nats is the sum over all tokens."""

    tokens: int
    bytes: int
    nats: float

    @property
    def bits_per_byte(self) -> float:
        """Bits a byte of the text would take, coded with the model's probabilities."""
        return self.nats / math.log(2) / self.bytes

    @property
    def perplexity(self) -> float:
        """exp of the mean loss of a token."""
        return math.exp(self.nats / self.tokens)

    def __add__(self, other: "Score") -> "Score":
        return Score(self.tokens + other.tokens, self.bytes + other.bytes, self.nats + other.nats)

    def as_dict(self) -> dict[str, float]:
        """The figures by name, those worked out included."""
        return asdict(self) | {"bits_per_byte": self.bits_per_byte, "perplexity": self.perplexity}


def score_text(model: GPT, tokenizer: Tokenizer, text: str) -> Score:
    """Score of one text, as a story that begins after the end-of-text token.

    Its bytes are those of the text as the model reads it: a curly quote of three bytes that is read
    as a straight one counts once, or the figure would flatter.
    """
    ids = tokenizer.encode(text)
    return _score(model, ids, _size(tokenizer, ids), tokenizer.eot_id)


def score_tokens(
    model: GPT, tokenizer: Tokenizer, ids: np.ndarray, limit: int | None = None
) -> Score:
    """Score of a prepared split (n,) uint16, story by story; where it has more than `limit` tokens,
    of about as many: evenly spaced stretches of stories, each as if one began there.

    The end-of-text tokens between stories hold no bytes and are not counted.
    """
    total = Score(0, 0, 0.0)
    stories = np.split(ids, np.flatnonzero(ids == tokenizer.eot_id))
    if limit is not None and len(ids) > limit:
        stretches = [s[at : at + STRETCH] for s in stories for at in range(0, len(s), STRETCH)]
        stories = stretches[:: math.ceil(len(ids) / limit)]
    for story in stories:
        plain = [int(i) for i in story if i != tokenizer.eot_id]
        if plain:
            total += _score(model, plain, _size(tokenizer, plain), tokenizer.eot_id)
    return total


def _score(model: GPT, ids: list[int], size: int, eot_id: int | None) -> Score:
    nats = -float(token_logprobs(model, ids, eot_id).double().sum())
    return Score(tokens=len(ids), bytes=size, nats=nats)


def _size(tokenizer: Tokenizer, ids: list[int]) -> int:
    return sum(len(tokenizer.token_bytes(i)) for i in ids)
