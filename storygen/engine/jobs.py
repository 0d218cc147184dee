"""Questions to a model that are no passage: scores, likely next tokens, its tokenizer.

A job is worked on in slices, so that passages being written go on in between.
"""

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import torch

from storygen.engine.interface import TokenScore
from storygen.engine.sequence import prompt_tail
from storygen.errors import EngineError
from storygen.model import GPT
from storygen.model.generate import window_start
from storygen.model.score import score_windows
from storygen.tokenizers import StreamDecoder, Tokenizer

Work = Generator[None, None, Any]  # yields after each slice, returns the answer


class Job:
    """One question. Occupies a slot of its model, as a passage does, but no cache."""

    def __init__(self, model: str, work: Callable[[GPT, Tokenizer], Work]) -> None:
        self.model, self._work = model, work
        self._slices: Work | None = None

    def advance(self, model: GPT, tokenizer: Tokenizer) -> tuple[bool, Any]:
        """Work on one slice: whether it was the last, and then the answer."""
        self._slices = self._slices or self._work(model, tokenizer)
        try:
            next(self._slices)
        except StopIteration as stop:
            return True, stop.value
        return False, None


def tokenizer_job(model: str) -> Job:
    """Asks for the model's Tokenizer."""
    return Job(model, _tokenizer)


def score_job(model: str, ids: list[int]) -> Job:
    """Asks for the TokenScore of each of ids, a window of them in each slice."""
    return Job(model, partial(_scores, ids=ids, name=model))


def next_tokens_job(model: str, prompt: str, n: int) -> Job:
    """Asks for the TokenScores of the n most probable tokens after prompt."""
    return Job(model, partial(_next_tokens, prompt=prompt, n=n, name=model))


def no_numbers(model: str) -> EngineError:
    """What to say when a model's logits are NaN or infinite."""
    return EngineError(
        f"{model} computed something that is no number and cannot go on. Its weights are damaged: "
        "train or import it again, or choose another model."
    )


def _tokenizer(model: GPT, tokenizer: Tokenizer) -> Work:
    yield from ()
    return tokenizer


def _scores(model: GPT, tokenizer: Tokenizer, ids: list[int], name: str) -> Work:
    logprobs: list[float] = []
    for piece in score_windows(model, ids, tokenizer.eot_id):
        if not piece.isfinite().all():
            raise no_numbers(name)
        logprobs += piece.tolist()
        yield
    # A character of several tokens is the text of its last one; the texts joined are the whole.
    decoder = StreamDecoder(tokenizer)
    return [TokenScore(decoder.push(i), p) for i, p in zip(ids, logprobs, strict=True)]


def _next_tokens(model: GPT, tokenizer: Tokenizer, prompt: str, n: int, name: str) -> Work:
    yield from ()
    block_size = model.config.block_size
    ids = tokenizer.encode(prompt_tail(prompt, block_size))
    window = torch.tensor(
        [ids[window_start(len(ids), block_size) :]], device=model.wte.weight.device
    )
    logits = model.lm_head(model.hidden(window)[0, -1])[: tokenizer.vocab_size]  # (V,)
    logprobs = logits.double().log_softmax(dim=-1)
    if not logprobs.isfinite().all():
        raise no_numbers(name)
    best = logprobs.topk(min(n, len(logprobs)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [TokenScore(tokenizer.decode([token]), logprob) for token, logprob in pairs]
