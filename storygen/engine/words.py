"""The most probable next words: whole ones, though the model knows tokens only.

A word's probability is that of its tokens, one after another, times that of something following
that shows the word to be over. Beginnings of words are looked at in the order of their
probability, until none is left that could still become one of the best n.
"""

import re
from collections import defaultdict
from functools import partial
from heapq import heappop, heappush, nlargest
from typing import NamedTuple

import numpy as np

from storygen.decode.interface import Decoder
from storygen.engine.interface import WordScore
from storygen.engine.jobs import Job, Work, log_of_sum, no_numbers, read
from storygen.engine.sequence import prompt_ids
from storygen.engine.slots import Slots
from storygen.model.windows import window_start
from storygen.tokenizers import StreamDecoder, Tokenizer

TOGETHER = 4  # beginnings that are read in a step: each takes the memory of a story
MOST = 240  # that are read for an answer
CHILDREN = 256  # tokens that are considered after one

_LETTER = re.compile(r"[^\W_]")  # or digit; an underscore is a mark, for italics
_WORD = re.compile(r"\s*(?:[^\W_]+(?:['’][^\W_]+)*|(?:[^\w\s]|_)+)")
_APOSTROPHES = ("'", "’")


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
        logits = _after(decoder, slots, [window + list(path.tokens) for path in paths])
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


class Path(NamedTuple):
    """Tokens that may begin a word, the most probable first."""

    unlikeliness: float  # minus the probability
    tokens: tuple[int, ...]


class WordSearch:
    """Which beginnings of words to look at next, and the words found so far."""

    def __init__(self, tokenizer: Tokenizer, n: int, depth: int) -> None:
        """n words are wanted; one of more than depth tokens is cut there."""
        self._tokenizer, self._n, self._depth = tokenizer, n, depth
        self._starts = _starts(tokenizer)
        self._found = defaultdict[str, float](float)
        self._open = [Path(-1.0, ())]  # a heap
        self._n_read = 0

    def next(self, most: int) -> list[Path]:
        """Up to so many paths whose next token is wanted; none when the best n are found."""
        paths: list[Path] = []
        bar = self._bar()
        while self._open and len(paths) < most and self._n_read < MOST:
            if -self._open[0].unlikeliness <= bar:
                break
            paths.append(heappop(self._open))
            self._n_read += 1
        return paths

    def expand(self, path: Path, probabilities: np.ndarray) -> None:
        """Go on from a path, given the probability of each token (V,) after it."""
        text, finished = self._text(path.tokens)
        word, _ = first_word(text)
        over = _OVER[_state(text)][self._starts]  # (V,) whether a token shows the word to be over
        if finished and word:
            self._found[word] += -path.unlikeliness * float(probabilities[over].sum())
        onward = np.where(over, 0.0, probabilities)
        bar = self._bar()
        for token in np.argsort(-onward, kind="stable")[:CHILDREN].tolist():
            child = Path(path.unlikeliness * float(onward[token]), (*path.tokens, token))
            if -child.unlikeliness <= bar:
                break
            self._add(child)

    def best(self) -> list[WordScore]:
        """The n most probable words found."""
        ranked = sorted(self._found.items(), key=lambda found: (-found[1], found[0]))
        return [WordScore(word, p) for word, p in ranked[: self._n]]

    def _add(self, path: Path) -> None:
        text, _ = self._text(path.tokens)
        word, over = first_word(text)
        if "\ufffd" in text:  # pieces of characters that do not fit: no words
            return
        if over or len(path.tokens) == self._depth:
            if word:
                self._found[word] += -path.unlikeliness
        else:
            heappush(self._open, path)

    def _bar(self) -> float:
        """The probability that one of the best n has at least."""
        if len(self._found) < self._n:
            return 0.0
        return nlargest(self._n, self._found.values())[-1]

    def _text(self, tokens: tuple[int, ...]) -> tuple[str, bool]:
        """What tokens spell, and whether the last character is complete."""
        decoder = StreamDecoder(self._tokenizer)
        return "".join(map(decoder.push, tokens)), not decoder.unfinished


def first_word(text: str) -> tuple[str, bool]:
    """The first word of text with the space before it, and whether it is known to be over.

    >>> first_word(" don't, "), first_word(" don'"), first_word('."')
    ((" don't", True), (' don', False), ('."', False))
    """
    found = _WORD.match(text)
    if found is None:
        return "", False
    word, rest = found.group(), text[found.end() :]
    return word, bool(rest) and not (rest in _APOSTROPHES and _is_of_word(word[-1]))


def _is_of_word(character: str) -> bool:
    return _LETTER.match(character) is not None


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
    if text[0] in _APOSTROPHES:
        return APOSTROPHE
    return WORD if _is_of_word(text[0]) else MARK


def _starts(tokenizer: Tokenizer) -> np.ndarray:
    """What each token starts with (V,)."""
    starts = []
    for token in range(tokenizer.vocab_size):
        text = tokenizer.token_bytes(token).decode("utf-8", errors="replace")
        start = _start(text) if "\ufffd" not in text else UNKNOWN
        starts.append(END if token == tokenizer.eot_id else start)
    return np.array(starts)
