"""What passages are like, word by word: variety, repetition, inventions, how they end."""

import re
from collections.abc import Container, Sequence

from storygen.text import plain_typography

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_END = re.compile(r"[.!?…][\"'”’)\]]*\s*\Z")

Words = Sequence[str]


def words(text: str) -> list[str]:
    """Letters with apostrophes between them, case-folded: of a hyphenated word each part.

    >>> words("“Don’t—” said Watson’s half-brother, 42.")
    ["don't", 'said', "watson's", 'half', 'brother']
    """
    return _WORD.findall(plain_typography(text).casefold())


def distinct_2(passages: Sequence[Words]) -> float:
    """Share of different pairs among all pairs of neighbouring words (Li et al. 2016)."""
    pairs = [pair for passage in passages for pair in _grams(passage, 2)]
    return len(set(pairs)) / max(1, len(pairs))


def repeated_4(passages: Sequence[Words]) -> float:
    """Share of runs of four words that stood in the same passage before."""
    grams = [_grams(passage, 4) for passage in passages]
    repeats = sum(len(found) - len(set(found)) for found in grams)
    return repeats / max(1, sum(map(len, grams)))


def invented(passages: Sequence[Words], known: Container[str]) -> float:
    """Share of words that are not among the known ones."""
    unknown = sum(word not in known for passage in passages for word in passage)
    return unknown / max(1, sum(map(len, passages)))


def ends_at_sentence(text: str) -> bool:
    """Whether the last character but quotes and brackets ends a sentence."""
    return _END.search(text) is not None


def _grams(passage: Words, n: int) -> list[tuple[str, ...]]:
    return [tuple(passage[i : i + n]) for i in range(len(passage) - n + 1)]
