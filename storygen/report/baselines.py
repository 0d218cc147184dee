"""What a model has to leave behind: counted characters and a file compressor, on the same text."""

import lzma
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

ORDER = 5
WINDOW = 64 * 2**20  # bytes that xz can look back


class _Level(NamedTuple):
    """All runs of one length in the training text, and their counts, by the run before the last
    byte: `grams` sorted, and for each of `contexts` its total and how many kinds follow it."""

    grams: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray


class ByteModel:
    """The next byte from the ORDER before it: Witten and Bell 1991, interpolated.

    The more different bytes have followed a context, the more weight goes to the context that is
    one shorter, down to 256 equally likely bytes. Nothing is left to choose.
    """

    def __init__(self, text: bytes, order: int = ORDER) -> None:
        """text is what it learns from."""
        self._levels = [_level(text, k) for k in range(min(order + 1, len(text)))]

    def probabilities(self, text: bytes) -> np.ndarray:
        """Probability (n,) of each byte of a text of n, given those before it."""
        p = np.full(len(text), 1 / 256)
        for k, level in enumerate(self._levels):
            grams = _grams(text, k + 1)
            counts = _found(level.grams, level.counts, grams)
            totals = _found(level.contexts, level.totals, grams >> 8)
            kinds = _found(level.contexts, level.kinds, grams >> 8)
            shorter = p[k:]
            blended = (counts + kinds * shorter) / np.maximum(totals + kinds, 1)
            p[k:] = np.where(totals > 0, blended, shorter)
        return p

    def bits_per_byte(self, excerpts: Sequence[bytes]) -> float:
        """Of all excerpts, each read from its beginning."""
        bits = -sum(float(np.log2(self.probabilities(text)).sum()) for text in excerpts)
        return bits / sum(map(len, excerpts))


def _level(text: bytes, k: int) -> _Level:
    grams, counts = np.unique(_grams(text, k + 1), return_counts=True)
    contexts, first, kinds = np.unique(grams >> 8, return_index=True, return_counts=True)
    return _Level(grams, counts, contexts, np.add.reduceat(counts, first), kinds)


def _grams(text: bytes, n: int) -> np.ndarray:
    """Every run of n bytes as one number, in order (len(text) - n + 1,); n is at most 7."""
    data = np.frombuffer(text, np.uint8)
    count = max(0, len(data) - n + 1)
    grams = np.zeros(count, np.int64)
    for i in range(n):
        grams = grams << 8 | data[i : i + count]
    return grams


def _found(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 where it is none of the sorted keys."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def xz_bits_per_byte(training: bytes, excerpts: Sequence[bytes]) -> float:
    """By how much all excerpts, as one, lengthen the compressed training text."""
    text = b"".join(excerpts)
    window = min(WINDOW, max(2**12, len(training) + len(text)))  # xz has at least 4 KiB
    grown = len(_xz(training + text, window)) - len(_xz(training, window))
    return 8 * grown / len(text)


def _xz(data: bytes, window: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": window}]
    return lzma.compress(data, check=lzma.CHECK_NONE, filters=filters)


def tail(stories: Iterable[str], limit: int = WINDOW) -> bytes:
    """The last `limit` bytes of the stories, one after the other."""
    return "\n\n".join(stories).encode()[-limit:]
