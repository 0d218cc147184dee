"""Passages and the tree they form. Pure data: no clock, no disk, no torch.

Passages are append-only: an edit or a retry is a sibling, and undo moves the head.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from storygen.errors import StoryError

Role = Literal["writer", "model"]
State = Literal["streaming", "complete"]

PICKED = "picked"  # among a passage's params, and the reason for its end


@dataclass(frozen=True)
class Passage:
    """One piece of a story: what the writer typed, or what a model wrote in one go.

    model, params (SamplingParams as a dict, the seed drawn) and finish_reason belong to a model's
    passage. A passage being streamed has state `streaming` and grows; a complete one never changes:
    an edit copies it, and what follows it, and source_id names what a copy was made from.
    """

    id: str
    story_id: str
    parent_id: str | None
    role: Role
    text: str
    created_at: datetime
    state: State = "complete"
    model: str | None = None
    params: dict[str, Any] | None = None
    finish_reason: str | None = None
    source_id: str | None = None

    @property
    def is_picked(self) -> bool:
        """Whether the writer puts it together word by word, from those a model thinks likely. One
        that grows so has nobody at it in between."""
        return PICKED in (self.params or {})


@dataclass(frozen=True)
class Mark:
    """What the writer says of a passage: how a branch from here is called, whether it is a
    favourite, a thumb up (1) or down (-1), and whether it and all after it were put away."""

    name: str = ""
    favourite: bool = False
    rating: int = 0
    deleted: bool = False


UNMARKED = Mark()


@dataclass(frozen=True)
class Story:
    """A story and where its writer stands: head_id is the last passage of the active branch."""

    id: str
    owner: str
    title: str
    created_at: datetime
    updated_at: datetime
    head_id: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    passage_count: int = 0
    archived: bool = False


class StoryTree:
    """The passages of one story by parent, with its head."""

    def __init__(
        self,
        passages: Iterable[Passage],
        head_id: str | None,
        marks: Mapping[str, Mark] | None = None,
    ) -> None:
        """passages in the order they were added; marks by the id of their passage."""
        self._passages = {passage.id: passage for passage in passages}
        self.head_id = head_id
        self.marks = marks or {}
        self._origins: dict[str, Passage] = {}  # of those that were asked for, and on the way there

    def __getitem__(self, passage_id: str) -> Passage:
        """The passage of this id; raises StoryError where the story has none."""
        try:
            return self._passages[passage_id]
        except KeyError:
            raise no_passage(passage_id) from None

    def __iter__(self) -> Iterator[Passage]:
        """Every passage on every branch, in the order they were added."""
        return iter(self._passages.values())

    def __contains__(self, passage_id: object) -> bool:
        return passage_id in self._passages

    def branch(self, passage_id: str | None = None) -> list[Passage]:
        """From the first passage to this one, by default to the head."""
        path: list[Passage] = []
        here = passage_id if passage_id is not None else self.head_id
        while here is not None:
            path.append(self[here])
            here = path[-1].parent_id
        return path[::-1]

    def siblings(self, passage_id: str) -> list[Passage]:
        """All versions of this passage, itself among them, oldest first."""
        return self.children(self[passage_id].parent_id)

    def children(self, parent_id: str | None) -> list[Passage]:
        """What follows a passage, oldest first; None gives the beginnings of the story."""
        return self._children.get(parent_id, [])

    def mark(self, passage_id: str) -> Mark:
        """What the writer says of a passage."""
        return self.marks.get(passage_id, UNMARKED)

    def origin(self, passage_id: str) -> Passage:
        """What a passage was before any edit: itself, or the first of those it was copied from."""
        path = [self[passage_id]]
        while (source_id := path[-1].source_id) is not None and path[-1].id not in self._origins:
            path.append(self[source_id])
        origin = self._origins.get(path[-1].id, path[-1])
        self._origins.update((passage.id, origin) for passage in path)
        return origin

    @cached_property
    def _children(self) -> dict[str | None, list[Passage]]:
        children: dict[str | None, list[Passage]] = {}
        for passage in self._passages.values():
            children.setdefault(passage.parent_id, []).append(passage)
        return children


def no_passage(passage_id: str) -> StoryError:
    """What to raise for an id that the story has no passage of."""
    return StoryError(
        f"There is no passage {passage_id[:40]!r} in this story. Reload the page to see those "
        "there are."
    )


def joint(before: str, passage: Passage) -> str:
    """What stands between the text so far and a passage.

    A model's passage brings its own leading space. A writer who goes on after a finished sentence
    starts a paragraph; in the middle of one, a word.
    """
    if passage.role == "model" or not before or not passage.text:
        return ""
    if before[-1].isspace() or passage.text[0].isspace() or passage.text[0] in ",.;:!?…)’”":
        return ""
    if before[-1] in "“‘([—" or _opens_a_quote(before):
        return ""
    return "\n\n" if before[-1] in ".!?…:*\"'”’)" else " "


def _opens_a_quote(before: str) -> bool:
    """Whether a text ends in a straight quotation mark that nothing stands before."""
    return before[-1] in "\"'" and (len(before) == 1 or before[-2] in " \t\n—([")


def joints(passages: Iterable[Passage], before: str = "") -> Iterator[str]:
    """What stands before each passage of a branch, as it goes on after some text."""
    tail = before[-2:]  # the last two characters are all that a joint looks at
    for passage in passages:
        between = joint(tail, passage)
        yield between
        tail = (tail + between + passage.text[-2:])[-2:]


def texts(passages: Iterable[Passage], before: str = "") -> Iterator[str]:
    """What a manuscript is put together from: what stands before each passage, and its text."""
    told = list(passages)
    for between, passage in zip(joints(told, before), told, strict=True):
        yield between
        yield passage.text


def manuscript(passages: Iterable[Passage], before: str = "") -> str:
    """The passages of a branch as one text, as it goes on after what is before them."""
    return "".join(texts(passages, before))
