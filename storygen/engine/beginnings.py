"""Beginnings of words, looked at in the order of their probability, until none is left that could
still become one of the best n words.

A word's probability is that of its tokens, one after another, times that of something following
that shows the word to be over.
"""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from heapq import heappop, heappush, nlargest
from typing import Generic, NamedTuple, TypeVar

from storygen.engine.interface import TokenScore, WordScore

APOSTROPHES = ("'", "’")
LONGEST_WORD = 40  # characters, where only texts are told
_LETTER = re.compile(r"[^\W_]")
_WORD = re.compile(r"\s*(?:[^\W_]+(?:['’][^\W_]+)*|(?:[^\w\s]|_)+)")

T = TypeVar("T")


class Path(NamedTuple, Generic[T]):
    """What may begin a word, as tokens or as text; the most probable is the least."""

    unlikeliness: float  # minus the probability
    start: T


class Search(Generic[T]):
    """Which beginnings to look at next, and the words found so far."""

    def __init__(self, n: int, nothing: T, most: int) -> None:
        """n words are wanted, for which so many beginnings at most are looked at."""
        self._n, self._most = n, most
        self._found = defaultdict[str, float](float)
        self._open = [Path(-1.0, nothing)]  # a heap
        self._n_read = 0

    def next(self, most: int) -> list[Path[T]]:
        """Up to so many paths whose next token is wanted; none when the best n are found."""
        paths: list[Path[T]] = []
        bar = self._bar()
        while self._open and len(paths) < most and self._n_read < self._most:
            if -self._open[0].unlikeliness <= bar:
                break
            paths.append(heappop(self._open))
            self._n_read += 1
        return paths

    def best(self) -> list[WordScore]:
        """The n most probable words found."""
        ranked = sorted(self._found.items(), key=lambda found: (-found[1], found[0]))
        return [WordScore(word, p) for word, p in ranked[: self._n]]

    def _is_over(self, word: str, probability: float) -> None:
        if word:
            self._found[word] += probability

    def _bar(self) -> float:
        """The probability that one of the best n has at least."""
        if len(self._found) < self._n:
            return 0.0
        return nlargest(self._n, self._found.values())[-1]


class TextSearch(Search[str]):
    """The search where one is told the text of the likeliest next tokens alone. The others are
    taken to end a word as often as these."""

    def __init__(self, n: int, most: int) -> None:
        super().__init__(n, "", most)

    def expand(self, path: Path[str], tokens: Sequence[TokenScore]) -> None:
        """Go on from a path, given the likeliest tokens after it; one without text ends a story."""
        chances = [math.exp(token.logprob) for token in tokens]
        told = sum(chances) if path.start else 1.0
        for token, chance in zip(tokens, chances, strict=True):
            text, probability = path.start + token.text, -path.unlikeliness * chance
            word, is_over = first_word(text)
            if is_over or not token.text or len(text) > LONGEST_WORD:
                self._is_over(word, probability / told)
            elif "\ufffd" not in text:  # a piece of a character is no word's beginning
                heappush(self._open, Path(-probability, text))


def first_word(text: str) -> tuple[str, bool]:
    """The first word of text with the space before it, and whether it is known to be over.

    >>> first_word(" don't, "), first_word(" don'"), first_word('."')
    ((" don't", True), (' don', False), ('."', False))
    """
    found = _WORD.match(text)
    if found is None:
        return "", False
    word, rest = found.group(), text[found.end() :]
    return word, bool(rest) and not (rest in APOSTROPHES and is_of_word(word[-1]))


def is_of_word(character: str) -> bool:
    """Whether a character is a letter or a digit; an underscore is a mark, for italics."""
    return _LETTER.match(character) is not None
