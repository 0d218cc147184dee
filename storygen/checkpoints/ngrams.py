"""Which token most often follows the last ones, in what a model was trained on.

The cheapest guess there is at what the model will write next, kept beside it in NAME/ngrams.npy;
engine/speculation.py lets the model check several at once. A guess may be wrong, so the table is:
one number for each hash of an n-gram, and where two fall together the more frequent stays.
"""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np

from storygen.checkpoints import adapter_files
from storygen.errors import CheckpointError
from storygen.files import atomic_file
from storygen.tokenizers import CharTokenizer, Tokenizer

FILE = "ngrams.npy"
NONE = 0xFFFF  # nothing follows often
LONGEST = 5  # tokens that are looked up
ROOM = 4  # places for each token counted, so that few fall together
BITS = range(8, 20)  # of a place: a table has 1 MB at most
MOST_COUNTED = 20_000_000  # tokens: more change little
STRETCHES = 200  # of a longer text that are counted
MIX = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: Fibonacci hashing (Knuth, volume 3, 6.4)
WHOLE = 2**64 - 1


class NGrams:
    """The likeliest next token by the last n, for each n of orders, the longest first."""

    def __init__(self, orders: Sequence[int], table: np.ndarray) -> None:
        """table (2^bits,) uint16: by the hash of n tokens the one that follows, or NONE."""
        self._orders, self.table = orders, table
        self._shift = 65 - len(table).bit_length()

    def next(self, ids: Sequence[int]) -> int | None:
        """What most often followed the last of ids."""
        for n in self._orders:
            if len(ids) >= n:
                found = int(self.table[_hashed(ids[-n:]) >> self._shift])
                if found != NONE:
                    return found
        return None

    def save(self, directory: Path) -> Path:
        """Keep it beside a model; the file. SHA256SUMS does not list it: nothing depends on it."""
        path = directory / FILE
        try:
            with atomic_file(path) as new:
                new.write_bytes(_header(len(self.table)) + self.table.astype("<u2").tobytes())
        except OSError as error:
            raise CheckpointError(f"{path} could not be written: {error.strerror}.") from None
        return path


def count(tokenizer: Tokenizer, ids: np.ndarray) -> NGrams:
    """The n-grams of a text (n,) uint16. Takes some 35 bytes of memory for each token counted."""
    ids = _sample(ids)
    bits = min(max((ROOM * len(ids)).bit_length(), BITS[0]), BITS[-1])
    table, frequency = np.full(1 << bits, NONE, np.uint16), np.zeros(1 << bits, np.int64)
    for n in _orders(tokenizer):
        pairs = _hashes(ids[:-1], n)
        pairs >>= np.uint64(64 - bits)
        pairs <<= np.uint64(16)
        pairs |= ids[n:]
        pairs.sort()
        starts = np.flatnonzero(np.diff(pairs, prepend=np.uint64(WHOLE)))
        counts = np.diff(starts, append=len(pairs))
        order = np.argsort(counts, kind="stable")  # of equal places the last is kept
        pairs, counts = pairs[starts[order]], counts[order]
        at = (pairs >> np.uint64(16)).astype(np.int64)
        best, most = np.full_like(table, NONE), np.zeros_like(frequency)
        best[at], most[at] = pairs.astype(np.uint16), counts
        table, frequency = np.where(most > frequency, best, table), np.maximum(most, frequency)
    return NGrams(_orders(tokenizer), table)


def read_ngrams(directory: Path, tokenizer: Tokenizer) -> NGrams | None:
    """Those of a model, or else of its base; None where nobody counted. Raises CheckpointError for
    a file that is not as save() wrote it."""
    path = directory / FILE
    if not path.is_file():
        base = adapter_files.base_of(directory)
        return None if base is None else read_ngrams(base, tokenizer)
    again = "Delete it, or copy it again."
    try:
        headers = [(_header(1 << n), 2 << n) for n in BITS]
        of_size = {len(header) + size: header for header, size in headers}
        header = of_size.get(path.stat().st_size)
        if header and (found := path.read_bytes()).startswith(header):
            return NGrams(_orders(tokenizer), np.frombuffer(found, "<u2", offset=len(header)))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}. {again}") from None
    raise CheckpointError(f"{path} is no table of n-grams. {again}")


def _header(places: int) -> bytes:
    """What numpy writes before a table, so that others can look at it; we let nobody parse it."""
    file = BytesIO()
    shape = {"descr": "<u2", "fortran_order": False, "shape": (places,)}
    np.lib.format.write_array_header_1_0(file, shape)
    return file.getvalue()


def _orders(tokenizer: Tokenizer) -> tuple[int, ...]:
    """How many tokens foretell the next one best; more of them are too rare to be counted well."""
    return (5, 3) if isinstance(tokenizer, CharTokenizer) else (2, 1)


def _sample(ids: np.ndarray) -> np.ndarray:
    """As many of the ids as are counted, in stretches from everywhere; what is counted across
    their seams is too little to matter."""
    if len(ids) <= MOST_COUNTED:
        return ids
    each = MOST_COUNTED // STRETCHES
    starts = np.linspace(0, len(ids) - each, STRETCHES, dtype=np.int64)
    return np.concatenate([ids[start : start + each] for start in starts.tolist()])


def _hashed(ids: Sequence[int]) -> int:
    found = 0
    for token in ids:
        found = (found + token + 1) * MIX & WHOLE
        found ^= found >> 29
    return found


def _hashes(ids: np.ndarray, n: int) -> np.ndarray:
    """The hashes (len - n + 1,) of all n tokens in a row."""
    size = max(0, len(ids) - n + 1)
    found = np.zeros(size, np.uint64)
    for i in range(n):
        found += ids[i : i + size]
        found += np.uint64(1)
        found *= np.uint64(MIX)
        found ^= found >> np.uint64(29)
    return found
