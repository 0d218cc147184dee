"""Thumbs as pairs to learn from."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.story.feedback import CONTEXT, PARTNERS, preferences
from storygen.story.tree import Mark, Passage, Role, StoryTree, manuscript

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def passage(id: str, parent: str | None = None, role: Role = "model", text: str = "") -> Passage:
    return Passage(id, "story", parent, role, text or id, NOW, model="m")


def rated(ratings: Sequence[int]) -> StoryTree:
    """Versions of one place, named by their numbers, with these thumbs."""
    versions = [passage(str(n), "first") for n in range(len(ratings))]
    marks = {p.id: Mark(rating=rating) for p, rating in zip(versions, ratings, strict=True)}
    return StoryTree([passage("first", role="writer"), *versions], "first", marks)


def pairs(tree: StoryTree) -> list[tuple[str, str]]:
    return [(row["chosen"], row["rejected"]) for row in preferences(tree)]


def test_of_few_versions_every_pair_is_given() -> None:
    found = pairs(rated([1, -1, 0, 1, -1, 1, -1, 1, -1]))
    assert sorted(found) == list(product("0357", "1468"))


def test_each_of_the_larger_side_has_the_next_four_of_the_other() -> None:
    found = pairs(rated([-1] * 6 + [1] * 5))
    assert [good for good, bad in found if bad == "0"] == ["6", "7", "8", "9"]
    assert [good for good, bad in found if bad == "3"] == ["9", "10", "6", "7"]
    assert found == pairs(rated([-1] * 6 + [1] * 5))


def test_two_hundred_of_either_are_no_forty_thousand_pairs() -> None:
    counts = Counter[str]()
    for pair in pairs(rated([1, -1] * 200)):
        counts.update(pair)
    assert counts == {str(n): PARTNERS for n in range(400)}


@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=60))
def test_every_thumb_is_told_and_none_of_a_side_much_more_than_another(ratings: list[int]) -> None:
    tree = rated(ratings)
    rows = list(preferences(tree))
    thumbs = {str(n): rating for n, rating in enumerate(ratings) if rating}
    told = [(row.get("chosen", row.get("text")), row.get("rejected")) for row in rows]
    assert len(set(told)) == len(told) <= PARTNERS * len(thumbs)
    assert {id for pair in told for id in pair if id is not None} == thumbs.keys()
    for name, rating in (("chosen", 1), ("rejected", -1)):
        assert all(thumbs[row[name]] == rating for row in rows if name in row)
        counts = Counter(row[name] for row in rows if name in row).values()
        assert not counts or max(counts) - min(counts) <= PARTNERS


@pytest.mark.parametrize("rating", [1, -1])
def test_thumbs_that_point_one_way_are_told_one_by_one(rating: int) -> None:
    found = [(row["text"], row["rating"]) for row in preferences(rated([rating, 0, rating]))]
    assert found == [("0", rating), ("2", rating)]


def test_what_a_writer_typed_is_no_example() -> None:
    tree = StoryTree([passage("a", role="writer")], "a", {"a": Mark(rating=1)})
    assert list(preferences(tree)) == []


def prompt_after(texts: list[str]) -> Any:
    """What the version after a branch of these texts is given with, and the branch's."""
    branch = [
        passage(str(n), str(n - 1) if n else None, "writer", text) for n, text in enumerate(texts)
    ]
    last = passage("last", branch[-1].id if branch else None)
    (row,) = preferences(StoryTree([*branch, last], "last", {"last": Mark(rating=1)}))
    return row["prompt"], manuscript(branch)


@given(st.lists(st.text("ab .", min_size=1, max_size=9), max_size=9), st.integers(0, 9))
def test_the_prompt_is_the_end_of_the_story_before(texts: list[str], at: int) -> None:
    texts.insert(at, "A long one. " * (CONTEXT // 24))
    for told in (texts, texts * 2, texts * 3):
        prompt, before = prompt_after(told)
        assert prompt == before[-CONTEXT:]
