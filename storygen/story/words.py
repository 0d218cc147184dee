"""Words: where two texts differ, what a writer changed in a model's words, and where some occur."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from storygen.errors import StoryError

Change = tuple[Literal["same", "left", "right"], str]
Span = tuple[int, int]

MAX_SOUGHT = 500
_FINE = 4_000  # words that are compared one by one; of more, only lines that differ as a whole
_WORD = re.compile(r"\w+|\s+|[^\w\s]")
_LINE = re.compile(r"[^\n]*\n+|[^\n]+")


def differences(left: str, right: str) -> list[Change]:
    """What both texts have, and what only one of them has, in their order.

    The same and the left pieces joined give left, the same and the right ones right. Lines are
    compared first, then the words of those that differ.
    """
    found: list[Change] = []
    for a, b in _differing(_LINE.findall(left), _LINE.findall(right)):
        if a == b:
            found.append(("same", "".join(a)))
            continue
        words = _WORD.findall("".join(a)), _WORD.findall("".join(b))
        pairs = _differing(*words) if max(map(len, words)) <= _FINE else [words]
        for old, new in pairs:
            if old == new:
                found.append(("same", "".join(old)))
                continue
            if old:
                found.append(("left", "".join(old)))
            if new:
                found.append(("right", "".join(new)))
    return found


def changed_spans(before: str, after: str) -> list[Span]:
    """Where in `after` stands what is not in `before`."""
    spans: list[Span] = []
    here = 0
    for kind, text in differences(before, after):
        if kind == "right":
            spans.append((here, here + len(text)))
        if kind != "left":
            here += len(text)
    return spans


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
        return (found.span() for found in self._pattern.finditer(text))

    def replaced(self, text: str, new: str) -> str:
        """text with every one of these places worded anew."""
        return self._pattern.sub(lambda _: new, text)

    @property
    def _pattern(self) -> re.Pattern[str]:
        pattern = re.escape(self.text)
        if self.words:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        return re.compile(pattern, 0 if self.case else re.IGNORECASE)


def _differing(left: list[str], right: list[str]) -> list[tuple[list[str], list[str]]]:
    """Stretches of both lists, side by side: equal ones, and those that differ."""
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    return [(left[a:b], right[c:d]) for _, a, b, c, d in matcher.get_opcodes()]
