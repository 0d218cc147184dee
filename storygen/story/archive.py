"""A story whole, as JSON: every passage of every branch, and how each was written.

    {"storygen": 1, "title": "Fog", "settings": {...}, "head": 2, "passages": [
      {"number": 1, "role": "writer", "text": "It was dark.", "at": "2026-01-01T12:00:00+00:00"},
      {"number": 2, "parent": 1, "role": "model", "text": " Rain fell.", "at": "...",
       "model": "mystery", "params": {"temperature": 0.8, ...}, "finish_reason": "length"}]}

Passages are named by their numbers, parents before children. What is nothing is left out, so a
story that was read is written as the same bytes again. Nothing read here is believed unchecked, and
of settings and parameters only what the page itself stores is kept: whatever else is there is left
out, because every list and every opening of a story would parse it again.
"""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, TypeGuard, get_args

from storygen.errors import ParamsError, StoryError
from storygen.params import RANGES, TEXTS, SamplingParams, checked, checked_texts
from storygen.story.rows import MAX_NAME, MAX_TEXT, MAX_TITLE
from storygen.story.steering import from_json
from storygen.story.tree import PICKED, Mark, Passage, Role, Story, StoryTree
from storygen.text import whole_characters

VERSION = 1
MAX_FILE = 64_000_000  # bytes
MAX_PASSAGES = 100_000
MAX_OBJECT = 1_000_000  # characters of JSON, of a story's settings or a passage's parameters
MAX_VALUES = 3_000_000  # lists, objects and what is in them: each takes more memory than bytes here

_STORY = {"storygen", "title", "settings", "head", "passages"}
_TEXTS = {"text": MAX_TEXT, "model": 200, "finish_reason": 16, "name": MAX_NAME}
_MARKED = {"name", "favourite", "rating", "deleted"}
OWN = ("text", "model", "params", "finish_reason")  # what a copy may have from its source
_KNOWN = {"number", "parent", "source", "role", "at", "params"} | _MARKED | _TEXTS.keys()
_SETTINGS = {"model", "steering"} | RANGES.keys()  # what the page stores with a story
_PARAMS = {"steering", PICKED} | {field.name for field in fields(SamplingParams)}  # or a passage


@dataclass(frozen=True)
class Whole:
    """A story that is not stored yet: what StoryStore.add_story takes."""

    title: str
    settings: dict[str, Any]
    head_id: str | None
    passages: list[Passage] = field(default_factory=list)
    marks: dict[str, Mark] = field(default_factory=dict)


def dump(story: Story, tree: StoryTree) -> bytes:
    """A story as JSON in UTF-8."""
    numbers = {passage.id: number for number, passage in enumerate(tree, 1)}
    passages = [_written(passage, tree, numbers) for passage in tree]
    head = numbers[tree.head_id] if tree.head_id is not None else None
    whole = {
        "storygen": VERSION,
        "title": story.title,
        "settings": story.settings,
        "head": head,
        "passages": passages,
    }
    text = json.dumps(whole, ensure_ascii=False, indent=1)
    return whole_characters(text).encode()


def load(data: bytes) -> Whole:
    """The story in a file that dump() wrote; raises StoryError, in a sentence, for any other."""
    if len(data) > MAX_FILE:
        raise _wrong(f"has {len(data):,} bytes, and {MAX_FILE:,} can be taken")
    story = _parsed(data)
    _require(isinstance(story, dict) and "storygen" in story, "is JSON, but no story")
    _require(_is_small(story), f"has more than {MAX_VALUES:,} values")
    version = story["storygen"]
    _require(
        _is_whole(version) and version == VERSION,
        f"has version {_short(version)}, and {VERSION} is known here: update storygen to open it",
    )
    _require_known("", story, _STORY)
    title, settings, head, passages = (
        story.get(name) for name in ("title", "settings", "head", "passages")
    )
    _require_text("title", title, MAX_TITLE)
    _require_object("settings", settings)
    _require(isinstance(passages, list), "has passages that are no list")
    _require(len(passages) <= MAX_PASSAGES, f"has more than {MAX_PASSAGES:,} passages")
    _require_number("head", head, len(passages))
    settings = _kept(settings, _SETTINGS)
    whole = Whole(title, settings, None if head is None else str(head))
    for number, passage in enumerate(passages, 1):
        _require(isinstance(passage, dict), f"has a passage {number} that is no object")
        _read(passage, number, whole)
    _require_bounded(whole.passages)
    return whole


def own(passage: Passage, source: Passage | None) -> dict[str, Any]:
    """What a passage does not have from its source: nothing, where it is as its source is."""
    values = {name: getattr(passage, name) for name in OWN}
    if source and all(getattr(source, name) == value for name, value in values.items()):
        return {}
    return values


def _written(passage: Passage, tree: StoryTree, numbers: Mapping[str, int]) -> dict[str, Any]:
    """A passage as JSON has it. What a copy has from its source stands there only."""
    mark = tree.mark(passage.id)
    source = tree[passage.source_id] if passage.source_id else None
    values = {
        "number": numbers[passage.id],
        "parent": numbers[passage.parent_id] if passage.parent_id else None,
        "source": numbers[passage.source_id] if passage.source_id else None,
        "role": passage.role,
        **own(passage, source),
        "at": passage.created_at.astimezone(UTC).isoformat(),
        "name": mark.name or None,
        "favourite": mark.favourite or None,
        "rating": mark.rating or None,
        "deleted": mark.deleted or None,
    }
    return {name: value for name, value in values.items() if value is not None}


def _read(values: dict[str, Any], number: int, whole: Whole) -> None:
    """Check the values of one passage and add it to the story."""
    place = f"passages[{number - 1}]"
    _require_known(place, values, _KNOWN)
    found = values.get("number")
    _require(
        _is_whole(found) and found == number,
        f"has {place}.number {_short(found)} where {number} should follow",
    )
    for name in ("parent", "source"):
        _require_number(f"{place}.{name}", values.get(name), number - 1)
    _require_one_of(f"{place}.role", values.get("role"), get_args(Role))
    if "params" in values:
        _require_object(f"{place}.params", values["params"])
        values = values | {"params": _kept(values["params"], _PARAMS)}
    if values.get("source") is not None and not values.keys() & set(OWN):
        source = whole.passages[values["source"] - 1]
        values = values | {name: getattr(source, name) for name in OWN}
        values = {name: value for name, value in values.items() if value is not None}
    for name, longest in _TEXTS.items():
        if name == "text" or name in values:
            _require_text(f"{place}.{name}", values.get(name), longest)
    for name in ("favourite", "deleted"):
        _require_one_of(f"{place}.{name}", values.get(name, False), (False, True))
    _require_one_of(f"{place}.rating", values.get("rating", 0), (-1, 0, 1))
    parent, source = (values.get(name) for name in ("parent", "source"))
    whole.passages.append(
        Passage(
            id=str(number),
            story_id="",
            parent_id=None if parent is None else str(parent),
            role=values["role"],
            text=values["text"],
            created_at=_moment(f"{place}.at", values.get("at")),
            model=values.get("model"),
            params=values.get("params"),
            finish_reason=values.get("finish_reason"),
            source_id=None if source is None else str(source),
        )
    )
    mark = Mark(**{name: value for name, value in values.items() if name in _MARKED})
    if mark != Mark():
        whole.marks[str(number)] = mark


def _require_bounded(passages: Sequence[Passage]) -> None:
    """Refuse a branch that is longer than a file may be: its reader puts it together.

    Of a story that was told here each branch has a passage or a copy of it once, so that it is no
    longer than the file. Copies of copies are bounded by nothing else: they take no bytes in it.
    """
    sizes, branches = [0], [0]  # of each passage, and from the first to it
    for number, passage in enumerate(passages, 1):
        source = int(passage.source_id or 0)
        is_copy = source and not own(passage, passages[source - 1])
        sizes.append(sizes[source] if is_copy else _size(passage))
        branches.append(branches[int(passage.parent_id or 0)] + sizes[number])
        _require(
            branches[number] <= MAX_FILE,
            f"has {branches[number]:,} characters on the branch to passages[{number - 1}], with "
            f"those of copies, and {MAX_FILE:,} can be taken",
        )


def _size(passage: Passage) -> int:
    """Characters of a passage, at most as many as it has in a file that dump() wrote."""
    params = json.dumps(passage.params, ensure_ascii=False, separators=(",", ":"))
    return len(passage.text) + (len(params) if passage.params else 0)


def _kept(values: Mapping[str, Any], known: Set[str]) -> dict[str, Any]:
    """What the page would heed of settings or parameters, each as long as its own rule allows."""
    return {name: v for name, v in values.items() if name in known and _is_heeded(name, v)}


def _is_heeded(name: str, value: object) -> bool:
    """Whether a setting or a parameter has a value that the page could have given it."""
    if name == "model":
        return isinstance(value, str) and len(value) <= _TEXTS["model"]
    if name == "seed" and value is None:  # a new one each time
        return True
    try:
        if name in RANGES:
            checked(name, value)
        elif name in TEXTS:
            checked_texts(name, value)
        elif name == "steering":
            from_json(value)
        else:
            return isinstance(value, bool)
    except (ParamsError, StoryError):
        return False
    return True


def _parsed(data: bytes) -> Any:
    """JSON as it is defined, which Python's is not: without NaN and endless numbers."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no number")

    def finite(digits: str) -> float:
        number = float(digits)
        if number in (float("inf"), float("-inf")):
            refuse(digits[:40])
        return number

    try:
        text = data.decode("utf-8-sig")
        return json.loads(text, parse_constant=refuse, parse_float=finite)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise _wrong(f"is no JSON that can be read ({reason})") from error


def _is_small(story: dict[str, Any]) -> bool:
    """Whether it has no more values than a story has."""
    count, within = 0, list[Any]([story])
    while within and count <= MAX_VALUES:
        value = within.pop()
        parts: Any = value.values() if isinstance(value, dict) else value
        count += len(value)
        within += [part for part in parts if isinstance(part, dict | list)]
    return count <= MAX_VALUES


def _moment(place: str, value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None and moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise _wrong(f"has {place} {_short(value)}: it must be a time such as 2026-01-31T12:00:00Z")


def _require_known(place: str, values: dict[str, Any], known: set[str]) -> None:
    unknown = sorted(values.keys() - known)
    _require(not unknown, f"has {place}{'.' if place else ''}{unknown[:1]}, which is not known")


def _require_text(place: str, value: object, longest: int) -> None:
    _require(isinstance(value, str), f"has {place} {_short(value)}: it must be a text")
    assert isinstance(value, str)
    _require(
        len(value) <= longest,
        f"has {place} of {len(value):,} characters, and {longest:,} can be taken",
    )


def _require_object(place: str, value: object) -> None:
    _require(isinstance(value, dict), f"has {place} {_short(value)}: it must be an object")
    size = len(json.dumps(value))
    _require(
        size <= MAX_OBJECT,
        f"has {place} of {size:,} characters, and {MAX_OBJECT:,} can be taken",
    )


def _require_number(place: str, value: object, last: int) -> None:
    """A passage before the one at hand, or none."""
    is_known = value is None or (_is_whole(value) and 1 <= value <= last)
    among = f"the number of a passage, 1 to {last}" if last else "left out"
    _require(is_known, f"has {place} {_short(value)}: it must be {among}")


def _require_one_of(place: str, value: object, choices: tuple[object, ...]) -> None:
    is_one = any(type(value) is type(choice) and value == choice for choice in choices)
    names = " or ".join(json.dumps(choice) for choice in choices)
    _require(is_one, f"has {place} {_short(value)}: it must be {names}")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _wrong(otherwise)


def _wrong(what: str) -> StoryError:
    return StoryError(f"This story was not read: the file {what}.")


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _short(value: object) -> str:
    """A value as it can stand in a message, however large or deep it is."""
    if isinstance(value, str):
        return repr(value[:40])
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return json.dumps(value)[:40]
