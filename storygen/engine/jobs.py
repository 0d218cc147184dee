"""Questions to a model that are no passage: scores, likely next tokens.

A job is worked on in slices, so that passages being written go on in between.
"""

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from storygen.decode.interface import Decoder
from storygen.engine.interface import TokenScore
from storygen.engine.sequence import prompt_ids
from storygen.engine.slots import Slots
from storygen.errors import EngineError
from storygen.model.windows import window_start, windows
from storygen.tokenizers import StreamDecoder, Tokenizer

Work = Generator[None, None, Any]  # yields after each slice, returns the answer


class Job:
    """One question. Occupies a place of its model, as a passage does."""

    def __init__(self, model: str, work: Callable[[Decoder, Slots, Tokenizer], Work]) -> None:
        self.model, self._work = model, work
        self._slices: Work | None = None
        self.n_slices = 0

    def advance(self, decoder: Decoder, slots: Slots, tokenizer: Tokenizer) -> tuple[bool, Any]:
        """Work on one slice: whether it was the last, and then the answer."""
        self._slices = self._slices or self._work(decoder, slots, tokenizer)
        self.n_slices += 1
        try:
            next(self._slices)
        except StopIteration as stop:
            return True, stop.value
        return False, None


def score_job(model: str, ids: list[int], top: int = 0) -> Job:
    """Asks for the TokenScore of each of ids, a window of them in each slice, with as many of the
    most probable in its place."""
    return Job(model, partial(_scores, ids=ids, top=top, name=model))


def next_tokens_job(model: str, prompt: str, n: int) -> Job:
    """Asks for the TokenScores of the n most probable tokens after prompt."""
    return Job(model, partial(_next_tokens, prompt=prompt, n=n, name=model))


class NoNumbersError(EngineError):
    """A model's logits are NaN or infinite."""


def no_numbers(model: str) -> NoNumbersError:
    """What to say then."""
    return NoNumbersError(
        f"{model} computed something that is no number and cannot go on. Its weights are damaged: "
        "train or import it again, or choose another model."
    )


def _scores(
    decoder: Decoder, slots: Slots, tokenizer: Tokenizer, ids: list[int], top: int, name: str
) -> Work:
    # A character of several tokens is the text of its last one; the texts joined are the whole.
    text = StreamDecoder(tokenizer)
    scores: list[TokenScore] = []
    tokens = ids
    if tokenizer.eot_id is not None:
        tokens = [tokenizer.eot_id, *ids]
    elif ids:
        # Nothing can stand before the first token: it counts as one of equally likely ones.
        alone = -math.log(decoder.config.vocab_size)
        scores.append(scored(tokenizer, ids[0], text.push(ids[0]), alone, ()))
    for start, first, stop in windows(len(tokens) - 1, decoder.config.block_size):
        for end, logits in read(decoder, slots, tokens[start:stop], first - 1 - start):
            following = tokens[start + end - len(logits) + 1 : start + end + 1]
            if not np.isfinite(logits).all():
                raise no_numbers(name)
            for token, row, of_sum in zip(following, logits, log_of_sum(logits), strict=True):
                best = likeliest(row[: tokenizer.vocab_size] - of_sum, top) if top else ()
                logprob = float(row[token] - of_sum)
                scores.append(scored(tokenizer, token, text.push(token), logprob, best))
            yield
    return scores


def likeliest(logprobs: np.ndarray, n: int) -> list[tuple[int, float]]:
    """The n most probable tokens and their log-probabilities (V,), most probable first."""
    least = np.partition(logprobs, -n)[-n] if n < len(logprobs) else -np.inf
    among = np.flatnonzero(logprobs >= least)  # a vocabulary takes long to sort
    best = among[np.argsort(-logprobs[among], kind="stable")][:n].tolist()
    return [(token, float(logprobs[token])) for token in best]


def scored(
    tokenizer: Tokenizer, token: int, text: str, logprob: float, top: Iterable[tuple[int, float]]
) -> TokenScore:
    """The score of a token that adds this text, with those of the most probable in its place."""
    others = (TokenScore(text if i == token else tokenizer.decode([i]), p) for i, p in top)
    return TokenScore(text, logprob, tuple(others))


def _next_tokens(
    decoder: Decoder, slots: Slots, tokenizer: Tokenizer, prompt: str, n: int, name: str
) -> Work:
    block_size = decoder.config.block_size
    ids = prompt_ids(tokenizer, prompt, block_size)
    window = ids[window_start(len(ids), block_size) :]
    logprobs = np.empty(0)
    for _, logits in read(decoder, slots, window, len(window) - 1):
        if not np.isfinite(logits).all():
            raise no_numbers(name)
        if len(logits):
            last = logits[:1, : tokenizer.vocab_size]
            logprobs = (last - log_of_sum(last)[:, None])[0]  # (V,)
        yield
    return [TokenScore(tokenizer.decode([i]), p) for i, p in likeliest(logprobs, n)]


def log_of_sum(logits: np.ndarray) -> np.ndarray:
    """log(sum(exp(logits))) of each row (T, V) -> (T,), in float64."""
    most = logits.max(axis=-1, keepdims=True)  # (T, 1)
    total = np.exp(logits - most).sum(axis=-1, dtype=np.float64)
    return most[:, 0] + np.log(total)


def read(
    decoder: Decoder, slots: Slots, window: list[int], first: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Read a window piece by piece: where each piece ends, and the logits (T, vocab_size) after
    each of its tokens from `first` on, until the next step. Holds no slot between the pieces."""
    done = first
    while done < len(window):
        slot = slots.take(window)
        try:
            known = min(slots.recall(slot, window), done)
            stop = min(known + decoder.max_rows, len(window))
            rows = slots.rows(slot, window, known, stop)
            logits = decoder.logits(rows, range(max(done - known, 0), len(rows)))
            if np.isfinite(logits).all():
                slots.learned(rows)
        finally:
            slots.give_back(slot)
        done = max(done, stop)
        yield stop, logits
