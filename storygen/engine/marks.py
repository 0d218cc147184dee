"""Marks: where a passage is, so that it can go on exactly there, in this engine or another.

A mark holds the tokens that its segment counts. What is not in it follows from the tokens, the
prompt and the settings, as the next token does: all that was held back is written again.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from storygen.errors import PromptError

END = "."  # of a mark, so that marks can be joined
LONGEST = 100_000  # characters of all marks of a passage
LARGEST = 2**32


class Mark(NamedTuple):
    """hidden is how many of the last token's characters were not shown yet; returns how often a
    passage had gone back, for banned phrases, to places from here on (0 is the next token's)."""

    tokens: Sequence[int]
    hidden: int = 0
    returns: Mapping[int, int] = {}


def written(mark: Mark) -> str:
    """A mark as text."""
    pairs = [number for pair in mark.returns.items() for number in pair]
    numbers = [len(mark.tokens), *mark.tokens, mark.hidden, *pairs]
    packed = b"".join(map(_varint, numbers))
    return base64.urlsafe_b64encode(packed).decode().rstrip("=") + END


def read(after: str) -> Mark:
    """What marks, joined, say together; raises PromptError for what are none."""
    tokens: list[int] = []
    mark = Mark(())
    try:
        if len(after) > LONGEST or not after.endswith(END):
            raise ValueError(after)
        for part in after[: -len(END)].split(END):
            packed = base64.b64decode(part + "=" * (-len(part) % 4), b"-_", validate=True)
            mark = _mark(list(_numbers(packed)))
            tokens += mark.tokens
    except (ValueError, binascii.Error):
        raise PromptError(
            "The marks to go on after cannot be read: give those of a passage's pieces, joined in "
            "their order."
        ) from None
    return mark._replace(tokens=tokens)


def _mark(numbers: list[int]) -> Mark:
    n = 1 + numbers[0] if numbers else 0
    if not n < len(numbers) or (len(numbers) - n) % 2 == 0:
        raise ValueError(numbers)
    pairs = numbers[n + 1 :]
    return Mark(numbers[1:n], numbers[n], dict(zip(pairs[::2], pairs[1::2], strict=True)))


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    low, rest = number & 127, number >> 7
    return bytes([low]) if not rest else bytes([low | 128]) + _varint(rest)


def _numbers(packed: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in packed:
        number |= (byte & 127) << shift
        shift += 7
        if number >= LARGEST:
            raise ValueError(number)
        if byte < 128:
            yield number
            number = shift = 0
    if shift:
        raise ValueError(packed)
