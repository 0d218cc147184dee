"""Draft: the text of a passage while it is written: what may be shown of it, what is held back."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from storygen.engine.phrases import CONTEXT, BannedPhrases, StopStrings
from storygen.text import ends_sentence
from storygen.tokenizers import StreamDecoder, Tokenizer

BEFORE = 1000  # characters of the writer's text in which a banned phrase may begin


class _Place(NamedTuple):
    """What was so before a token was added."""

    length: int  # of the text
    beginning: int  # of what may become a banned phrase
    unfinished: bytes  # of a character


class Draft:
    """Text from tokens, behind the end of what the writer wrote.

    What may become a stop string or a banned phrase is held back, and so is all that would change
    if the token were undone with which the phrase began: what was shown stays.
    """

    def __init__(self, before: str, stop: Sequence[str], banned: Sequence[str]) -> None:
        self._text = before[-BEFORE:]
        self._written = self._shown = len(self._text)
        self._n_shown = 0  # tokens
        self._places: list[_Place] = []  # of each token
        self._stop = StopStrings(stop)
        self._banned = BannedPhrases(banned)
        start = min(len(before) - len(self._text), CONTEXT)
        self._beginning = self._find(start, over=False)[1]

    def begin(self, tokenizer: Tokenizer) -> None:
        """From now on tokens are those of a tokenizer."""
        self._decoder = StreamDecoder(tokenizer)

    def add(self, token: int) -> None:
        """The text of one more token."""
        before = self._decoder.unfinished if self._banned else b""
        self._places.append(_Place(len(self._text), self._beginning, before))
        self._text += self._decoder.push(token)

    def undo(self, n: int) -> None:
        """Forget all tokens but the first n."""
        length, self._beginning, self._decoder.unfinished = self._places[n]
        assert length >= self._shown, (length, self._shown)
        self._text = self._text[:length]
        del self._places[n:]

    @property
    def length(self) -> int:
        """Index at which the text ends."""
        return len(self._text)

    def stop_string(self) -> int | None:
        """Index at which the text ends for a stop string."""
        return self._stop.end(self._text, self._shown)

    def sentence_end(self) -> int | None:
        """Index of the white space in the last token that shows a sentence to be over."""
        text = self._text
        for at in range(max(self._places[-1].length, self._written + 1), len(text)):
            if text[at].isspace() and not text[at - 1].isspace() and ends_sentence(text, at):
                return at
        return None

    def banned(self, length: int, over: bool) -> int | None:
        """The token with which a banned phrase in the text up to an index began. over: the text
        ends there."""
        phrase, beginning = self._find(self._beginning, over, length)
        if phrase is not None:
            return self._token_at(phrase)
        self._beginning = beginning
        return None

    def safe(self) -> int:
        """Index up to which the text may be shown."""
        return min(self._stop.beginning(self._text, self._shown), self._unchanging())

    def clean(self) -> int:
        """Index up to which the text may be shown if it ends here."""
        phrase, _ = self._find(self._beginning, over=True)
        return len(self._text) if phrase is None else max(phrase, self._shown)

    def show(self, length: int) -> tuple[str, int]:
        """The text up to an index that was not shown yet, and the number of its tokens."""
        n = len(self._places)
        if n and self._places[-1].length >= length:
            n = bisect_left(self._places, length, key=lambda place: place.length)
        return self._show(length, n)

    def show_last(self, length: int) -> tuple[str, int]:
        """As show(), but all the tokens there are: the text ends here."""
        return self._show(length, len(self._places))

    def _show(self, length: int, n: int) -> tuple[str, int]:
        text, count = self._text[self._shown : length], n - self._n_shown
        self._shown, self._n_shown = length, n
        return text, count

    def _find(self, start: int, over: bool, length: int | None = None) -> tuple[int | None, int]:
        if not self._banned:
            return None, len(self._text)
        return self._banned.find(self._text[:length], start, self._written, over)

    def _unchanging(self) -> int:
        """Index up to which the text stays whichever token is undone: a token is if a phrase may
        begin with it, or if one might when those after it are replaced."""
        at = self._beginning
        while at < len(self._text):
            if at < self._written:
                return self._written
            place = self._places[self._token_at(at)]
            if place.beginning >= place.length:
                return place.length
            at = place.beginning
        return at

    def _token_at(self, at: int) -> int:
        """The token to which a character belongs; the first for what the writer wrote."""
        return max(0, bisect_right(self._places, at, key=lambda place: place.length) - 1)
