"""The exact text a model reads: what it is told beside the story, as much of the story's end as
fits, and what was left out.

The story is cut at the start of a sentence. Where that would leave more than half of the budget
unused, because a sentence is very long, it is cut at the start of a word; where even a word is
so long, anywhere.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from storygen.story.steering import NO_STEERING, Lore, Steering, StoryEnd
from storygen.story.tree import Passage, texts
from storygen.text import LOOK_BACK, ends_sentence

CountTokens = Callable[[str], Awaitable[int]]

_REACH = 12  # characters for each token of the budget that are looked at first; prose has 4 or 5

Source = Literal["title", "memory", "lore", "story", "note"]

# What each may take of the budget at most; the story has the rest.
SHARES: dict[Source, float] = {"title": 1 / 8, "memory": 1 / 4, "lore": 1 / 4, "note": 1 / 8}
LOOKED_THROUGH = 4_000  # characters at the story's end in which the keys of lore are looked for
PIECE = 200_000  # characters whose words are counted at a time
EACH = 100  # characters that a piece of it counts for besides
_JOINT = 2  # tokens that may come of putting two parts together


@dataclass(frozen=True)
class Part:
    """A piece of a prompt and where it comes from; label is the name of a lore entry."""

    source: Source
    text: str
    label: str = ""


@dataclass(frozen=True)
class Prompt:
    """What a model reads of a story, and beside it.

    left_out is the number of words before it that the model no longer sees. trailing holds the
    spaces the draft ends in, which are not in text: models begin a word with its space, so a
    space at the end leads them astray. glue() puts the two together again. dropped says, part by
    part, what of the steering had no room.
    """

    parts: tuple[Part, ...]
    left_out: int = 0
    trailing: str = ""
    dropped: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole of it."""
        return "".join(part.text for part in self.parts)

    @property
    def cut(self) -> bool:
        """Whether the story's beginning is missing."""
        return self.left_out > 0


def prompt_budget(block_size: int, max_new_tokens: int) -> int:
    """Tokens a prompt may have: what the passage leaves of the context, and at least half of it.

    A passage that needs more than the other half is written with a moving window.
    """
    return max(block_size - max_new_tokens, block_size // 2, 1)


async def build_prompt(
    passages: Sequence[Passage],
    *,
    budget: int,
    count_tokens: CountTokens,
    steering: Steering = NO_STEERING,
    template: str = "",
) -> Prompt:
    """The prompt for going on after the last of these passages, as of StoryTree.branch().

    First the title as the model's template asks for it, then memory, then the lore that has come
    up, then as much of the story's end as fits, with the author's note before its last paragraphs.
    """
    story = list(texts(passages))
    title = titled(template, steering.title)
    if _begins_with(story, title):
        title = ""  # the writer has written it out
    asked = [
        Part("title", title),
        Part("memory", _paragraph(steering.memory)),
        *await _lore(story, steering.lore),
        Part("note", _paragraph(steering.note)),
    ]
    told, dropped = [], []
    room = {source: int(share * budget) for source, share in SHARES.items()}
    for part in asked:
        kept = await _beginning(part.text, room[part.source] - _JOINT, count_tokens)
        if kept:
            told.append(Part(part.source, kept, part.label))
            room[part.source] -= await count_tokens(kept) + _JOINT
        if len(kept) < len(part.text):
            dropped.append(_dropped(part, kept))
    spent = sum([await count_tokens(part.text) + _JOINT for part in told])
    prompt = await fit_prompt(story, budget=budget - spent, count_tokens=count_tokens)
    parts = _with_note(told, prompt.text, steering.note_depth)
    return Prompt(tuple(parts), prompt.left_out, prompt.trailing, tuple(dropped))


async def _lore(story: Sequence[str], entries: Sequence[Lore]) -> list[Part]:
    """The lore that has come up; of a long lorebook others have their turn in between."""
    end = StoryEnd(_ending(story, LOOKED_THROUGH)[1][-LOOKED_THROUGH:])
    found = []
    for lore in entries:
        if lore.comes_up_in(end):
            found.append(Part("lore", _paragraph(lore.text), lore.name))
        await asyncio.sleep(0)
    return found


async def fit_prompt(story: Sequence[str], *, budget: int, count_tokens: CountTokens) -> Prompt:
    """As much of the end of a story as the model reads as at most budget tokens.

    It is the most there is as long as more text never makes fewer tokens. The story comes in
    pieces, and no more of them are put together than it takes to find the place.
    """
    assert budget > 0, budget
    length = 2 * _REACH * budget
    while True:
        first, text = _ending(story, length)
        body = text.rstrip(" \t")
        edge = await _edge(body, budget, count_tokens)
        gap = len(body[:edge].rstrip())  # where one between words begins that runs across the edge
        if not first or (edge is not None and gap >= LOOK_BACK):
            break
        length *= 2
    start = 0 if edge is None else await _start(body, edge, gap, budget, count_tokens)
    left_out = await _count_words(chain(story[:first], [body[:start]]))
    return Prompt((Part("story", body[start:]),), left_out, text[len(body) :])


def _ending(story: Sequence[str], length: int) -> tuple[int, str]:
    """How many of the pieces are not needed for so many characters of the end, and the others."""
    first, known = len(story), 0
    while first and known < length:
        first -= 1
        known += len(story[first])
    return first, "".join(story[first:])


def _begins_with(story: Sequence[str], text: str) -> bool:
    beginning = ""
    for piece in story:
        if len(beginning) >= len(text):
            break
        beginning += piece[: len(text)]
    return beginning.startswith(text)


async def _count_words(story: Iterable[str]) -> int:
    """Words between white space, of a story in pieces; of a novel others have their turn in
    between."""
    count = counted = 0
    within = False  # a word, at the end of what was counted
    for text in story:
        counted += EACH
        for at in range(0, len(text), PIECE):
            piece = text[at : at + PIECE]
            count += len(piece.split()) - (within and not piece[0].isspace())
            within = not piece[-1].isspace()
            counted += len(piece)
            if counted >= PIECE:
                counted = 0
                await asyncio.sleep(0)
    return count


def titled(template: str, title: str) -> str:
    """How a model is asked for a story of this title; empty where it cannot be or none is given.

    >>> titled("The plot summary of the movie named '{title}' is:\\n", "Rain")
    "The plot summary of the movie named 'Rain' is:\\n"
    """
    return template.replace("{title}", title) if template and title else ""


def _paragraph(text: str) -> str:
    """Text as a paragraph of its own, before others."""
    return f"{text.strip()}\n\n" if text.strip() else ""


def _dropped(part: Part, kept: str) -> str:
    """What of a part had no room, in a writer's words."""
    name = {"lore": f"lore entry {part.label!r}", "note": "author's note"}.get(
        part.source, part.source
    )
    if not kept:
        return f"The {name} has no room in this model's context."
    return f"Of the {name} only the first {len(kept.split()):,} words have room."


def _with_note(told: Sequence[Part], story: str, depth: int) -> list[Part]:
    """The parts in their order, the note before the last `depth` paragraphs of the story."""
    before = [part for part in told if part.source != "note"]
    note = [part for part in told if part.source == "note"]
    if not note:
        return [*before, Part("story", story)]
    starts = [0, *(gap.end() for gap in _PARAGRAPH.finditer(story)), len(story)]
    at = starts[max(0, len(starts) - 1 - depth)]
    if at == len(story):  # right at the end, where the model must still begin a new paragraph
        end = "" if story.endswith("\n") or not story else "\n\n"
        return [*before, Part("story", story + end), *note]
    first = [Part("story", story[:at])] if at else []
    return [*before, *first, *note, Part("story", story[at:])]


_PARAGRAPH = re.compile(r"\n\s*(?=\S)")


async def _beginning(text: str, budget: int, count_tokens: CountTokens) -> str:
    """As much of the beginning of a part as has room, cut between sentences, else words."""
    if not text or (budget > 0 and await count_tokens(text) <= budget):
        return text
    for stops in (list(sentence_starts(text)), [gap.end() for gap in _GAP.finditer(text)]):
        low, high = 0, len(stops)
        while low < high:  # how many of the stops lie within the budget
            middle = (low + high) // 2
            if await count_tokens(_paragraph(text[: stops[middle]])) <= budget:
                low = middle + 1
            else:
                high = middle
        if low:
            return _paragraph(text[: stops[low - 1]])
    return ""


def glue(before: str, addition: str) -> str:
    """addition as it goes on from before: without its own space where before ends in one.

    Of a streamed passage only the first piece that is not empty needs this.

    >>> glue("Once upon ", " a time")
    'a time'
    """
    return addition[1:] if before[-1:] in (" ", "\t") and addition[:1] == " " else addition


def sentence_starts(text: str, begin: int = 0) -> Iterator[int]:
    """Where sentences and paragraphs start in text, but for its own beginning, from begin on."""
    for gap in _GAP.finditer(text, begin):
        if gap.end() == len(text):
            return
        if gap.group().count("\n") > 1 or ends_sentence(text, gap.start()):
            yield gap.end()


_GAP = re.compile(r"\s+")


async def _edge(text: str, budget: int, count_tokens: CountTokens) -> int | None:
    """A place from which on text is too long, so that the cut lies behind; None where it fits."""
    reach = _REACH * budget
    while reach < len(text) and await count_tokens(text[-reach:]) <= budget:
        reach *= 2
    edge = max(0, len(text) - reach)
    return None if edge == 0 and await count_tokens(text) <= budget else edge


async def _start(text: str, edge: int, gap: int, budget: int, count_tokens: CountTokens) -> int:
    """Where the part of text begins that a model reads, behind the edge; gap is where the white
    space begins, if any, that the edge lies in."""

    async def size(start: int) -> int:
        return await count_tokens(text[start:])

    for starts in (
        sentence_starts(text, gap),
        (space.end() for space in _GAP.finditer(text, gap)),
        range(edge, len(text)),
    ):
        kept = await _longest([*starts, len(text)], size, budget)
        if 2 * await size(kept) >= budget:
            break
    return kept


async def _longest(
    starts: Sequence[int], size: Callable[[int], Awaitable[int]], budget: int
) -> int:
    """The first of these starts from which on text fits; the last one is known to."""
    low, high = 0, len(starts) - 1
    while low < high:
        middle = (low + high) // 2
        if await size(starts[middle]) <= budget:
            high = middle
        else:
            low = middle + 1
    return starts[low]
