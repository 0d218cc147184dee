"""The most probable next words: whole ones, though the model knows tokens only."""

from functools import partial
from heapq import heappush

import numpy as np

from storygen.decode.interface import Decoder
from storygen.engine.beginnings import APOSTROPHES, Path, Search, first_word, is_of_word
from storygen.engine.jobs import Job, Work, log_of_sum, no_numbers, read
from storygen.engine.sequence import prompt_ids
from storygen.engine.slots import Slots
from storygen.model.windows import window_start
from storygen.tokenizers import StreamDecoder, Tokenizer

TOGETHER = 4  # beginnings that are read in a step: each takes the memory of a story
MOST = 240  # that are read for an answer
CHILDREN = 256  # tokens that are considered after one


def next_words_job(model: str, prompt: str, n: int) -> Job:
    """Asks for the WordScores of the n most probable words after prompt."""
    return Job(model, partial(_next_words, prompt=prompt, n=n, name=model))


def _next_words(
    decoder: Decoder, slots: Slots, tokenizer: Tokenizer, prompt: str, n: int, name: str
) -> Work:
    block_size = decoder.config.block_size
    depth = min(tokenizer.tokens_per_word, max(1, block_size // 2))
    ids = prompt_ids(tokenizer, prompt, block_size)
    window = ids[window_start(len(ids) + depth - 1, block_size) :]
    search = WordSearch(tokenizer, n, depth)
    while paths := search.next(min(TOGETHER, slots.n_free)):
        if slots.known(window) < len(window):
            for _ in read(decoder, slots, window, len(window) - 1):
                yield
        logits = _after(decoder, slots, [window + list(path.start) for path in paths])
        if not np.isfinite(logits).all():
            raise no_numbers(name)
        logits = logits[:, : tokenizer.vocab_size]
        probabilities = np.exp(logits - log_of_sum(logits)[:, None])
        for path, row in zip(paths, probabilities, strict=True):
            search.expand(path, row)
        yield
    return search.best()


def _after(decoder: Decoder, slots: Slots, stories: list[list[int]]) -> np.ndarray:
    """The logits after each of some stories, of which slots know nearly all."""
    rows, out, taken = [], [], []
    try:
        for ids in stories:
            slot = slots.take(ids)
            taken.append(slot)
            rows += slots.rows(slot, ids, slots.recall(slot, ids), len(ids))
            out.append(len(rows) - 1)
        logits = decoder.logits(rows, out)
        if np.isfinite(logits).all():
            slots.learned(rows)
        return logits
    finally:
        for slot in taken:
            slots.give_back(slot)


class WordSearch(Search[tuple[int, ...]]):
    """The search where the probability of each token is told."""

    def __init__(self, tokenizer: Tokenizer, n: int, depth: int) -> None:
        """n words are wanted; one of more than depth tokens is cut there."""
        super().__init__(n, (), MOST)
        self._tokenizer, self._depth = tokenizer, depth
        self._starts = _starts(tokenizer)

    def expand(self, path: Path[tuple[int, ...]], probabilities: np.ndarray) -> None:
        """Go on from a path, given the probability of each token (V,) after it."""
        text, finished = self._text(path.start)
        word, _ = first_word(text)
        over = _OVER[_state(text)][self._starts]  # (V,) whether a token shows the word to be over
        if finished:
            self._is_over(word, -path.unlikeliness * float(probabilities[over].sum()))
        onward = np.where(over, 0.0, probabilities)
        bar = self._bar()
        for token in np.argsort(-onward, kind="stable")[:CHILDREN].tolist():
            child = Path(path.unlikeliness * float(onward[token]), (*path.start, token))
            if -child.unlikeliness <= bar:
                break
            self._add(child)

    def _add(self, path: Path[tuple[int, ...]]) -> None:
        text, _ = self._text(path.start)
        word, over = first_word(text)
        if "\ufffd" in text:  # pieces of characters that do not fit: no words
            return
        if over or len(path.start) == self._depth:
            self._is_over(word, -path.unlikeliness)
        else:
            heappush(self._open, path)

    def _text(self, tokens: tuple[int, ...]) -> tuple[str, bool]:
        """What tokens spell, and whether the last character is complete."""
        decoder = StreamDecoder(self._tokenizer)
        return "".join(map(decoder.push, tokens)), not decoder.unfinished


# What a token starts with, and what a text may end with.
SPACE, WORD, MARK, APOSTROPHE, UNKNOWN, END = range(6)

# By what a text ends with: which starts of tokens show its word to be over.
_OVER = np.zeros((4, 6), np.bool_)
_OVER[WORD, [SPACE, MARK, END]] = True
_OVER[MARK, [SPACE, WORD, END]] = True
_OVER[APOSTROPHE, [SPACE, MARK, APOSTROPHE, END]] = True
_OVER[SPACE, END] = True


def _state(text: str) -> int:
    """What text, one word at most, ends with; an apostrophe counts as one after letters only."""
    word, _ = first_word(text)
    if len(word) < len(text):
        return APOSTROPHE if word else SPACE
    return _start(word[-1:]) if _start(word[-1:]) in (SPACE, WORD) else MARK


def _start(text: str) -> int:
    """What text starts with."""
    if not text or text[0].isspace():
        return SPACE
    if text[0] in APOSTROPHES:
        return APOSTROPHE
    return WORD if is_of_word(text[0]) else MARK


def _starts(tokenizer: Tokenizer) -> np.ndarray:
    """What each token starts with (V,)."""
    starts = []
    for token in range(tokenizer.vocab_size):
        text = tokenizer.token_bytes(token).decode("utf-8", errors="replace")
        start = _start(text) if "\ufffd" not in text else UNKNOWN
        starts.append(END if token == tokenizer.eot_id else start)
    return np.array(starts)
