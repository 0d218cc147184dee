"""What a writer's thumbs say of a story's passages, as pairs that models can learn from."""

from collections.abc import Iterator
from typing import Any

from storygen.story.tree import Passage, StoryTree, manuscript

CONTEXT = 8_000  # characters of the story before a passage that are given with it


def preferences(tree: StoryTree) -> Iterator[dict[str, Any]]:
    """Each version with a thumb up before each with a thumb down of the same place; and where all
    thumbs point one way, the passages by themselves."""
    for versions in _places(tree):
        up = [p for p in versions if tree.mark(p.id).rating > 0]
        down = [p for p in versions if tree.mark(p.id).rating < 0]
        if not up and not down:
            continue
        parent_id = versions[0].parent_id
        branch = tree.branch(parent_id) if parent_id else []
        place = {"prompt": _end_of(branch)}
        for good in up:
            for bad in down:
                yield (
                    place
                    | {"chosen": good.text, "rejected": bad.text}
                    | {
                        "chosen_by": _origin(tree, good),
                        "rejected_by": _origin(tree, bad),
                    }
                )
        for passage in (up or down) if not (up and down) else []:
            rating = tree.mark(passage.id).rating
            yield place | {"text": passage.text, "rating": rating, "by": _origin(tree, passage)}


def _end_of(branch: list[Passage]) -> str:
    """The last characters of a branch, from no more passages than they take."""
    first, size = len(branch), 0
    while first and size < CONTEXT:
        first -= 1
        size += len(branch[first].text)
    return manuscript(branch[first:])[-CONTEXT:]


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
