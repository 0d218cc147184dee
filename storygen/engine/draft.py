"""Draft: the text of a passage while it is written: what may be shown of it, what is held back."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from storygen.engine.phrases import CONTEXT, BannedPhrases, StopStrings
from storygen.text import ends_sentence
from storygen.tokenizers import StreamDecoder, Tokenizer

BEFORE = 1000  # characters of the writer's text in which a banned phrase may begin


class _Place(NamedTuple):
    """What was so before a token was added, for when it is undone."""

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
        self._starts: list[int] = []  # of each token in the text
        self._places: list[_Place] = []
        self._stop = StopStrings(stop) if any(stop) else None
        phrases = BannedPhrases(banned)
        self._banned = phrases if phrases else None  # most passages have none: asked quickly
        self._beginning = len(self._text)
        if self._banned is not None:
            start = min(len(before) - len(self._text), CONTEXT)
            self._beginning = self._banned.find(self._text, start, self._written, False).beginning

    def begin(self, tokenizer: Tokenizer) -> None:
        """From now on tokens are those of a tokenizer."""
        self._decoder = StreamDecoder(tokenizer)

    def resume(self, tokens: Sequence[int], hidden: int) -> bool:
        """Take tokens for written and shown, but for the last characters of the last one; whether
        it has more. What was shown is not undone: no phrase begins before its end."""
        for token in tokens:
            self.add(token)
        self._n_shown, self._shown = len(tokens), len(self._text) - hidden
        self._beginning = len(self._text)
        return self._shown > self._starts[-1]

    def add(self, token: int) -> str:
        """One more token; its text."""
        if self._banned is not None:
            self._places.append(_Place(self._beginning, self._decoder.unfinished))
        self._starts.append(len(self._text))
        text = self._decoder.push(token)
        self._text += text
        return text

    def undo(self, n: int) -> None:
        """Forget all tokens but the first n."""
        length = self._starts[n]
        assert length >= self._shown, (length, self._shown)
        self._beginning, self._decoder.unfinished = self._places[n]
        self._text = self._text[:length]
        del self._starts[n:], self._places[n:]

    @property
    def length(self) -> int:
        """Index at which the text ends."""
        return len(self._text)

    @property
    def hidden(self) -> int:
        """How many characters of the tokens that count as shown are not."""
        n = self._n_shown
        return (self._starts[n] if n < len(self._starts) else len(self._text)) - self._shown

    def stop_string(self) -> int | None:
        """Index at which the text ends for a stop string."""
        return self._stop.end(self._text, self._shown) if self._stop is not None else None

    def sentence_end(self) -> int | None:
        """Index of the white space in the last token that shows a sentence to be over."""
        text = self._text
        for at in range(max(self._starts[-1], self._written + 1), len(text)):
            if text[at].isspace() and not text[at - 1].isspace() and ends_sentence(text, at):
                return at
        return None

    def banned(self, length: int, over: bool) -> int | None:
        """The token with which a banned phrase in the text up to an index began. over: the text
        ends there."""
        if self._banned is None:
            return None
        text = self._text[:length]
        phrase, beginning = self._banned.find(text, self._beginning, self._written, over)
        if phrase is not None:
            return self._token_at(phrase)
        self._beginning = min(beginning, self._at_stops(self._beginning))
        return None

    def _at_stops(self, start: int) -> int:
        """From where on a phrase would be banned if what looks like a stop string becomes one: that
        may end a word in its middle."""
        assert self._banned is not None
        stops = self._stop.beginnings(self._text, self._shown) if self._stop is not None else ()
        found = (
            self._banned.find(self._text[:stop], start, self._written, over=True).phrase
            for stop in stops
        )
        return min((at for at in found if at is not None), default=len(self._text))

    def clean(self) -> int:
        """Index up to which the text may be shown if it ends here."""
        if self._banned is None:
            return len(self._text)
        phrase, _ = self._banned.find(self._text, self._beginning, self._written, over=True)
        return len(self._text) if phrase is None else max(phrase, self._shown)

    def show(self) -> tuple[str, int]:
        """The text that may be shown and was not yet, and the number of its tokens."""
        safe, n = len(self._text), len(self._starts)
        if self._stop is not None:
            safe = next(self._stop.beginnings(self._text, self._shown), safe)
        if self._banned is not None:
            safe = min(safe, self._unchanging())
        if self._starts[-1] >= safe:
            n = bisect_left(self._starts, safe)
        return self._show(safe, n)

    def show_last(self, length: int) -> tuple[str, int]:
        """The text up to an index, where it ends, and all the tokens there are."""
        return self._show(length, len(self._starts))

    def _show(self, length: int, n: int) -> tuple[str, int]:
        text, count = self._text[self._shown : length], n - self._n_shown
        self._shown, self._n_shown = length, n
        return text, count

    def _unchanging(self) -> int:
        """Index up to which the text stays whichever token is undone: a token is if a phrase may
        begin with it, or if one might when those after it are replaced."""
        at = self._beginning
        while at < len(self._text):
            if at < self._written:
                return self._written
            token = self._token_at(at)
            start, at = self._starts[token], self._places[token].beginning
            if at >= start:
                return start
        return at

    def _token_at(self, at: int) -> int:
        """The token to which a character belongs; the first for what the writer wrote."""
        return max(0, bisect_right(self._starts, at) - 1)
