"""Steering: what a writer tells the model beside the story, and what it must not write.

It lies in the story's settings, as JSON. What comes from a browser is checked here, once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from storygen.errors import StoryError
from storygen.story.words import is_word

MAX_ALL = 200_000  # characters together, as JSON
MAX_MEMORY = 20_000
MAX_NOTE = 4_000
MAX_LORE = 300
MAX_LORE_TEXT = 4_000
MAX_KEYS = 30
MAX_NAME = 200
MAX_DEPTH = 50
MAX_STOPS = 8
MAX_BANNED = 64
MAX_PHRASE = 100


@dataclass(frozen=True)
class Lore:
    """Something the model is told when one of the keys has come up lately, or always without any.
    Keys are whole words or phrases, in any case."""

    name: str = ""
    keys: tuple[str, ...] = ()
    text: str = ""
    on: bool = True

    def comes_up_in(self, story: "StoryEnd") -> bool:
        """Whether the entry belongs to a prompt whose story ends so."""
        if not self.on or not self.text.strip():
            return False
        keys = [key.strip() for key in self.keys if key.strip()]
        return not keys or any(story.has(key) for key in keys)


class StoryEnd:
    """The end of a story, in which the keys of lore are looked for."""

    def __init__(self, text: str) -> None:
        self._text = _bounded(text)

    def has(self, key: str) -> bool:
        """Whether a key is in it as a whole word or phrase, in any case."""
        return _bounded(key) in self._text


@dataclass(frozen=True)
class Steering:
    """A story's memory (always at the beginning of the prompt), author's note (note_depth
    paragraphs before its end), lorebook, the title a film plot is asked for with, and how passages
    end and what they avoid."""

    memory: str = ""
    note: str = ""
    note_depth: int = 2
    lore: tuple[Lore, ...] = ()
    title: str = ""
    stop: tuple[str, ...] = ()
    banned: tuple[str, ...] = ()
    end_at_sentence: bool = False
    loop_guard: bool = True

    def as_json(self) -> dict[str, Any]:
        """The form that from_json reads."""
        return asdict(self)


NO_STEERING = Steering()


def from_json(value: object) -> Steering:
    """Steering as a browser or an archive gives it; raises StoryError naming what is wrong.

    What is missing has its default. Empty stop strings and phrases are left out.
    """
    found = _object(value, "Steering", {field.name for field in fields(Steering)})
    if (size := len(json.dumps(found, ensure_ascii=False))) > MAX_ALL:
        raise StoryError(
            f"Memory, note and lore have {size:,} characters together: at most {MAX_ALL:,} can be "
            "kept."
        )
    lore = [_lore(entry, n) for n, entry in enumerate(_list(found, "lore", MAX_LORE), 1)]
    return Steering(
        memory=_text(found, "memory", MAX_MEMORY),
        note=_text(found, "note", MAX_NOTE),
        note_depth=_depth(found.get("note_depth", Steering.note_depth)),
        lore=tuple(lore),
        title=" ".join(_text(found, "title", MAX_NAME).split()),
        stop=_phrases(found, "stop", MAX_STOPS, strip=False),
        banned=_phrases(found, "banned", MAX_BANNED),
        end_at_sentence=_switch(found, "end_at_sentence", Steering.end_at_sentence),
        loop_guard=_switch(found, "loop_guard", Steering.loop_guard),
    )


def steering_of(settings: Mapping[str, Any]) -> Steering:
    """The steering among a story's settings; none where it cannot be read any more."""
    try:
        return from_json(settings.get("steering", {}))
    except StoryError:
        return Steering()


def _lore(value: object, number: int) -> Lore:
    found = _object(value, f"Lore entry {number}", {field.name for field in fields(Lore)})
    return Lore(
        name=_text(found, "name", MAX_NAME),
        keys=_phrases(found, "keys", MAX_KEYS),
        text=_text(found, "text", MAX_LORE_TEXT),
        on=_switch(found, "on", Lore.on),
    )


def _object(value: object, noun: str, names: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise StoryError(f"{noun} must be an object, not {_short(value)}.")
    unknown = sorted(str(name) for name in value if name not in names)
    if unknown:
        raise StoryError(f"{noun} has no {unknown[0][:40]!r}: it has {', '.join(sorted(names))}.")
    return value


def _text(found: Mapping[str, Any], name: str, limit: int) -> str:
    value = found.get(name, "")
    if not isinstance(value, str):
        raise StoryError(f"{name} must be text, not {_short(value)}.")
    if len(value) > limit:
        raise StoryError(f"{name} has {len(value):,} characters: at most {limit:,} can be kept.")
    return value


def _list(found: Mapping[str, Any], name: str, limit: int) -> Sequence[Any]:
    value = found.get(name, ())
    if not isinstance(value, list | tuple):
        raise StoryError(f"{name} must be a list, not {_short(value)}.")
    if len(value) > limit:
        raise StoryError(f"{name} has {len(value):,} entries: at most {limit} can be kept.")
    return value


def _phrases(
    found: Mapping[str, Any], name: str, limit: int, *, strip: bool = True
) -> tuple[str, ...]:
    phrases = []
    for phrase in _list(found, name, limit):
        if not isinstance(phrase, str) or len(phrase) > MAX_PHRASE:
            raise StoryError(
                f"{name} has {_short(phrase)}: each must be a text of at most {MAX_PHRASE} "
                "characters."
            )
        phrases.append(phrase.strip() if strip else phrase)
    return tuple(phrase for phrase in phrases if phrase)


def _switch(found: Mapping[str, Any], name: str, default: bool) -> bool:
    value = found.get(name, default)
    if not isinstance(value, bool):
        raise StoryError(f"{name} is on or off, true or false, not {_short(value)}.")
    return value


def _depth(value: object) -> int:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not isinstance(value, int) or not is_number or not 0 <= value <= MAX_DEPTH:
        raise StoryError(
            f"note_depth must be a whole number from 0 to {MAX_DEPTH}, not {_short(value)}."
        )
    return value


def _short(value: object) -> str:
    """A value as it can stand in a message, however large it is."""
    if isinstance(value, list | dict | tuple):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and abs(value) > 10**30:
        return "a huge number"
    return repr(value[:41] if isinstance(value, str) else value)[:44]


def _bounded(text: str) -> str:
    """A text in one case, with marks where words may begin and end: at both its ends, and around
    each character that is no part of one. The marks are small letters, of which none is left.

    So one text is in another as `(?<!\\w)...(?!\\w)` would find it, without trying every place.

    >>> _bounded("C-Moll")
    'bCe-bMOLLe'
    """
    marked = (letter if is_word(letter) else f"e{letter}b" for letter in _folded(text))
    return f"b{''.join(marked)}e"


def _folded(text: str) -> str:
    """A text in capitals, character by character, as regular expressions ignore case."""
    lower = text.replace("İ", "i").lower()
    upper = lower.upper()
    if len(upper) == len(lower) and _IOTA not in lower:
        return upper
    return "".join(
        _ALIKE.get(letter) or (letter.upper() if len(letter.upper()) == 1 else letter)
        for letter in lower
    )


_IOTA = "\u0345"  # below a vowel: a mark on it and no part of a word, though its capital is
_ALIKE = {_IOTA: _IOTA, "\ufb06": "\ufb05", "\u1fd3": "\u0390", "\u1fe3": "\u03b0"}
