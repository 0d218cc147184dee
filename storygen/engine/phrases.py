"""Texts that a passage is searched for while it is written: stop strings, banned phrases."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from storygen.text import TRANSLATED, plain_typography

CONTEXT = 8  # characters before a phrase, of which the last visible one may make it part of a word


class StopStrings:
    """Texts that end a passage. The one completed first does; of several completed by the same
    character the longest. So it is the same however the text is divided into tokens."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max(map(len, self._stops), default=0)

    def end(self, text: str, start: int) -> int | None:
        """Where text ends, for a stop string found from start on."""
        found = [(at + len(s), at) for s in self._stops if (at := text.find(s, start)) >= 0]
        return min(found)[1] if found else None

    def beginnings(self, text: str, start: int) -> Iterator[int]:
        """Indices, start or later, from which text may be the beginning of a stop string."""
        for at in range(max(start, len(text) - self._longest + 1), len(text)):
            if any(stop.startswith(text[at:]) for stop in self._stops):
                yield at


class Found(NamedTuple):
    """Where the first banned phrase begins, if there is one, and from where one may begin that the
    following text would complete."""

    phrase: int | None
    beginning: int


class BannedPhrases:
    """Words and phrases that must not be written: whole words, in any case, typography and number
    of spaces between them."""

    def __init__(self, phrases: Sequence[str]) -> None:
        spellings = {*phrases, *map(plain_typography, phrases)}
        self._by_first = defaultdict[str, list[str]](list)
        for phrase in sorted({_folded(text)[0].strip() for text in spellings} - {""}):
            self._by_first[phrase[0]].append(phrase)

    def __bool__(self) -> bool:
        return bool(self._by_first)

    def find(self, text: str, start: int, written: int, over: bool) -> Found:
        """Search text from start on for phrases that end after `written`, where a passage begins.
        over: the text goes on no further, which may end a word."""
        skipped = max(0, start - CONTEXT)
        folded, origin = _folded(text[skipped:])
        beginning = len(text)
        for at in range(bisect_left(origin, start - skipped), len(folded)):
            for phrase in self._by_first.get(folded[at], ()):
                stands = _stands(folded, at, phrase, over)
                if stands is None:
                    beginning = min(beginning, skipped + origin[at])
                elif stands and skipped + origin[at + len(phrase) - 1] >= written:
                    return Found(skipped + origin[at], beginning)
        return Found(None, beginning)


def _stands(text: str, at: int, phrase: str, over: bool) -> bool | None:
    """Whether a phrase stands at an index of text; None where what follows will tell."""
    end = at + len(phrase)
    if _inside_word(text, at):
        return False
    if not text.startswith(phrase, at):
        return None if not over and phrase.startswith(text[at:]) else False
    if end == len(text) and not over and _is_of_word(phrase[-1]):
        return None
    return not _inside_word(text, end)


def _inside_word(text: str, at: int) -> bool:
    """Whether the characters before and after an index belong to one word."""
    return 0 < at < len(text) and _is_of_word(text[at - 1]) and _is_of_word(text[at])


def _is_of_word(character: str) -> bool:
    return character.isalnum()  # and no underscore, which is for italics


def _folded(text: str) -> tuple[str, list[int]]:
    """text without case and typography, a space for any white space, and where each character of
    that comes from."""
    folded: list[str] = []
    origin: list[int] = []
    for at, character in enumerate(text):
        for one in _plain(character):
            if one != " " or folded[-1:] != [" "]:
                folded.append(one)
                origin.append(at)
    return "".join(folded), origin


@lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    return " " if character.isspace() else character.translate(TRANSLATED).casefold()
