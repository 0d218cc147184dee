"""GraphDecoder: PyTorch on static shapes, so that a card replays whole steps by itself.

A step of a small network is some hundred kernels of a few microseconds, and to launch them from
Python takes many times as long. Here the cache, the inputs and the drawn tokens stay where they are
in memory, and the step for so many rows over so much context is recorded once, as a CUDA graph.
The host then writes some numbers down, starts two graphs (network, draw), and waits once, for the
tokens. On a CPU nothing is recorded: the same code runs as it stands, which is how it is tested.
"""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from storygen.decode.draw import NO_NUMBER, UNSURE, Choices, Kind, draw
from storygen.decode.eager import EagerDecoder
from storygen.decode.interface import Token
from storygen.model import GPT, KVCache
from storygen.model.gpt import Block
from storygen.params import Row
from storygen.sampling import sample

SPAN = 128  # tokens of context, doubled up to the whole
WIDTH = 128  # candidates of a draw where every row has a smaller top-k
SPARE = 64  # adjustments beyond one for each token of the context: forbidden tokens
WARM_UPS = 2  # before recording: libraries choose and allocate

IDS, POSITIONS, COLUMNS, SEEDS, PLACES, TOP_K = range(6)  # lines of the whole numbers


class GraphDecoder(EagerDecoder):
    """See interface.Decoder. What is no step of one token each is left to EagerDecoder."""

    def __init__(self, model: GPT, n_slots: int) -> None:
        super().__init__(model, n_slots)
        config, device = model.config, self._device
        # One column more than tokens: rows that only fill a step up write there, and nobody reads.
        wider = replace(config, block_size=config.block_size + 1)
        self._cache = KVCache(wider, n_slots, device, model.wte.weight.dtype)
        self._sizes = _doubled(1, n_slots)  # rows of a step; fewer are filled up
        self._spans = _doubled(SPAN, config.block_size)  # tokens of context that are looked at
        n_adjusted = config.block_size + SPARE
        self._whole = Shared((6, n_slots), torch.long, device)
        self._fractions = Shared((4, n_slots), torch.float64, device)
        self._context = Shared((n_slots, config.block_size), torch.int32, device)
        self._ids = Shared((n_slots, n_adjusted), torch.int32, device)
        self._added = Shared((n_slots, n_adjusted), torch.float64, device)
        self._drawn = Shared((n_slots,), torch.long, device)
        self.scores = torch.zeros(n_slots, config.vocab_size, device=device)
        self._recorded: dict[object, Callable[[], None]] = {}
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self.network = self._network  # may be compiled before the first step

    @torch.inference_mode()
    def warm(self, rows: int, n_tokens: int) -> None:
        """Record now what steps of up to so many rows will need at usual settings."""
        self._write_down([], [])
        for size in self._sizes[: 1 + sum(size < rows for size in self._sizes)]:
            for span in self._spans:
                self._run(size, span, Kind(n_tokens, min(WIDTH, n_tokens)))

    @torch.inference_mode()
    def step(
        self, rows: Sequence[Token], out: Sequence[int], choices: Sequence[Row], n_tokens: int
    ) -> list[int | None]:
        """See interface.Decoder."""
        slots = [row.slot for row in rows]
        each_once = len(set(slots)) == len(slots) > 0
        if not each_once or list(out) != list(range(len(rows))):
            return super().step(rows, out, choices, n_tokens)
        self._bring_to_front(slots)
        places = [self._places[slot] for slot in slots]
        if not self._write_down(list(zip(places, rows, strict=True)), choices):
            return super().step(rows, out, choices, n_tokens)
        for place, row in zip(places, rows, strict=True):
            self._cache.truncate(place, row.position)
        needed = 1 + max(row.position for row in rows)
        self._run(
            next(size for size in self._sizes if size >= len(rows)),
            next(span for span in self._spans if span >= needed),
            self._kind(choices, n_tokens),
        )
        for place, row in zip(places, rows, strict=True):
            self._cache.lengths[place] = row.position + 1
        found = self._drawn.fetched()
        return [
            self._token(found[place], place, choice, n_tokens)
            for place, choice in zip(places, choices, strict=True)
        ]

    def _token(self, found: int, place: int, choice: Row, n_tokens: int) -> int | None:
        if found == UNSURE:  # so many equal logits are rare: look at all of them
            return sample(self.scores[place : place + 1, :n_tokens], [choice])[0]
        return None if found == NO_NUMBER else found

    def _run(self, size: int, span: int, kind: Kind) -> None:
        """A step of the first `size` places over `span` tokens; what is new is recorded first."""
        for key, work in (
            ((size, span), lambda: self.network(size, span)),
            ((size, kind), lambda: self._draw(size, kind)),
        ):
            if key not in self._recorded:
                self._recorded[key] = recorded(work, self._pool) if self._pool else work
            self._recorded[key]()

    def _network(self, size: int, span: int) -> None:
        """From ids and positions of `size` rows to their logits."""
        model, config = self._model, self.config
        ids, positions, columns = self._whole.here[: COLUMNS + 1, :size]  # (B,) each
        places = torch.arange(size, device=self._device)
        seen = torch.arange(span, device=self._device) <= positions[:, None]  # (B, S)
        x = model.wte(ids) + model.wpe(positions)  # (B, C)
        for layer, block in enumerate(cast(list[Block], model.h)):
            qkv = block.attn.c_attn(block.ln_1(x)).view(size, 3, config.n_head, config.head_size)
            q, k, v = qkv.unbind(1)  # (B, nh, hs)
            keys, values = self._cache.k[layer], self._cache.v[layer]
            keys[places, :, columns] = k
            values[places, :, columns] = v
            y = F.scaled_dot_product_attention(
                q[:, :, None],
                keys[:size, :, :span],
                values[:size, :, :span],
                attn_mask=seen[:, None, None],
            )  # (B, nh, 1, hs)
            x = x + block.attn.c_proj(y.reshape(size, config.n_embd))
            x = x + block.mlp(block.ln_2(x))
        self.scores[:size] = _head(model, model.ln_f(x))

    def _draw(self, size: int, kind: Kind) -> None:
        whole, fractions = self._whole.here[:, :size], self._fractions.here[:, :size]
        temperature, nucleus, least, penalty = fractions
        of = Choices(
            temperature,
            nucleus,
            least,
            penalty,
            seed=whole[SEEDS],
            position=whole[PLACES],
            top_k=whole[TOP_K],
            context=self._context.here[:size].long(),
            ids=self._ids.here[:size].long(),
            added=self._added.here[:size],
        )
        self._drawn.here[:size] = draw(self.scores[:size], of, kind)

    def _kind(self, choices: Sequence[Row], n_tokens: int) -> Kind:
        drawing = [choice.params for choice in choices if choice.params.temperature > 0]
        width = 0
        if any(params.top_k for params in drawing):
            narrow = all(0 < params.top_k < WIDTH for params in drawing)
            width = min(WIDTH, n_tokens) if narrow else n_tokens
        return Kind(
            n_tokens,
            width if drawing else min(WIDTH, n_tokens),
            nucleus=any(params.top_p < 1 for params in drawing),
            penalised=any(choice.params.repetition_penalty != 1 for choice in choices),
            adjusted=any(choice.adjustments for choice in choices),
        )

    def _write_down(self, rows: Sequence[tuple[int, Token]], choices: Sequence[Row]) -> bool:
        """Tell the device what its next step is; False where a row has more context or adjustments
        than there is room for. Places that are not named only fill the step up."""
        whole, fractions = self._whole.numbers, self._fractions.numbers
        whole[:] = np.array([[0], [0], [self.config.block_size], [0], [0], [1]])
        fractions[:] = np.array([[0.0], [1.0], [0.0], [1.0]])
        adjusted = any(choice.adjustments for choice in choices)
        if adjusted:
            self._ids.numbers[:] = self.config.vocab_size
        for (place, row), choice in zip(rows, choices, strict=True):
            params, vocabulary = choice.params, self.config.vocab_size
            top_k = min(params.top_k, vocabulary) or vocabulary
            seed = params.seed or 0
            whole[:, place] = row.id, row.position, row.position, seed, choice.position, top_k
            penalty = params.repetition_penalty
            fractions[:, place] = params.temperature, params.top_p, params.min_p, penalty
            if penalty != 1 and not _fill(self._context.numbers[place], choice.context, vocabulary):
                return False
            if choice.adjustments:
                ids, added = zip(*choice.adjustments, strict=True)
                if not _fill(self._ids.numbers[place], ids, vocabulary):
                    return False
                self._added.numbers[place, : len(added)] = added
        self._whole.send()
        self._fractions.send()
        if any(choice.params.repetition_penalty != 1 for choice in choices):
            self._context.send()
        if adjusted:
            self._ids.send()
            self._added.send()
        return True


class Shared:
    """Numbers that the host writes down for the device, or reads from it."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self.here = torch.zeros(shape, dtype=dtype, device=device)
        # From pinned memory a card fetches by itself, while the host goes on.
        on_card = device.type == "cuda"
        self._host = torch.zeros(shape, dtype=dtype, pin_memory=True) if on_card else self.here
        self.numbers: np.ndarray = self._host.numpy()

    def send(self) -> None:
        """Let the device have what the host wrote, when it comes to it."""
        if self._host is not self.here:
            self.here.copy_(self._host, non_blocking=True)

    def fetched(self) -> list[int]:
        """What the device wrote, when it has come to it: the one place where the host waits."""
        if self._host is not self.here:
            self._host.copy_(self.here, non_blocking=True)
            torch.cuda.current_stream(self.here.device).synchronize()
        return self.numbers.tolist()


def recorded(work: Callable[[], None], pool: Any) -> Callable[[], None]:
    """What does the same work again, all at once, on the same memory; work is done in passing."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UPS):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Another thread may be opening a model meanwhile, and is not to be in the way.
    with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        work()
    return graph.replay


def _head(model: GPT, x: Tensor) -> Tensor:
    """Logits (B, V) in fp32 of what the output head sees (B, C). On a card products are summed up
    in fp32 anyway, and rounding the sums would make neighbours equal."""
    head = model.lm_head
    if x.device.type != "cuda" or x.dtype is torch.float32:
        return head(x).float()
    logits = torch.mm(x, head.weight.T, out_dtype=torch.float32)
    return logits if head.bias is None else logits + head.bias


def _fill(line: np.ndarray, ids: Sequence[int], padding: int) -> bool:
    """Write token ids down, and padding behind them; False where there is no room."""
    if len(ids) > len(line):
        return False
    line[: len(ids)] = np.frombuffer(array("i", ids), np.int32)
    line[len(ids) :] = padding
    return True


def _doubled(first: int, last: int) -> list[int]:
    """first, twice as much and so on, and last.

    >>> _doubled(128, 1000)
    [128, 256, 512, 1000]
    """
    found = []
    while first < last:
        found.append(first)
        first *= 2
    return [*found, last]
