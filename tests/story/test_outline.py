from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from storygen.story.outline import first_words, hidden_ids, opening, put_away, runs
from storygen.story.tree import Mark, Passage, StoryTree

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def tree_of(parents: dict[str, str | None], head: str | None, **marks: Mark) -> StoryTree:
    passages = [Passage(i, "story", parent, "writer", i, NOW) for i, parent in parents.items()]
    return StoryTree(passages, head, marks)


def shape(tree: StoryTree) -> list[tuple[str | None, str]]:
    return [
        (run.parent and run.parent.id, "".join(p.id for p in run.passages)) for run in runs(tree)
    ]


FORKED = {"a": None, "b": "a", "c": "b", "d": "b", "e": "d", "f": "e"}


def test_a_run_ends_at_a_fork_at_the_head_and_at_a_mark() -> None:
    assert shape(tree_of(FORKED, "f")) == [(None, "ab"), ("b", "c"), ("b", "def")]
    assert shape(tree_of(FORKED, "e")) == [(None, "ab"), ("b", "c"), ("b", "de"), ("e", "f")]
    named = tree_of(FORKED, "f", a=Mark(name="The start"), d=Mark(favourite=True))
    assert shape(named) == [(None, "a"), ("a", "b"), ("b", "c"), ("b", "d"), ("d", "ef")]
    assert shape(tree_of(FORKED, "f", a=Mark(rating=1))) == shape(tree_of(FORKED, "f"))


def test_what_was_put_away_is_hidden_with_all_after_it() -> None:
    tree = tree_of(FORKED, "c", d=Mark(deleted=True))
    assert shape(tree) == [(None, "abc")]
    assert hidden_ids(tree) == {"d", "e", "f"}
    assert [p.id for p in put_away(tree)] == ["d"]


def test_the_active_branch_is_shown_even_where_it_was_put_away() -> None:
    tree = tree_of(FORKED, "e", d=Mark(deleted=True))
    assert shape(tree) == [(None, "ab"), ("b", "c"), ("b", "de")]
    assert hidden_ids(tree) == {"f"}


@given(st.lists(st.integers(0, 12), max_size=13), st.integers(0, 13), st.sets(st.integers(0, 12)))
def test_every_passage_is_in_one_run_in_its_order(
    parents: list[int], head: int, deleted: set[int]
) -> None:
    """parents[n] names the parent of passage n among those before it, 0 the beginning."""
    ids = {
        str(n): None if p % (n + 1) == 0 else str(p % (n + 1) - 1) for n, p in enumerate(parents)
    }
    at = None if not ids or head % (len(ids) + 1) == 0 else str(head % (len(ids) + 1) - 1)
    tree = tree_of(ids, at, **{str(n): Mark(deleted=True) for n in deleted if str(n) in ids})
    found = runs(tree)
    shown = [p.id for run in found for p in run.passages]
    assert sorted(shown, key=int) == [i for i in ids if i not in hidden_ids(tree)]
    assert {p.id for p in tree.branch()} <= set(shown)
    for n, run in enumerate(found):
        assert run.passages[0].parent_id == (run.parent.id if run.parent else None)
        assert run.parent is None or run.parent in found[:n]
        for before, after in zip(run.passages, run.passages[1:], strict=False):
            assert after.parent_id == before.id != at


def test_an_opening_is_one_line() -> None:
    assert opening("He\n\nran  home. ") == "He ran home."
    assert opening("word " * 40) == ("word " * 16)[:79] + "…"


def test_an_edited_passage_is_told_by_its_new_words() -> None:
    old = Passage("a", "story", None, "writer", "It was from a man named Merrow.", NOW)
    new = replace(old, id="b", text="It was from a man named Marrow.", source_id="a")
    cut = replace(old, id="c", text="It was", source_id="a")
    other = replace(old, id="d", text="Never.", source_id="a")
    tree = StoryTree([old, new, cut, other], None)
    found = [first_words(tree, tree[i]) for i in "abcd"]
    assert found == ["It was from a man named Merrow.", "… Marrow.", "… was", "Never."]


def test_a_fork_with_many_ways_is_surveyed_in_one_go() -> None:
    many = tree_of({"a": None} | {f"b{n}": "a" for n in range(20_000)}, "a")
    assert len(runs(many)) == 20_001
