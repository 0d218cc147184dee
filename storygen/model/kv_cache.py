"""KVCache: the keys and values of sequences in progress, one slot each.

The memory of all slots is promised at once, and taken where something is first written.
`rows(start, stop)` is a view, so a prefill into one slot and a decode step over the first n slots
use the same cache without copying.
"""

import mmap
from math import prod

import torch
from torch import Tensor

from storygen.model.config import GPTConfig


class KVCache:
    """Keys and values (n_layer, n_slots, n_head, block_size, head_size) and a length per slot."""

    def __init__(
        self,
        config: GPTConfig,
        n_slots: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (config.n_layer, n_slots, config.n_head, config.block_size, config.head_size)
        self.k = _zeros(shape, torch.device(device), dtype)
        self.v = _zeros(shape, torch.device(device), dtype)
        self.lengths = torch.zeros(n_slots, dtype=torch.long)  # on the CPU: the host decides
        self._written: tuple[Tensor, Tensor] | None = None  # (rows, columns) of this forward pass
        self._longest = 0

    @property
    def block_size(self) -> int:
        """Tokens a slot can hold."""
        return self.k.shape[3]

    def rows(self, start: int, stop: int) -> "KVCache":
        """The slots start..stop-1 as a cache of their own that shares this one's memory."""
        view = object.__new__(KVCache)
        view.k, view.v = self.k[:, start:stop], self.v[:, start:stop]
        view.lengths = self.lengths[start:stop]
        view._written, view._longest = None, 0
        return view

    def copy(self, source: int, target: int, length: int) -> None:
        """Let slot `target` hold the first `length` tokens of slot `source`."""
        self.truncate(target, 0)
        self.k[:, target, :, :length] = self.k[:, source, :, :length]
        self.v[:, target, :, :length] = self.v[:, source, :, :length]
        self.lengths[target] = length

    def swap(self, one: int, other: int) -> None:
        """Exchange what two slots hold."""
        length = int(max(self.lengths[one], self.lengths[other]))
        places, turned = [one, other], [other, one]
        self.k[:, places, :, :length] = self.k[:, turned, :, :length]
        self.v[:, places, :, :length] = self.v[:, turned, :, :length]
        self.lengths[places] = self.lengths[turned]

    def truncate(self, slot: int, length: int) -> None:
        """Forget all but the first `length` tokens of a slot.

        Their memory is emptied: a NaN left there would reach the next one in it, since attention
        gives hidden positions the weight 0, and 0 * NaN is NaN.
        """
        had = int(self.lengths[slot])
        assert 0 <= length <= had, (length, had)
        self.k[:, slot, :, length:had] = 0
        self.v[:, slot, :, length:had] = 0
        self.lengths[slot] = length

    def reserve(self, T: int) -> tuple[Tensor, Tensor | None]:
        """Make room for T more tokens in every row, as the model's forward pass begins.

        Returns positions (B, T) and the mask (B, 1, T, S) of what each new token may see, S being
        the longest row; None where plain causal attention over the new tokens says the same.
        """
        start = self.lengths  # (B,)
        first = int(start.max())
        uniform = first == int(start.min())
        self._longest = first + T
        assert self._longest <= self.block_size, (self._longest, self.block_size)
        columns = start[:, None] + torch.arange(T)  # (B, T)
        device = self.k.device
        rows = torch.arange(len(start))[:, None]  # (B, 1)
        self._written = (rows.to(device), columns.to(device))
        self.lengths += T  # in place: views share it, and start is it
        if uniform and (T == 1 or first == 0):
            return columns.to(device), None
        mask = torch.arange(self._longest) <= columns[:, :, None]  # (B, T, S)
        return columns.to(device), mask[:, None].to(device)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write new keys and values (B, nh, T, hs) of a layer; return all so far (B, nh, S, hs)."""
        assert self._written is not None, "reserve() comes first"
        rows, columns = self._written
        # Indexing dimensions 0 and 2 with (B, T) tensors puts them in front: (B, T, nh, hs).
        self.k[layer][rows, :, columns] = k.transpose(1, 2).to(self.k.dtype)
        self.v[layer][rows, :, columns] = v.transpose(1, 2).to(self.v.dtype)
        return self.k[layer, :, :, : self._longest], self.v[layer, :, :, : self._longest]


def _zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Zeros that a CPU takes no memory for before something is written there: torch.zeros writes
    them all, 470 MB for nine slots of GPT-2."""
    if device.type != "cpu":
        return torch.zeros(shape, device=device, dtype=dtype)
    size = prod(shape) * dtype.itemsize
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # large pages are sooner found
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=dtype).view(shape)
