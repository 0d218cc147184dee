"""Which words of a passage stand in the training text in the same order: exact, not by hashes."""

from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from itertools import count

import numpy as np

from storygen.report.words import Words, words

_END = -1  # between stories: no run goes across


class TrainingWords:
    """The words of all training texts, as numbers, and which there are."""

    def __init__(self, texts: Iterable[Iterable[str]]) -> None:
        """texts are the corpora, each an iterable of stories."""
        self._ids: defaultdict[str, int] = defaultdict(count().__next__)
        self._texts = [self._numbered(map(words, stories)) for stories in texts]

    @property
    def known(self) -> Container[str]:
        """Every word of the texts."""
        return self._ids.keys()

    def longest_runs(self, passages: Sequence[Words]) -> list[int]:
        """For each passage, how many of its words in a row stand in one of the texts."""
        unknown = len(self._ids)  # the number of every word that no text has
        numbers = [[self._ids.get(word, unknown) for word in passage] for passage in passages]
        best = np.zeros(len(passages), np.int64)
        for text in self._texts:
            best = np.maximum(best, longest_runs(numbers, text))
        return best.tolist()

    def _numbered(self, stories: Iterable[Words]) -> np.ndarray:
        parts = [np.array([_END], np.int32)]
        for story in stories:
            parts.append(np.fromiter((self._ids[word] for word in story), np.int32, len(story)))
            parts.append(parts[0])
        return np.concatenate(parts)


def longest_runs(passages: Sequence[Sequence[int]], text: np.ndarray) -> np.ndarray:
    """For each passage (m,), the most numbers in a row that stand in text (n,) in a row.

    Both sides keep the places where a run of n that they share begins. Each such run has a name,
    and a run of n + 1 is the name of its first n with the number after them (Karp, Miller and
    Rosenberg 1972). Names are few, as only runs of the passages get one.
    """
    ours = np.array([i for passage in passages for i in (*passage, _END)], np.int64)
    owner = np.repeat(np.arange(len(passages)), [len(passage) + 1 for passage in passages])
    size = 1 + max(ours.max(initial=0), text.max(initial=0))
    best = np.zeros(len(passages), np.int64)
    text = np.append(text, _END)
    at, name = np.arange(len(ours)), np.zeros(len(ours), np.int64)
    text_at, text_name = np.arange(len(text)), np.zeros(len(text), np.int64)
    n = 0
    while True:
        at, key = _longer(ours, at, name, n, size)
        text_at, text_key = _longer(text, text_at, text_name, n, size)
        if not len(key):
            return best
        names, name = np.unique(key, return_inverse=True)
        text_name = np.minimum(np.searchsorted(names, text_key), len(names) - 1)
        shared = names[text_name] == text_key
        text_at, text_name = text_at[shared], text_name[shared]
        there = np.zeros(len(names), bool)
        there[text_name] = True
        at, name = at[there[name]], name[there[name]]
        n += 1
        best[owner[at]] = n


def _longer(
    numbers: np.ndarray, at: np.ndarray, name: np.ndarray, n: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The places whose run of n has a number after it, and a key for the longer run."""
    following = numbers[at + n].astype(np.int64)
    there = following != _END
    return at[there], name[there] * size + following[there]
