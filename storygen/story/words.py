"""Words: where two texts differ, what a writer changed in a model's words, and where some occur."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Literal

from storygen.errors import StoryError

Change = tuple[Literal["same", "left", "right"], str]
Span = tuple[int, int]

MAX_SOUGHT = 500
REMEMBERED = 5000  # characters of two texts
_MOST_PAIRS = 1_000_000  # of equal pieces that one comparison looks at; it takes a second then
_MOST_PIECES = 500_000  # of two texts that are compared piece by piece
_WORD = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")
_LINE = re.compile(r"[^\n]*\n+|[^\n]+")


def differences(left: str, right: str) -> list[Change]:
    """What both texts have, and what only one of them has, in their order.

    The same and the left pieces joined give left, the same and the right ones right. Lines are
    compared first, then the words of those that differ, each with the space before it.
    """
    found: list[Change] = []
    for a, b in _differing(_pieces(_LINE, left), _pieces(_LINE, right)):
        if a == b:
            found.append(("same", "".join(a)))
            continue
        for old, new in _differing(_pieces(_WORD, "".join(a)), _pieces(_WORD, "".join(b))):
            if old == new:
                found.append(("same", "".join(old)))
                continue
            if old:
                found.append(("left", "".join(old)))
            if new:
                found.append(("right", "".join(new)))
    return found


def changed_spans(before: str, after: str) -> tuple[Span, ...]:
    """Where in `after` stands what is not in `before`. Remembered of passages of the usual length:
    of long ones four thousand would fill the memory."""
    return (_remembered if len(before) + len(after) <= REMEMBERED else _changed)(before, after)


def _changed(before: str, after: str) -> tuple[Span, ...]:
    spans: list[Span] = []
    here = 0
    for kind, text in differences(before, after):
        if kind == "right":
            spans.append((here, here + len(text)))
        if kind != "left":
            here += len(text)
    return tuple(spans)


_remembered = lru_cache(maxsize=4096)(_changed)


@dataclass(frozen=True)
class Sought:
    """Text to look for: exactly, or in any case; anywhere, or as whole words only."""

    text: str
    case: bool = False
    words: bool = False

    def __post_init__(self) -> None:
        if not 0 < len(self.text) <= MAX_SOUGHT:
            raise StoryError(
                f"Text of {len(self.text):,} characters cannot be looked for: 1 to "
                f"{MAX_SOUGHT} can."
            )

    def spans(self, text: str) -> Iterator[Span]:
        """Where it stands in text, from the first place to the last, none overlapping."""
        body, wanted = text, self.text
        if not self.case and len(body.lower()) == len(body):  # a few letters become two
            body, wanted = body.lower(), wanted.lower()
        here = 0
        while (start := body.find(wanted, here)) >= 0:
            here = start + len(wanted)
            if self.words and (
                _is_word(text[start - 1 : start]) or _is_word(text[here : here + 1])
            ):
                here = start + 1
            else:
                yield start, here

    def measured(self, text: str, new: str) -> tuple[int, int]:
        """In how many places it stands, and how long text would be with new in each: known without
        making that, since of a letter put in for another there may be a million."""
        count, length = 0, len(text)
        for start, end in self.spans(text):
            count += 1
            length += len(new) - (end - start)
        return count, length

    def replaced(self, text: str, new: str) -> str:
        """text with every one of these places worded anew."""
        parts, here = [], 0
        for start, end in self.spans(text):
            parts += [text[here:start], new]
            here = end
        return "".join([*parts, text[here:]])


def _pieces(pattern: re.Pattern[str], text: str) -> list[str]:
    """What findall finds, one by one: in one call, of a long text, no other thread had its turn."""
    return [found[0] for found in pattern.finditer(text)]


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _differing(left: list[str], right: list[str]) -> list[tuple[list[str], list[str]]]:
    """Stretches of both lists, side by side: equal ones, and those that differ.

    Where too much is alike, as in two texts of the same few words, what lies between the first and
    the last difference is one stretch: time would grow with the number of equal pairs.
    """
    n = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
    start = min(len(left), len(right)) if n is None else n
    end = 0
    while end < min(len(left), len(right)) - start and left[-1 - end] == right[-1 - end]:
        end += 1
    a, b = left[start : len(left) - end], right[start : len(right) - end]
    among_right = Counter(b) if len(a) + len(b) <= _MOST_PIECES else None
    if (
        among_right is not None
        and sum(count * among_right[piece] for piece, count in Counter(a).items()) <= _MOST_PAIRS
    ):
        codes = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
        between = [(a[i:j], b[k:m]) for _, i, j, k, m in codes]
    else:
        between = [(a, b)]
    ends = [
        (left[:start], right[:start]),
        *between,
        (left[len(left) - end :], right[len(right) - end :]),
    ]
    return [(old, new) for old, new in ends if old or new]
