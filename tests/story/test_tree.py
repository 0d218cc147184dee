import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.errors import StoryError
from storygen.story.tree import Passage, Role, StoryTree, joint, joints, manuscript

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def passage(id: str, text: str = "", parent: str | None = None, role: Role = "writer") -> Passage:
    return Passage(id, "story", parent, role, text, NOW)


# a ── b ── d        a was retried as e; b as c; the head is at d
#   └─ c
# e
TREE = StoryTree(
    [
        passage("a"),
        passage("b", parent="a"),
        passage("c", parent="a"),
        passage("d", parent="b"),
        passage("e"),
    ],
    head_id="d",
)


def ids(passages: list[Passage]) -> str:
    return "".join(p.id for p in passages)


def test_a_branch_runs_from_the_first_passage_to_the_head() -> None:
    assert ids(TREE.branch()) == "abd"
    assert ids(TREE.branch("c")) == "ac"
    assert StoryTree([passage("a")], head_id=None).branch() == []


def test_siblings_are_the_versions_of_a_passage_oldest_first() -> None:
    assert ids(TREE.siblings("c")) == "bc"
    assert ids(TREE.siblings("e")) == "ae"
    assert ids(TREE.siblings("d")) == "d"


def test_children_follow_a_passage() -> None:
    assert ids(TREE.children("a")) == "bc"
    assert ids(TREE.children(None)) == "ae"
    assert TREE.children("d") == []


def test_an_unknown_passage_is_named() -> None:
    assert "x" not in TREE
    assert "a" in TREE
    for ask in (TREE.branch, TREE.siblings, TREE.__getitem__):
        with pytest.raises(StoryError, match="no passage 'x' in this story"):
            ask("x")


@pytest.mark.parametrize(
    ("before", "text", "between"),
    [
        ("", "Once.", ""),
        ("He left.", "She stayed.", "\n\n"),
        ("“Who?”", "Nobody spoke.", "\n\n"),
        ("Part one:", "Rain.", "\n\n"),
        ("The old", "house", " "),
        ("The old", ", crumbling house", ""),
        ("The old ", "house", ""),
        ("He left.\n", "She stayed.", ""),
        ("He left.", " She stayed.", ""),
        ("She said “", "Hello", ""),
        ('She said "', "Hello", ""),
        ('"', "Hello", ""),
        ('"Hello."', "He nodded.", "\n\n"),
        ("And then—", "nothing", ""),
        ("Well", "… perhaps", ""),
        ("He left.", "", ""),
    ],
)
def test_a_writer_goes_on_with_a_word_or_a_paragraph(before: str, text: str, between: str) -> None:
    assert joint(before, passage("b", text)) == between


def test_a_model_brings_its_own_space() -> None:
    assert joint("He left.", passage("b", "And", role="model")) == ""


def test_a_manuscript_joins_passages_as_each_joint_says() -> None:
    told = [
        passage("a", "Once upon"),
        passage("b", " a time.", role="model"),
        passage("c", ""),
        passage("d", "Rain fell"),
        passage("e", "", role="model"),
        passage("f", "all day."),
        passage("g", "\nIt", role="model"),
        passage("h", "ended"),
    ]
    assert manuscript(told) == "Once upon a time.\n\nRain fell all day.\nIt ended"


def test_a_manuscript_is_what_joining_step_by_step_gives() -> None:
    pieces = ["“", "Ah", '"', "b.", " ", "", "…", "\n", "C", "—", "'", "d"]
    told = [passage("x", a + b) for a in pieces for b in pieces]
    text = ""
    for each in told:
        text += joint(text, each) + each.text
    assert manuscript(told) == text


@given(st.lists(st.tuples(st.sampled_from(["writer", "model"]), st.text(max_size=3)), max_size=8))
def test_joints_are_those_of_the_manuscript(told: list[tuple[Role, str]]) -> None:
    """Also after passages of a single letter, where a joint looks at the one before it too."""
    passages = [Passage(str(n), "", None, *each, NOW) for n, each in enumerate(told)]
    text = ""
    for between, passage in zip(joints(passages), passages, strict=True):
        assert between == joint(text, passage)
        text += between + passage.text
    assert text == manuscript(passages)
    before = manuscript(passages[:2])
    assert before + manuscript(passages[2:], before) == text


class Counted(StoryTree):
    """A tree that counts how often a passage of it is looked up."""

    looked_up = 0

    def __getitem__(self, passage_id: str) -> Passage:
        self.looked_up += 1
        return super().__getitem__(passage_id)


@pytest.mark.parametrize("step", [1, -1])
def test_an_origin_is_found_once_for_all_copies_of_copies(step: int) -> None:
    first = passage("0", "told", role="model")
    chain = [first, *(replace(first, id=str(n), source_id=str(n - 1)) for n in range(1, 500))]
    tree = Counted(chain, head_id=None)
    assert {tree.origin(copy.id).id for copy in chain[::step]} == {"0"}
    assert tree.looked_up <= 3 * len(chain)


def test_an_origin_is_what_was_there_before_any_edit() -> None:
    edited = replace(passage("c"), source_id="b")
    tree = StoryTree([passage("a"), passage("b"), edited, replace(edited, id="d")], None)
    assert [tree.origin(id).id for id in "dcba"] == ["b", "b", "b", "a"]
    with pytest.raises(StoryError, match="no passage 'x' in this story"):
        tree.origin("x")


def test_joints_take_no_more_of_a_passage_than_its_end() -> None:
    branch = [passage("a", "a" * 1_000_000)] * 50
    tracemalloc.start()
    try:
        assert list(joints(branch)) == ["", *[" "] * 49]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
