from dataclasses import replace
from datetime import UTC, datetime

import pytest

from storygen.chat import views
from storygen.chat.views import passage_views, tree_view
from storygen.story import words
from storygen.story.tree import Passage, StoryTree

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def edited(count: int, before: str, after: str) -> StoryTree:
    """A branch of passages by a model, each of which its writer has reworded."""
    told = []
    for n in range(count):
        parent_id = f"edited {n - 1}" if n else None
        made = Passage(f"made {n}", "s", parent_id, "model", f"{before} {n}.", NOW)
        told += [
            made,
            replace(made, id=f"edited {n}", source_id=made.id, text=f"{after} {n}."),
        ]
    return StoryTree(told, told[-1].id)


def test_what_a_writer_has_changed_is_shown() -> None:
    tree = edited(2, "He ran", "He sat")
    views = passage_views(tree, tree.branch(), None)
    assert [view["edited"] for view in views] == [((2, 6),), ((2, 6),)]


def test_all_passages_of_an_answer_share_one_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_MOST_STEPS", 1000)
    tree = edited(50, "He ran", "He sat")
    spans = [view["edited"] for view in passage_views(tree, tree.branch(), None)]
    assert spans[0] == ((2, 6),)
    assert spans[-1] == ((0, len("He sat 49.")),)  # all of it


def test_words_of_copies_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []

    def spied(text: str) -> int:
        counted.append(text)
        return len(text.split())

    monkeypatch.setattr(views, "_words", spied)
    first = Passage("0", "s", None, "writer", "It rained. " * 3, NOW)
    copies = [replace(first, id=str(n), source_id="0") for n in range(1, 100)]
    runs = tree_view(StoryTree([first, *copies], "99"))["runs"]
    assert [run["words"] for run in runs] == [6] * 100
    assert counted == [first.text]
