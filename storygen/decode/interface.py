"""Decoder: a model that computes tokens for several stories, each in a slot of its own."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from storygen.model.config import GPTConfig
from storygen.params import Row


class Token(NamedTuple):
    """One row of a step: a token at a position of a slot."""

    slot: int
    position: int
    id: int


class Decoder(Protocol):
    """Slots remember the tokens they were given, so that each is computed once.

    The rows of a step are tokens of any slots, those of one slot in the order of their positions
    and without gaps. The first goes on where the slot's memory ends, or earlier: what was
    remembered from there on is forgotten. At most max_rows rows; not for two threads at once.
    rows_are_independent says that a row's numbers are the same to the bit whatever is beside it,
    other rows of its own slot too.
    """

    config: GPTConfig
    n_slots: int
    max_rows: int
    rows_are_independent: bool

    def step(
        self, rows: Sequence[Token], out: Sequence[int], choices: Sequence[Row], n_tokens: int
    ) -> list[int | None]:
        """Compute rows and draw the token after each of those in out (indices of rows), one choice
        each, among the first n_tokens of the vocabulary; None where logits are no numbers."""
        ...

    def logits(self, rows: Sequence[Token], out: Sequence[int]) -> np.ndarray:
        """Compute rows; the logits (len(out), vocab_size) of those in out, in float32 and until the
        next step."""
        ...

    def copy(self, source: int, target: int, n: int) -> None:
        """Let slot `target` remember the first n tokens of slot `source`, and no others."""
        ...

    def close(self) -> None:
        """Give the memory back."""
        ...
