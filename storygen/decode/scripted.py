"""ScriptedDecoder: PyTorch without Python between its operations, where no C compiler is.

A step of GPT-2 is some eight hundred operations, of which most take less time than Python takes to
begin them. So the step of one token each is written down once as TorchScript, which PyTorch's own
interpreter runs, with Python's lock let go: the same operations on the same numbers in half the
time (docs/speed.md).
"""

import warnings
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from storygen.decode.eager import EagerDecoder
from storygen.decode.interface import Token
from storygen.model import GPT
from storygen.model.gpt import Block


class ScriptedDecoder(EagerDecoder):
    """See interface.Decoder. Several tokens of one slot are left to EagerDecoder."""

    def __init__(self, model: GPT, n_slots: int, n_threads: int = 0) -> None:
        super().__init__(model, n_slots, n_threads)
        with warnings.catch_warnings():  # a later PyTorch may be without it; ours is pinned
            warnings.filterwarnings("ignore", r"`torch\.jit", DeprecationWarning)
            self._steps = torch.jit.script(_Steps(model).eval())

    def _hidden_of_single(self, rows: list[Token]) -> dict[Token, Tensor]:
        places = [self._places[row.slot] for row in rows]
        positions = [row.position for row in rows]
        ids = torch.tensor([row.id for row in rows])
        for place, position in zip(places, positions, strict=True):
            self._cache.truncate(place, position)
            self._cache.lengths[place] = position + 1
        # PyTorch would optimise the first two calls, for half a second; later ones gain nothing.
        plainly = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]  # documented
        with plainly:
            hidden = self._steps(ids, places, positions, self._cache.k, self._cache.v)
        return dict(zip(rows, hidden, strict=True))


class _Steps(nn.Module):
    """A GPT but for its head, for rows of one token each."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.wte, self.wpe, self.ln_f = model.wte, model.wpe, model.ln_f
        self.h = nn.ModuleList(_Layer(block) for block in cast(list[Block], model.h))

    def forward(
        self, ids: Tensor, places: list[int], positions: list[int], keys: Tensor, values: Tensor
    ) -> Tensor:
        """ids (B,), each row's place in the cache and position in its story, and the cache, keys
        and values (n_layer, n_slots, nh, block_size, hs) -> (B, C). The cache takes the rows."""
        x = self.wte(ids) + self.wpe(torch.tensor(positions))  # (B, C)
        for i, layer in enumerate(self.h):
            x = layer(x, places, positions, keys[i], values[i])
        hidden: Tensor = self.ln_f(x)
        return hidden


class _Layer(nn.Module):
    """A block, with attention row by row, each over what it sees: to the bit what it is alone."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.n_head = block.attn.n_head
        self.ln_1, self.c_attn, self.c_proj = block.ln_1, block.attn.c_attn, block.attn.c_proj
        self.ln_2, self.mlp = block.ln_2, block.mlp

    def forward(
        self, x: Tensor, places: list[int], positions: list[int], keys: Tensor, values: Tensor
    ) -> Tensor:
        """x (B, C) -> (B, C)."""
        n, size = self.n_head, x.shape[1] // self.n_head
        qkv = self.c_attn(self.ln_1(x)).view(-1, 3 * n, size)  # (B, 3 nh, hs)
        mixed: list[Tensor] = []
        for row, (place, position) in enumerate(zip(places, positions)):  # noqa: B905 - TorchScript
            of_head = qkv[row]
            k, v = keys[place], values[place]  # (nh, block_size, hs)
            k[:, position] = of_head[n : 2 * n]
            v[:, position] = of_head[2 * n :]
            k, v = k[None, :, : position + 1], v[None, :, : position + 1]
            mixed.append(scaled_dot_product_attention(of_head[None, :n, None], k, v).flatten())
        x = x + self.c_proj(torch.stack(mixed))
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y
