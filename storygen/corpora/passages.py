"""Passages that stand in a corpus more than once.

Collections overlap, and a passage read twice is learnt by heart; one that is held out as well
makes the evaluation too good. A passage is a line of some length (our texts have a paragraph a
line, plays a speech) and the same one as another when their letters and digits are: case, spacing
and typography do not matter.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from storygen.corpora.works import Work, stories
from storygen.tokenizers import END_OF_TEXT

SHORTEST = 50  # letters and digits; below it people do say the same thing twice


@dataclass
class Removed:
    """What was taken out of the training side."""

    passages: int = 0
    characters: int = 0
    held_out: int = 0  # passages, of these, that stand on the held-out side too
    stories: int = 0  # that lost more than half of themselves, and so went whole

    def __str__(self) -> str:
        return (
            f"{self.passages:,} duplicated passages removed ({self.characters:,} characters; "
            f"{self.held_out:,} were held out too), and {self.stories:,} stories with them"
        )


def drop_duplicates(works: Sequence[Work]) -> tuple[list[Work], Removed]:
    """works, each passage once on the training side and never there when it is held out.

    The held-out side stays as it is. A repetition inside one story is the author's and stays.
    """
    held = {key for work in works if work.held_out for _, key in _passages(work.text)}
    seen: dict[bytes, int] = {}
    removed = Removed()
    number = 0
    kept = []
    for work in works:
        if work.held_out:
            kept.append(work)
            continue
        texts = list(stories(work.text))
        left = []
        for text in texts:
            number += 1
            left.append(_without(text, held, seen, number, removed))
        if left != texts:
            left = [text for text in left if text]
            work = replace(work, text=f"\n{END_OF_TEXT}\n\n".join(left))
        kept.append(work)
    return kept, removed


def _without(
    story: str, held: set[bytes], seen: dict[bytes, int], number: int, removed: Removed
) -> str:
    """The story without the passages of others; empty when most of it is theirs."""
    doubled = {}
    fresh = []
    for place, key in _passages(story):
        if key in held or seen.get(key, number) != number:
            doubled[place] = key
        else:
            fresh.append(key)
    lines = story.split("\n")
    lost = sum(len(lines[place]) for place in doubled)
    if doubled:
        removed.passages += len(doubled)
        removed.held_out += sum(key in held for key in doubled.values())
        removed.characters += lost
        if 2 * lost > len(story):
            removed.stories += 1
            removed.characters += len(story) - lost
            return ""
        text = "\n".join(line for place, line in enumerate(lines) if place not in doubled)
        story = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    seen.update(dict.fromkeys(fresh, number))
    return story


def _passages(text: str) -> Iterator[tuple[int, bytes]]:
    """Number of each line long enough, and a hash of its letters and digits."""
    yield from _keys(enumerate(text.split("\n")))


def _keys(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, bytes]]:
    for place, line in lines:
        if len(line) >= SHORTEST:
            letters = _NO_LETTER.sub("", line.casefold())
            if len(letters) >= SHORTEST:
                yield place, blake2b(letters.encode("utf-8", "replace"), digest_size=12).digest()


_NO_LETTER = re.compile(r"[\W_]+")
