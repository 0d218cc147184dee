"""The exact text a model reads: as much of the end of the story as fits, and what was left out.

The story is cut at the start of a sentence. Where that would leave more than half of the budget
unused, because a sentence is very long, it is cut at the start of a word; where even a word is
so long, anywhere.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from storygen.story.tree import Passage, manuscript

CountTokens = Callable[[str], Awaitable[int]]

_REACH = 12  # characters for each token of the budget that are looked at first; prose has 4 or 5


@dataclass(frozen=True)
class Prompt:
    """What a model reads of a story.

    left_out is the number of words before it that the model no longer sees. trailing holds the
    spaces the draft ends in, which are not in text: models begin a word with its space, so a
    space at the end leads them astray. glue() puts the two together again.
    """

    text: str
    left_out: int = 0
    trailing: str = ""

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
    passages: Iterable[Passage], *, budget: int, count_tokens: CountTokens
) -> Prompt:
    """The prompt for going on after the last of these passages, as of StoryTree.branch()."""
    return await fit_prompt(manuscript(passages), budget=budget, count_tokens=count_tokens)


async def fit_prompt(text: str, *, budget: int, count_tokens: CountTokens) -> Prompt:
    """As much of the end of text as the model reads as at most budget tokens.

    It is the most there is as long as more text never makes fewer tokens.
    """
    assert budget > 0, budget
    body = text.rstrip(" \t")
    start = await _start(body, budget, count_tokens)
    return Prompt(body[start:], len(body[:start].split()), text[len(body) :])


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
        if gap.group().count("\n") > 1 or _ends_sentence(text, gap.start()):
            yield gap.end()


_GAP = re.compile(r"\s+")
_END = re.compile(r"[.!?…][\"'”’»)\]*_]*$")
_NO_END = re.compile(
    r"(?:^|\W)(?:[A-Z]|Mr|Mrs|Ms|Dr|St|Mt|Prof|Rev|Hon|Capt|Col|Gen|Lt|Maj|Sgt|Messrs|Mme|Mlle"
    r"|Jr|Sr|vs|viz|cf|e\.g|i\.e)\.$"
)
_LOOK_BACK = 16  # longer than any abbreviation with the character before it


def _ends_sentence(text: str, stop: int) -> bool:
    """Whether the characters before stop end a sentence, and no abbreviation or initial."""
    last = text[max(0, stop - _LOOK_BACK) : stop]
    return _END.search(last) is not None and _NO_END.search(last) is None


async def _start(text: str, budget: int, count_tokens: CountTokens) -> int:
    """Where the part of text begins that a model reads."""

    async def size(start: int) -> int:
        return await count_tokens(text[start:])

    reach = budget * _REACH
    while reach < len(text) and await size(len(text) - reach) <= budget:
        reach *= 2
    if reach >= len(text) and await size(0) <= budget:
        return 0
    edge = max(0, len(text) - reach)  # from here on it is too long, so the cut lies behind
    gap_start = len(text[:edge].rstrip())  # of a gap between words that runs across the edge
    for starts in (
        sentence_starts(text, gap_start),
        (gap.end() for gap in _GAP.finditer(text, gap_start)),
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
