"""Speculation: a passage's next tokens are guessed, and the model checks the guesses in one step.

A step reads every weight once, and with two or three rows it takes hardly longer than with one. So
the guesses follow a passage's last token as rows of their own, and what is drawn after each row
says whether the guess after it was right. A draw depends on logits, seed and position alone, and a
row's logits not on the rows beside it: the passage is the one that it would have been, to the
letter, whether a guess is right or wrong. (Leviathan et al. 2023, with drafts by lookup as in
Saxena's prompt lookup decoding; where a seed tells the draw there is nothing to reject by chance.)
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate, repeat
from operator import mul
from statistics import median

from storygen.checkpoints.ngrams import LONGEST, NGrams
from storygen.tokenizers import BPETokenizer, Tokenizer

MOST_ROWS = 16  # of a step: more wait for arithmetic, no longer for memory
MOST_GUESSES = 3  # for a passage: of a fourth, hardly any is right
ALIKE = 3  # tokens, of the size of word pieces, after which a story is taken to go on as before
SHORTEST = 0.001  # seconds of a step without guesses: nobody reads what is sooner as fast
ROUNDS = 16  # in which each number of guesses was tried, the last ones of which count
BETWEEN_ROUNDS = 256  # steps
LEARNING = 1 / 128  # of how often guesses are right, by the last step
WORTH = 1.03  # times the tokens a second of no guesses: less is not worth a mistake


class Repeats:
    """What followed in one story after the same few tokens."""

    def __init__(self, alike: int) -> None:
        self._alike, self._n_known = alike, 0
        self._next: dict[tuple[int, ...], int] = {}

    def learn(self, ids: Sequence[int]) -> None:
        """The story so far. What was taken back is still foretold, and then it is wrong."""
        for at in range(max(self._alike, min(self._n_known, len(ids))), len(ids)):
            self._next[tuple(ids[at - self._alike : at])] = ids[at]
        self._n_known = len(ids)

    def next(self, ids: Sequence[int]) -> int | None:
        """What followed the last of ids when they last were there."""
        return self._next.get(tuple(ids[-self._alike :]))


class Speculation:
    """Guesses for the passages of one model, and how many of them pay."""

    def __init__(self, ngrams: NGrams | None, tokenizer: Tokenizer) -> None:
        """Without n-grams it is the story's own words that foretell."""
        self.pace = Pace()
        self._ngrams = ngrams
        self._vocab_size, self._eot_id = tokenizer.vocab_size, tokenizer.eot_id
        self._alike = ALIKE * (tokenizer.tokens_per_word // BPETokenizer.tokens_per_word)

    def repeats(self) -> Repeats:
        """For a new passage."""
        return Repeats(self._alike)

    def guesses(self, repeats: Repeats, ids: Sequence[int], n: int) -> list[int]:
        """Up to n tokens that may follow ids."""
        repeats.learn(ids)
        tail = list(ids[-max(LONGEST, self._alike) :])
        start = len(tail)
        for _ in range(n):
            token = repeats.next(tail)
            if token is None and self._ngrams is not None:
                token = self._ngrams.next(tail)
            if token is None or token >= self._vocab_size or token == self._eot_id:
                break
            tail.append(token)
        return tail[start:]


class Pace:
    """How many guesses give the most tokens a second, found by trying: it depends on the model, on
    the processor, on who else is writing and on the story. None is one of the numbers.

    All are tried in a round, one after the other, for a processor may be half as fast a moment
    later; a median over rounds says what each costs. Steps in which nothing could be guessed say
    nothing of guesses."""

    def __init__(self) -> None:
        self._right = [0.5] * MOST_GUESSES  # how often the n-th is, if those before it are
        self._by_writers: dict[int, _Tried] = {}

    def guesses(self, writers: int) -> int:
        """How many to try for each of so many passages."""
        if writers not in self._by_writers:
            most = min(MOST_GUESSES, max(0, MOST_ROWS // writers - 1))
            self._by_writers[writers] = _Tried(most, self._right)
        return next(self._by_writers[writers].turns)

    def learn(self, n: int, taken: Sequence[tuple[int, int]], seconds: float) -> None:
        """What a step with n guesses for each passage has given: how many each really had, and how
        many of these were right; how long it took."""
        for had, right in taken:
            for i in range(min(right + 1, n) if had else 0):
                self._right[i] += LEARNING * ((i < right) - self._right[i])
        share = sum(had > 0 for had, _ in taken) / len(taken)
        if share or not n:
            self._by_writers[len(taken)].learn(n, share, seconds)


class _Tried:
    """Steps with so many writers, by the number of guesses."""

    def __init__(self, most: int, right: Sequence[float]) -> None:
        self._right = right
        self._seconds = [deque[float](maxlen=ROUNDS) for _ in range(most + 1)]
        self._plain = deque[float](maxlen=ROUNDS)  # the last steps without guesses
        self._share = 1.0  # of the passages, for which something could be guessed
        self._in_round = False
        self.turns = self._order()

    def learn(self, n: int, share: float, seconds: float) -> None:
        """One step more."""
        if n:
            self._share += LEARNING * (share - self._share)
        else:
            self._plain.append(seconds)
        if self._in_round:
            self._seconds[n].append(seconds)

    def _order(self) -> Iterator[int]:
        numbers = range(len(self._seconds))
        while True:
            self._in_round = False
            if not self._plain or median(self._plain) < SHORTEST:
                for of_number in self._seconds:
                    of_number.clear()
                yield from repeat(0, ROUNDS)
                continue
            self._in_round = True
            for _ in range(1 if self._seconds[-1] else ROUNDS):
                yield from numbers
            self._in_round = False
            yield from repeat(self._best(), BETWEEN_ROUNDS)

    def _best(self) -> int:
        right = [0.0, *accumulate(accumulate(self._right, mul))]
        rates = [
            (1 + self._share * more) / median(seconds) if seconds else 0.0
            for more, seconds in zip(right, self._seconds, strict=False)
        ]
        best = max(range(len(rates)), key=rates.__getitem__)
        return best if rates[best] > WORTH * rates[0] else 0
