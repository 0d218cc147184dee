"""EagerDecoder: the network itself, by PyTorch; scripted.py and graphs.py build on it."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from storygen.decode.interface import Token
from storygen.model import GPT, KVCache
from storygen.params import Row
from storygen.sampling import sample


class EagerDecoder:
    """A GPT and its cache; see interface.Decoder. Slots that get one token each share a pass."""

    rows_are_independent = False  # PyTorch sums several rows in another order than one

    def __init__(self, model: GPT, n_slots: int, n_threads: int = 0) -> None:
        """n_threads 0 leaves it to PyTorch."""
        weight = model.wte.weight
        self.config, self.n_slots = model.config, n_slots
        self.max_rows = 64 if weight.device.type == "cpu" else 512
        self._model, self._device = model, weight.device
        self._n_threads = n_threads
        self._cache = KVCache(model.config, n_slots, weight.device, weight.dtype)
        self._places = list(range(n_slots))  # of the slots in the cache

    @torch.inference_mode()
    def step(
        self, rows: Sequence[Token], out: Sequence[int], choices: Sequence[Row], n_tokens: int
    ) -> list[int | None]:
        """See interface.Decoder."""
        return sample(self._logits(rows, out)[:, :n_tokens], choices)

    @torch.inference_mode()
    def logits(self, rows: Sequence[Token], out: Sequence[int]) -> np.ndarray:
        """See interface.Decoder."""
        return self._logits(rows, out).float().cpu().numpy()

    @torch.inference_mode()
    def copy(self, source: int, target: int, n: int) -> None:
        """See interface.Decoder."""
        self._cache.copy(self._places[source], self._places[target], n)

    def close(self) -> None:
        """See interface.Decoder."""
        del self._model, self._cache
        torch.cuda.empty_cache()  # does nothing where CUDA is not in use

    def _logits(self, rows: Sequence[Token], out: Sequence[int]) -> Tensor:
        if self._n_threads:
            torch.set_num_threads(self._n_threads)  # of the thread that calls
        pieces = [list(piece) for _, piece in groupby(rows, key=lambda row: row.slot)]
        single = [piece[0] for piece in pieces if len(piece) == 1]
        hidden = self._hidden_of_single(single) if single else {}
        for piece in pieces:
            if len(piece) > 1:
                hidden |= self._hidden_of_piece(piece)
        if not out:
            return torch.empty(0, self.config.vocab_size, device=self._device)
        return self._model.lm_head(torch.stack([hidden[rows[i]] for i in out]))

    def _hidden_of_single(self, rows: list[Token]) -> dict[Token, Tensor]:
        """One token for each of some slots, (C,) each."""
        self._bring_to_front([row.slot for row in rows])
        rows = sorted(rows, key=lambda row: self._places[row.slot])
        for place, row in enumerate(rows):
            self._cache.truncate(place, row.position)
        ids = torch.tensor([[row.id] for row in rows], device=self._device)
        hidden = self._model.hidden(ids, self._cache.rows(0, len(rows)))[:, -1]  # (B, C)
        return dict(zip(rows, hidden, strict=True))

    def _hidden_of_piece(self, rows: list[Token]) -> dict[Token, Tensor]:
        """Several tokens of one slot, (C,) each."""
        place = self._places[rows[0].slot]
        self._cache.truncate(place, rows[0].position)
        ids = torch.tensor([[row.id for row in rows]], device=self._device)
        hidden = self._model.hidden(ids, self._cache.rows(place, place + 1))[0]  # (T, C)
        return dict(zip(rows, hidden, strict=True))

    def _bring_to_front(self, slots: list[int]) -> None:
        """Give these slots the first places of the cache, so that one pass takes them all."""
        at = {place: slot for slot, place in enumerate(self._places)}
        free = [place for place in range(len(slots)) if at[place] not in slots]
        for slot in slots:
            place = self._places[slot]
            if place >= len(slots):
                front = free.pop()
                self._cache.swap(front, place)
                self._places[slot], self._places[at[front]] = front, place
