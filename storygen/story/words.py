"""Words: where two texts differ, what a writer changed in a model's words, and where some occur."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import Match, SequenceMatcher
from functools import lru_cache
from itertools import accumulate
from typing import Literal

from storygen.errors import StoryError

Change = tuple[Literal["same", "left", "right"], str]
Span = tuple[int, int]
_Stretch = tuple[list[str], list[str]]

MAX_SOUGHT = 500
REMEMBERED = 5000  # characters of two texts
_MOST_STEPS = 10_000_000  # of what is compared for one answer; it takes a second then
_MOST_PIECES = 500_000  # of two texts that are compared piece by piece
_WORD = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")
_LINE = re.compile(r"[^\n]*\n+|[^\n]+")


class Effort:
    """What comparing may still cost, in steps: whatever the texts are, one answer ends soon."""

    def __init__(self, steps: int | None = None) -> None:
        self.left = _MOST_STEPS if steps is None else steps

    def takes(self, steps: int) -> bool:
        """Whether so many may be made, which they are then."""
        if steps > self.left:
            return False
        self.left -= steps
        return True


def differences(left: str, right: str, effort: Effort | None = None) -> list[Change]:
    """What both texts have, and what only one of them has, in their order.

    The same and the left pieces joined give left, the same and the right ones right. Lines are
    compared first, then the words of those that differ, each with the space before it. Where the
    effort is spent, what was not compared yet differs as a whole.
    """
    effort = effort or Effort()
    found: list[Change] = []
    for a, b in _differing(_pieces(_LINE, left), _pieces(_LINE, right), effort):
        for old, new in [(a, b)] if a == b else _by_words("".join(a), "".join(b), effort):
            if old == new:
                found.append(("same", "".join(old)))
                continue
            if old:
                found.append(("left", "".join(old)))
            if new:
                found.append(("right", "".join(new)))
    return found


def changed_spans(before: str, after: str, effort: Effort) -> tuple[Span, ...]:
    """Where in `after` stands what is not in `before`; all of it where the effort is spent.

    Remembered of passages of the usual length: of long ones four thousand would fill the memory.
    """
    if not effort.takes(len(before) + len(after)):
        return ((0, len(after)),) if after else ()
    if len(before) + len(after) > REMEMBERED:
        return _changed(before, after, effort)
    spans, steps = _remembered(before, after)
    effort.takes(min(steps, effort.left))  # also of what was remembered: the answer is the same
    return spans


@lru_cache(maxsize=4096)
def _remembered(before: str, after: str) -> tuple[tuple[Span, ...], int]:
    """The changed spans, and the steps that they took."""
    effort = Effort(_MOST_STEPS)
    spans = _changed(before, after, effort)
    return spans, _MOST_STEPS - effort.left


def _changed(before: str, after: str, effort: Effort) -> tuple[Span, ...]:
    spans: list[Span] = []
    here = 0
    for kind, text in differences(before, after, effort):
        if kind == "right":
            spans.append((here, here + len(text)))
        if kind != "left":
            here += len(text)
    return tuple(spans)


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
            if self.words and (is_word(text[start - 1 : start]) or is_word(text[here : here + 1])):
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


def is_word(character: str) -> bool:
    """Whether a character is part of a word, as regular expressions have it; none is not."""
    return character.isalnum() or character == "_"


def _by_words(left: str, right: str, effort: Effort) -> list[_Stretch]:
    if not effort.takes(len(left) + len(right)):
        return [([left], [right])]
    return _differing(_pieces(_WORD, left), _pieces(_WORD, right), effort)


def _differing(left: list[str], right: list[str], effort: Effort) -> list[_Stretch]:
    """Stretches of both lists, side by side: equal ones, and those that differ.

    Where too much is alike, as in two texts of the same few words, what lies between the first and
    the last difference is one stretch.
    """
    n = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), None)
    start = min(len(left), len(right)) if n is None else n
    end = 0
    while end < min(len(left), len(right)) - start and left[-1 - end] == right[-1 - end]:
        end += 1
    stretches = [
        (left[:start], right[:start]),
        *_between(left[start : len(left) - end], right[start : len(right) - end], effort),
        (left[len(left) - end :], right[len(right) - end :]),
    ]
    return [(old, new) for old, new in stretches if old or new]


def _between(a: list[str], b: list[str], effort: Effort) -> Iterator[_Stretch]:
    """The stretches by their longest equal runs, as SequenceMatcher has them, as far as the effort
    goes: to find one takes as many steps as there are pieces in `a` and equal pairs with `b`, and
    there may be as many runs as pieces."""
    among = Counter(b) if len(a) + len(b) <= _MOST_PIECES else None
    steps = [0, *accumulate(1 + among[piece] for piece in a)] if among is not None else []
    equal: list[Match] = []
    if steps and steps[-1] <= effort.left:
        matcher = SequenceMatcher(None, a, b, autojunk=False)
        within = [(0, len(a), 0, len(b))]
        while within:
            first, last, b_first, b_last = within.pop()
            if first == last or b_first == b_last or not effort.takes(steps[last] - steps[first]):
                continue
            run = matcher.find_longest_match(first, last, b_first, b_last)
            if run.size:
                equal.append(run)
                within.append((run.a + run.size, last, run.b + run.size, b_last))
                within.append((first, run.a, b_first, run.b))
    here = there = 0
    for i, j, size in [*sorted(equal), (len(a), len(b), 0)]:
        yield a[here:i], b[there:j]
        yield a[i : i + size], b[j : j + size]
        here, there = i + size, j + size
