"""Token files and the order in which their windows are read.

Batch number i is a function of (seed, i) alone, so a resumed run needs no record of where its
data stood, and each process of a training reads the rows that it computes and no others.
"""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from storygen.checkpoints.hf import read_tokenizer
from storygen.errors import TrainError
from storygen.tokenizers import Tokenizer


class Ids(Protocol):
    """Token ids (n,) uint16, of which ranges are asked for: an array, or several files as one."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice, /) -> np.ndarray: ...

    def __array__(self, dtype: Any = None) -> np.ndarray: ...


class Shards:
    """Arrays that are read as one, end to end; what is not asked for is never touched."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)]).tolist()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, where: slice) -> np.ndarray:
        start, stop, step = where.indices(len(self))
        assert step == 1, where
        found = []
        for n in range(bisect_right(self._starts, start) - 1, len(self._parts)):
            if self._starts[n] >= stop:
                break
            first = self._starts[n]
            found.append(self._parts[n][max(start - first, 0) : stop - first])
        return found[0] if len(found) == 1 else np.concatenate([*found, self._parts[0][:0]])

    def __array__(self, dtype: Any = None) -> np.ndarray:
        return np.concatenate(self._parts, dtype=dtype)


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus: token ids (n,) uint16 of both splits, mapped from disk."""

    train: Ids
    val: np.ndarray
    tokenizer: Tokenizer
    meta: dict[str, Any]


def load_corpus(directory: Path, block_size: int) -> Corpus:
    """The corpus in a directory; raises TrainError when it is none, or too small to train on.

    In the place of train.bin there may be train-00000.bin and so on, in the order of their names.
    """
    try:
        meta = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
        names = sorted(directory.glob("train-*.bin")) or [directory / "train.bin"]
        parts: list[np.ndarray] = [np.memmap(name, np.uint16, "r") for name in names]
        val = np.memmap(directory / "val.bin", np.uint16, "r")
    except (OSError, ValueError) as error:
        raise TrainError(
            f"{directory} is no prepared corpus ({error}). Make one with: "
            f"python -m storygen.corpora prepare NAME --from BOOKS --out {directory}"
        ) from None
    train: Ids = parts[0] if len(parts) == 1 else Shards(parts)
    if len(train) != meta.get("train_tokens", len(train)):
        raise TrainError(
            f"{directory} has {len(train):,} training tokens in {len(parts)} files where meta.json "
            f"says {meta['train_tokens']:,}: a part is missing or cut off. Copy it again."
        )
    for name, ids in (("train.bin", train), ("val.bin", val)):
        if len(ids) <= block_size:
            raise TrainError(
                f"{directory / name} has {len(ids):,} tokens: more than block_size "
                f"{block_size:,} are needed. Add text, or make block_size smaller."
            )
    return Corpus(train, val, read_tokenizer(directory), meta)


class Windows:
    """Sliding windows of block_size + 1 tokens, in a new random order in every epoch.

    Each epoch begins at a random offset, so that over time every token is seen at every place of
    the window, the first and the last included.
    """

    def __init__(self, ids: Ids, block_size: int, stride: int, seed: int) -> None:
        self._ids, self._block_size, self._stride, self._seed = ids, block_size, stride, seed
        slack = len(ids) - (block_size + 1)
        self.per_epoch = max(1, slack // stride)
        self._offsets = 1 + slack - (self.per_epoch - 1) * stride
        self._epoch = -1
        self._starts = np.zeros(0, dtype=np.int64)

    def batch(self, number: int, size: int, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the batch with this number, (size, block_size), or of some of its
        rows: the others are not read."""
        starts = [self._start(number * size + row) for row in range(size)[rows]]
        ids = np.stack([self._ids[s : s + self._block_size + 1] for s in starts])
        window = torch.from_numpy(ids.astype(np.int64))
        return window[:, :-1], window[:, 1:]

    def _start(self, n: int) -> int:
        """First token of the n-th window of the run."""
        epoch, place = divmod(n, self.per_epoch)
        if epoch != self._epoch:
            random = np.random.default_rng([self._seed, epoch])
            offset = random.integers(self._offsets)
            self._starts = offset + self._stride * random.permutation(self.per_epoch)
            self._epoch = epoch
        return int(self._starts[place])


def spread_windows(ids: np.ndarray, block_size: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """`count` windows at even distances, always the same; inputs and targets (1, block_size)."""
    for start in np.linspace(0, len(ids) - block_size - 1, count).astype(int):
        window = torch.from_numpy(ids[start : start + block_size + 1].astype(np.int64))[None]
        yield window[:, :-1], window[:, 1:]
