"""Stories, passages and branches as the workspace reads them, in JSON."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from storygen.chat.screen import page_time
from storygen.story.outline import Run, first_words, opening, put_away, runs
from storygen.story.tree import Passage, Story, StoryTree, joints
from storygen.story.words import Effort, changed_spans


def story_view(story: Story) -> dict[str, Any]:
    """A story in a list."""
    return {
        "id": story.id,
        "title": story.title,
        "updated": page_time(story.updated_at),
        "passages": story.passage_count,
        "archived": story.archived,
    }


def passage_views(
    tree: StoryTree, branch: Sequence[Passage], after: str | None
) -> list[dict[str, Any]]:
    """What follows a passage of the branch, or all of it, as the manuscript shows it."""
    views = zip(branch, joints(branch), strict=True)
    known = next((n for n, passage in enumerate(branch, 1) if passage.id == after), 0)
    effort = Effort()
    return [_passage(tree, passage, joint, effort) for passage, joint in list(views)[known:]]


def tree_view(tree: StoryTree) -> dict[str, Any]:
    """All branches, stretch by stretch, and those that were put away."""
    active = {passage.id for passage in tree.branch()}
    words = cache(_words)  # of copies, which share one text, once
    return {
        "head": tree.head_id,
        "runs": [
            _run(tree, run, words) | {"active": run.id in active, "head": run.id == tree.head_id}
            for run in runs(tree)
        ],
        "deleted": [
            {
                "id": passage.id,
                "opening": opening(passage.text),
                "words": words(passage.text),
                "at": page_time(passage.created_at),
            }
            for passage in put_away(tree)
        ],
    }


def _words(text: str) -> int:
    return len(text.split())


def _run(tree: StoryTree, run: Run, words: Callable[[str], int]) -> dict[str, Any]:
    first, said = run.passages[0], tree.mark(run.id)
    return {
        "id": run.id,
        "first": first.id,
        "parent": run.parent.id if run.parent else None,
        "count": len(run.passages),
        "words": sum(words(passage.text) for passage in run.passages),
        "opening": first_words(tree, first),
        "role": first.role,
        "name": said.name,
        "favourite": said.favourite,
        "rating": said.rating,
        "at": page_time(run.passages[-1].created_at),
    }


def _passage(tree: StoryTree, passage: Passage, joint: str, effort: Effort) -> dict[str, Any]:
    said, origin = tree.mark(passage.id), tree.origin(passage.id)
    versions = [
        version.id
        for version in tree.siblings(passage.id)
        if version.id == passage.id or not tree.mark(version.id).deleted
    ]
    is_edited = passage.role == "model" and origin.text != passage.text
    params = passage.params or {}
    return {
        "id": passage.id,
        "role": passage.role,
        "text": passage.text,
        "joint": joint,
        "state": passage.state,
        "model": passage.model,
        "seed": params.get("seed"),
        "settings": {k: v for k, v in params.items() if k != "steering" and v not in ([], None)},
        "finish": passage.finish_reason,
        "edited": changed_spans(origin.text, passage.text, effort) if is_edited else None,
        "rating": said.rating,
        "favourite": said.favourite,
        "name": said.name,
        "version": versions.index(passage.id) + 1,
        "versions": len(versions),
        "siblings": versions,
        "at": page_time(passage.created_at),
    }
