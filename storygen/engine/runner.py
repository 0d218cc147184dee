"""Runner: one model with the requests it is working on, all of them a step at a time."""

import time
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from storygen.decode.interface import Decoder, Token
from storygen.engine.jobs import Job, likeliest, log_of_sum, no_numbers, scored
from storygen.engine.sequence import Scorer, Sequence
from storygen.engine.slots import Slots
from storygen.engine.speculation import Repeats, Speculation
from storygen.errors import EngineError, StorygenError
from storygen.model.windows import window_start
from storygen.params import Row
from storygen.penalties import breaker_tokens
from storygen.tokenizers import Tokenizer


class Outcome(NamedTuple):
    """Something for whoever made a request: a Segment, an answer or an error."""

    request: Sequence | Job
    value: Any
    final: bool


class _Running:
    """A passage with its slot; `known` of its window's tokens are in the slot."""

    def __init__(self, sequence: Sequence, repeats: Repeats | None) -> None:
        self.sequence, self.repeats = sequence, repeats
        self.slot, self.known = -1, 0

    @property
    def window(self) -> list[int]:
        """The tokens that the model sees."""
        return self.sequence.ids[self.sequence.window_start :]

    @property
    def unread(self) -> int:
        """How many of them it has not read."""
        return len(self.sequence.ids) - self.sequence.window_start - self.known

    @property
    def wants_scores(self) -> bool:
        """Whether the log-probabilities of its tokens are asked for."""
        details = self.sequence.details
        return details is not None and details.logprobs is not None

    def choice(self, guesses: list[int]) -> Row:
        """What the choice of the token after some guesses depends on."""
        sequence, params = self.sequence, self.sequence.params
        context = [*self.window, *guesses] if params.repetition_penalty != 1 else ()
        position = len(sequence.ids) + len(guesses)
        return Row(params, position, context, sequence.adjustments(guesses))


class Runner:
    """A model, its tokenizer, and the passages that it writes, each in a slot of the decoder."""

    def __init__(
        self,
        name: str,
        decoder: Decoder,
        tokenizer: Tokenizer,
        speculation: Speculation | None = None,
    ) -> None:
        """speculation is for a decoder whose rows do not depend on one another."""
        self.name, self.decoder, self.tokenizer = name, decoder, tokenizer
        self._speculation = speculation
        self._block_size = decoder.config.block_size
        self._slots = Slots(decoder)
        self._running: list[_Running] = []

    @cached_property
    def _breakers(self) -> frozenset[int]:
        return breaker_tokens(self.tokenizer)

    @property
    def sequences(self) -> list[Sequence]:
        """The passages that have a slot."""
        return [row.sequence for row in self._running]

    def step(self, requests: list[Sequence | Job]) -> list[Outcome]:
        """Let each of the requests that should run now go on by one token, or by as many as were
        guessed rightly, and one job by a slice.

        A passage that is no longer among them loses its slot first. One that has much to read, as
        when it begins or when its window moves, reads max_rows tokens, one passage in a step: so
        a long prompt makes the others wait for a moment, often, and not once for long.
        Raises whatever computing the next token of all raises; none of them can go on then.
        """
        for row in list(self._running):
            if not any(row.sequence is request for request in requests):
                self._release(row)
        here = self.sequences
        new = [r for r in requests if isinstance(r, Sequence) and r not in here]
        jobs = [r for r in requests if isinstance(r, Job)]
        outcomes = [
            *(self._begin(sequence) for sequence in new),
            # One slice in a step, of the job that had the fewest: a long one delays no short one.
            *(self._advance(min(jobs, key=lambda job: job.n_slices)) for _ in jobs[:1]),
            *self._read(),
            *self._write([row for row in self._running if row.unread == 1]),
        ]
        return [outcome for outcome in outcomes if outcome is not None]

    def close(self) -> None:
        """Give the model's memory back."""
        self.decoder.close()

    def _begin(self, sequence: Sequence) -> Outcome | None:
        """Give a passage a slot. Failing is its affair alone."""
        try:
            if not sequence.ids:  # else it has paused
                breakers = self._breakers if sequence.params.dry_multiplier else frozenset()
                sequence.begin(self.tokenizer, self._block_size, breakers)
        except BaseException as error:  # a panic in Rust code, for one, is no Exception
            return Outcome(sequence, as_storygen_error(error, self.name), final=True)
        sequence.window_start = window_start(len(sequence.ids), self._block_size)
        row = _Running(sequence, self._speculation.repeats() if self._speculation else None)
        row.slot = self._slots.take(row.window)
        self._running.append(row)
        row.known = self._slots.recall(row.slot, row.window)
        return None

    def _advance(self, job: Job) -> Outcome | None:
        """Work on one slice of a job. Failing is its affair alone."""
        try:
            done, answer = job.advance(self.decoder, self._slots, self.tokenizer)
        except BaseException as error:
            return Outcome(job, as_storygen_error(error, self.name), final=True)
        return Outcome(job, answer, final=True) if done else None

    def _read(self) -> list[Outcome]:
        """Some tokens of the passage that has the least left to read, all but its last."""
        for row in self._running:
            start = window_start(len(row.sequence.ids), self._block_size)
            if start != row.sequence.window_start:
                row.sequence.window_start, row.known = start, 0
        reading = [row for row in self._running if row.unread > 1]
        if not reading:
            return []
        row = min(reading, key=lambda row: row.unread)
        try:
            row.known = max(row.known, self._slots.recall(row.slot, row.window))
            stop = min(row.known + self.decoder.max_rows, len(row.window) - 1)
            rows = self._slots.rows(row.slot, row.window, row.known, stop)
            if rows:
                self.decoder.logits(rows, [])
                self._slots.learned(rows)
            row.known = stop
        except Exception as error:
            self._slots.forget(row.slot)
            self._release(row)
            return [Outcome(row.sequence, as_storygen_error(error, self.name), final=True)]
        return []

    def _write(self, writing: list[_Running]) -> list[Outcome]:
        """What comes next for each of these, which have read all but their last token."""
        if not writing:
            return []
        began = time.perf_counter()
        n = self._speculation.pace.guesses(len(writing)) if self._speculation else 0
        pieces: list[list[Token]] = []  # of each passage its last token, and what may follow
        choices: list[Row] = []
        for row in writing:
            guesses = self._guesses(row, n)
            tokens = [row.sequence.ids[-1], *guesses]
            pieces.append([Token(row.slot, row.known + i, id) for i, id in enumerate(tokens)])
            choices += [row.choice(guesses[:i]) for i in range(len(tokens))]
        rows = [row for piece in pieces for row in piece]
        # A vocabulary may be padded to a round number with ids that spell nothing.
        n_tokens = self.tokenizer.vocab_size
        logprobs = self._logprobs(writing, [piece[0] for piece in pieces])
        drawn = iter(self.decoder.step(rows, range(len(rows)), choices, n_tokens))
        outcomes, taken = [], []
        for row, piece in zip(writing, pieces, strict=True):
            right, told = self._take(
                row, piece, [next(drawn) for _ in piece], logprobs.get(row.slot)
            )
            taken.append((len(piece) - 1, right))
            outcomes += told
        if self._speculation:
            self._speculation.pace.learn(n, taken, time.perf_counter() - began)
        return outcomes

    def _guesses(self, row: _Running, n: int) -> list[int]:
        """Up to n, as many as the passage and its window have room for."""
        if not n or not self._speculation or not row.repeats or row.wants_scores:
            return []
        room = min(row.sequence.n_left - 1, self._block_size - len(row.window))
        return self._speculation.guesses(row.repeats, row.sequence.ids, max(0, min(n, room)))

    def _logprobs(self, writing: list[_Running], rows: list[Token]) -> dict[int, np.ndarray]:
        """Log-probabilities (V,) of the next token, by slot, where the details want them. Computed
        apart, so that a passage is the same with and without."""
        wanted = [row for row, running in zip(rows, writing, strict=True) if running.wants_scores]
        if not wanted:
            return {}
        logits = self.decoder.logits(wanted, range(len(wanted)))[:, : self.tokenizer.vocab_size]
        logprobs = logits - log_of_sum(logits)[:, None]  # (B, V)
        return {row.slot: line for row, line in zip(wanted, logprobs, strict=True)}

    def _scorer(self, row: _Running, token: int, logprobs: np.ndarray) -> Scorer:
        details = row.sequence.details
        top = likeliest(logprobs, n) if details and (n := details.logprobs) else []
        return partial(scored, self.tokenizer, token, logprob=float(logprobs[token]), top=top)

    def _take(
        self,
        row: _Running,
        piece: list[Token],
        drawn: list[int | None],
        logprobs: np.ndarray | None,
    ) -> tuple[int, list[Outcome]]:
        """Take what was drawn after a passage's last token, and after each guess that was right.
        How many of the guesses that are, and what the reader is told."""
        outcomes: list[Outcome] = []
        for n, read in enumerate(piece):
            self._slots.learned([read])
            length = len(row.sequence.ids)
            outcome = self._taken(row, drawn[n], logprobs)
            outcomes += [outcome] if outcome is not None else []
            right = n + 1 < len(piece) and piece[n + 1].id == drawn[n]
            over = outcome is not None and outcome.final
            if not right or over or len(row.sequence.ids) <= length:  # a banned phrase was undone
                break
        return n, outcomes

    def _taken(
        self, row: _Running, token: int | None, logprobs: np.ndarray | None
    ) -> Outcome | None:
        if token is None:
            self._slots.forget(row.slot)
            return Outcome(row.sequence, no_numbers(self.name), final=True)
        scorer = None if logprobs is None else self._scorer(row, token, logprobs)
        segment = row.sequence.take(token, scorer)
        row.known += min(1, row.unread - 1)  # less than before where a banned phrase was undone
        if segment is None:
            return None
        return Outcome(row.sequence, segment, final=segment.finish_reason is not None)

    def _release(self, row: _Running) -> None:
        self._running.remove(row)
        self._slots.give_back(row.slot)


def as_storygen_error(error: BaseException, model: str) -> StorygenError:
    """The error itself when it is meant for the reader, else one that is, chained to it."""
    if isinstance(error, StorygenError):
        return error
    wrapped = EngineError(f"{model} failed ({type(error).__name__}: {error}). Try again.")
    wrapped.__cause__ = error
    return wrapped
