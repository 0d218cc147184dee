"""What a writer's thumbs say of a story's passages, as pairs that models can learn from."""

from collections.abc import Iterator
from typing import Any

from storygen.story.tree import Passage, StoryTree, manuscript

CONTEXT = 8_000  # characters of the story before a passage that are given with it
PARTNERS = 4  # that a passage has, of those with the other thumb at its place


def preferences(tree: StoryTree) -> Iterator[dict[str, Any]]:
    """Versions with a thumb up, each before some with a thumb down of the same place; and where all
    thumbs point one way, the passages by themselves."""
    for versions in _places(tree):
        up = [p for p in versions if tree.mark(p.id).rating > 0]
        down = [p for p in versions if tree.mark(p.id).rating < 0]
        if not up and not down:
            continue
        place = {"prompt": _before(tree, versions[0].parent_id)}
        by = {p.id: _origin(tree, p) for p in up + down}
        for good, bad in _pairs(up, down):
            yield (
                place
                | {"chosen": good.text, "rejected": bad.text}
                | {"chosen_by": by[good.id], "rejected_by": by[bad.id]}
            )
        for passage in (up or down) if not (up and down) else []:
            rating = tree.mark(passage.id).rating
            yield place | {"text": passage.text, "rating": rating, "by": by[passage.id]}


def _pairs(up: list[Passage], down: list[Passage]) -> Iterator[tuple[Passage, Passage]]:
    """Each of the larger side with PARTNERS of the other, or with all where there are fewer.

    The first begins with the oldest of the other side, the next with the one after it, around and
    around. So every passage is in a pair, those of a side in as many, give or take PARTNERS, and of
    n thumbs come no more than PARTNERS * n pairs. All pairs there could be would say nothing more:
    a thumb is given to a passage, not to a pair, and they follow from the thumbs. But their number
    grows as the square of these, and a model that learns from them would read a place with fifty
    versions a hundred times as often as one with five, and learn its passages by heart.
    """
    larger, other = (up, down) if len(up) >= len(down) else (down, up)
    for first, passage in enumerate(larger):
        for step in range(min(PARTNERS, len(other))):
            partner = other[(first + step) % len(other)]
            yield (passage, partner) if larger is up else (partner, passage)


def _before(tree: StoryTree, passage_id: str | None) -> str:
    """The last characters of the branch to a passage, from no more passages than they take."""
    last: list[Passage] = []
    size = 0
    while passage_id is not None and size < CONTEXT:
        last.append(tree[passage_id])
        size += len(last[-1].text)
        passage_id = last[-1].parent_id
    return manuscript(last[::-1])[-CONTEXT:]


def _places(tree: StoryTree) -> Iterator[list[Passage]]:
    """The versions of each place in the story where a model wrote."""
    parents = dict.fromkeys(passage.parent_id for passage in tree)
    for parent_id in parents:
        versions = [p for p in tree.children(parent_id) if p.role == "model"]
        if versions:
            yield versions


def _origin(tree: StoryTree, passage: Passage) -> dict[str, Any]:
    """Which model wrote a passage, with what settings; whether the writer has reworded it."""
    return {
        "model": passage.model,
        "settings": passage.params or {},
        "edited": tree.origin(passage.id).text != passage.text,
    }
