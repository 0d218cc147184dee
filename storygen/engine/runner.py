"""Runner: one model with the requests it is working on, all of them a step at a time."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from storygen.engine.jobs import Job, no_numbers
from storygen.engine.sequence import Sequence
from storygen.errors import EngineError, StorygenError
from storygen.model import GPT, KVCache
from storygen.model.generate import window_start
from storygen.sampling import Row, sample
from storygen.tokenizers import Tokenizer


class Outcome(NamedTuple):
    """Something for whoever made a request: a Segment, an answer or an error."""

    request: Sequence | Job
    value: Any
    final: bool


class Runner:
    """A model, its tokenizer and its cache. Row i of a batch lives in slot i of the cache.

    Rows are kept side by side, so a decode step is one forward pass over the first slots. Every
    token comes from such a step: a prefill only fills a slot with all tokens but the last.
    """

    def __init__(self, name: str, model: GPT, tokenizer: Tokenizer, slots: int) -> None:
        weight = model.wte.weight
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self.device, self.block_size = weight.device, model.config.block_size
        self.rows: list[Sequence] = []
        self._cache = KVCache(model.config, slots, weight.device, weight.dtype)

    def step(self, requests: list[Sequence | Job]) -> list[Outcome]:
        """Let each of the requests that should run now go on by one token, and one job by a slice.

        A row whose request is no longer among them loses its slot first. Then at most one new
        request is prefilled, so that a long prompt delays the others once and not eight times.
        Raises whatever the forward pass over all rows raises; none of them can go on then.
        """
        self._keep({id(request) for request in requests})
        new = [r for r in requests if isinstance(r, Sequence) and r not in self.rows]
        jobs = [r for r in requests if isinstance(r, Job)]
        outcomes = [
            *(self._prefill(sequence) for sequence in new[:1]),
            *(self._advance(job) for job in jobs[:1]),
            *self._decode(),
        ]
        return [outcome for outcome in outcomes if outcome is not None]

    def _prefill(self, sequence: Sequence) -> Outcome | None:
        """Give a sequence a slot and read its prompt into it. Failing is its affair alone."""
        self.rows.append(sequence)
        try:
            sequence.begin(self.tokenizer, self.block_size)
            self._fill(len(self.rows) - 1)
        except Exception as error:
            self._release(len(self.rows) - 1)
            return Outcome(sequence, as_storygen_error(error, self.name), final=True)
        return None

    def _advance(self, job: Job) -> Outcome | None:
        """Work on one slice of a job. Failing is its affair alone."""
        try:
            done, answer = job.advance(self.model, self.tokenizer)
        except Exception as error:
            return Outcome(job, as_storygen_error(error, self.name), final=True)
        return Outcome(job, answer, final=True) if done else None

    def _fill(self, slot: int) -> None:
        """Read a row's window into its slot, all but the last token."""
        sequence = self.rows[slot]
        sequence.window_start = window_start(len(sequence.ids), self.block_size)
        self._cache.truncate(slot, 0)
        ids = sequence.ids[sequence.window_start : -1]
        if ids:
            self.model.hidden(self._tensor([ids]), self._cache.rows(slot, slot + 1))

    def _decode(self) -> list[Outcome | None]:
        """One more token for every row."""
        if not self.rows:
            return []
        for slot, row in enumerate(self.rows):
            if window_start(len(row.ids), self.block_size) != row.window_start:
                self._fill(slot)
        last = self._tensor([row.ids[-1:] for row in self.rows])  # (B, 1)
        logits = self.model(last, self._cache.rows(0, len(self.rows)))[:, -1]  # (B, V)
        # A vocabulary may be padded to a round number with ids that spell nothing.
        tokens = sample(logits[:, : self.tokenizer.vocab_size], [_row(row) for row in self.rows])
        return [self._taken(row, token) for row, token in zip(self.rows, tokens, strict=True)]

    def _taken(self, row: Sequence, token: int | None) -> Outcome | None:
        if token is None:
            return Outcome(row, no_numbers(self.name), final=True)
        segment = row.take(token)
        if segment is None:
            return None
        return Outcome(row, segment, final=segment.finish_reason is not None)

    def _keep(self, wanted: set[int]) -> None:
        for slot in reversed(range(len(self.rows))):
            if id(self.rows[slot]) not in wanted:
                self._release(slot)

    def _release(self, slot: int) -> None:
        """Free a slot; the last row moves into the gap."""
        last = len(self.rows) - 1
        self._cache.clear(slot)
        if slot != last:
            self._cache.move(last, slot)
            self._cache.clear(last)
            self.rows[slot] = self.rows[last]
        self.rows.pop()

    def _tensor(self, ids: list[list[int]]) -> Tensor:
        return torch.tensor(ids, dtype=torch.long, device=self.device)


def _row(sequence: Sequence) -> Row:
    context = sequence.ids[sequence.window_start :]
    return Row(sequence.params, len(sequence.ids), context)


def as_storygen_error(error: Exception, model: str) -> StorygenError:
    """The error itself when it is meant for the reader, else one that is, chained to it."""
    if isinstance(error, StorygenError):
        return error
    wrapped = EngineError(f"{model} failed ({type(error).__name__}: {error}). Try again.")
    wrapped.__cause__ = error
    return wrapped
