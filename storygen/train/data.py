"""Token files and the order in which their windows are read.

Batch number i is a function of (seed, i) alone, so a resumed run needs no record of where its
data stood.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from storygen.checkpoints.hf import read_tokenizer
from storygen.errors import TrainError
from storygen.tokenizers import Tokenizer


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus: token ids (n,) uint16 of both splits, mapped from disk."""

    train: np.ndarray
    val: np.ndarray
    tokenizer: Tokenizer
    meta: dict[str, Any]


def load_corpus(directory: Path, block_size: int) -> Corpus:
    """The corpus in a directory; raises TrainError when it is none, or too small to train on."""
    try:
        meta = json.loads((directory / "meta.json").read_text(encoding="utf-8"))
        train, val = (np.memmap(directory / f"{s}.bin", np.uint16, "r") for s in ("train", "val"))
    except (OSError, ValueError) as error:
        raise TrainError(
            f"{directory} is no prepared corpus ({error}). Make one with: "
            f"python -m storygen.corpora prepare NAME --from BOOKS --out {directory}"
        ) from None
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

    def __init__(self, ids: np.ndarray, block_size: int, stride: int, seed: int) -> None:
        self._ids, self._block_size, self._stride, self._seed = ids, block_size, stride, seed
        slack = len(ids) - (block_size + 1)
        self.per_epoch = max(1, slack // stride)
        self._offsets = 1 + slack - (self.per_epoch - 1) * stride
        self._epoch = -1
        self._starts = np.zeros(0, dtype=np.int64)

    def batch(self, number: int, size: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets, each (size, block_size), of the batch with this number."""
        starts = [self._start(number * size + row) for row in range(size)]
        rows = np.stack([self._ids[s : s + self._block_size + 1] for s in starts])
        window = torch.from_numpy(rows.astype(np.int64))
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
