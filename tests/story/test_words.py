import re
import tracemalloc
from difflib import Match, SequenceMatcher
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.errors import StoryError
from storygen.story import words
from storygen.story.words import Change, Effort, Sought, changed_spans, differences

PROSE = st.lists(
    st.sampled_from(["Ann", "ran", " ", ", ", ".\n", "\n\n", "so", "é"]), max_size=20
).map("".join)


def test_differences_are_those_a_reader_sees() -> None:
    assert differences("Ann ran home.\nIt rained.", "Bea ran home.\nIt rained.") == [
        ("left", "Ann"),
        ("right", "Bea"),
        ("same", " ran home.\n"),
        ("same", "It rained."),
    ]
    assert differences("", "") == []
    assert differences("So.", "So. Now.") == [("same", "So."), ("right", " Now.")]


@given(PROSE, PROSE)
def test_the_pieces_are_both_texts_whole(left: str, right: str) -> None:
    found = differences(left, right)
    assert "".join(text for kind, text in found if kind != "right") == left
    assert "".join(text for kind, text in found if kind != "left") == right
    assert all(text for _, text in found)


@given(PROSE, PROSE)
def test_what_is_outside_the_changed_spans_was_there_before(before: str, after: str) -> None:
    spans = changed_spans(before, after, Effort())
    assert all(start < stop for start, stop in spans)
    kept = iter(before)
    outside = [c for n, c in enumerate(after) if not any(a <= n < b for a, b in spans)]
    assert all(character in kept for character in outside)  # in this order
    assert (not spans) <= (len(after) <= len(before))


def test_texts_that_are_much_alike_are_compared_roughly() -> None:
    left, right = "He ran. " * 3000, "He sat. " + "He ran. " * 2999
    kinds = [kind for kind, _ in differences(left, f"{right}So.")]
    assert kinds == ["same", "left", "right"]


def test_two_long_texts_are_compared_by_their_lines() -> None:
    left = "".join(f"Line {n} of the first book, as it was told.\n" for n in range(3000))
    right = left.replace("told", "written").replace("Line 7 ", "Row 7 ")
    assert "".join(t for k, t in differences(left, right) if k != "left") == right


@pytest.mark.parametrize(
    ("sought", "found"),
    [
        (Sought("ann"), ["Ann", "ann", "ANN", "Ann"]),
        (Sought("Ann", case=True), ["Ann", "Ann"]),
        (Sought("ann", words=True), ["Ann", "ANN"]),
        (Sought("a.n"), []),
        (Sought("$1\\"), ["$1\\"]),
    ],
)
def test_places_are_found(sought: Sought, found: list[str]) -> None:
    text = "Ann met Joann; ANN said $1\\. Annabel"
    assert [text[start:stop] for start, stop in sought.spans(text)] == found
    assert sought.replaced(text, r"\1") == _slowly_replaced(text, sought)


@given(
    st.text("aAbB_ .é", max_size=30),
    st.text("aAbB_ .", min_size=1, max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_places_are_those_of_a_regular_expression(
    text: str, sought: str, case: bool, words: bool
) -> None:
    pattern = re.escape(sought)
    pattern = rf"(?<!\w){pattern}(?!\w)" if words else pattern
    found = re.finditer(pattern, text, 0 if case else re.IGNORECASE)
    assert list(Sought(sought, case, words).spans(text)) == [place.span() for place in found]


@given(st.text("aAbİ_ .", max_size=30), st.text("aAİ", min_size=1, max_size=2), st.text("b☺"))
def test_what_would_be_put_in_is_measured_as_it_is(text: str, sought: str, new: str) -> None:
    for words_only in (False, True):
        look = Sought(sought, words=words_only)
        count = len(list(look.spans(text)))
        assert look.measured(text, new) == (count, len(look.replaced(text, new)))


def test_measuring_takes_little_beside_the_text() -> None:
    text = "a" * 200_000
    tracemalloc.start()
    try:
        assert Sought("a").measured(text, "☺" * 500) == (200_000, 100_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(text)


def test_letters_that_become_two_are_found_as_they_are() -> None:
    assert list(Sought("ann").spans("İ Ann ann")) == [(6, 9)]


def _slowly_replaced(text: str, sought: Sought) -> str:
    for start, stop in reversed(list(sought.spans(text))):
        text = text[:start] + r"\1" + text[stop:]
    return text


@pytest.mark.parametrize("text", ["", "x" * 501])
def test_what_cannot_be_looked_for_is_said(text: str) -> None:
    with pytest.raises(StoryError, match=f"Text of {len(text)} characters"):
        Sought(text)


def test_very_long_texts_differ_in_one_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_MOST_PIECES", 5)
    left, right = "One old word here now.", "One new word there now."
    assert differences(left, right) == [
        ("same", "One"),
        ("left", " old word here"),
        ("right", " new word there"),
        ("same", " now."),
    ]


def test_stretches_are_those_of_the_longest_runs() -> None:
    left = "He ran home, and so did she; then it rained, and he sat. Ann ran."
    right = "She ran home and so did he; then it rained. He sat, and Ann sat!"
    a, b = (words._pieces(words._WORD, text) for text in (left, right))
    expected: list[Change] = []
    for kind, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind == "equal":
            expected.append(("same", "".join(a[i:j])))
            continue
        expected += [("left", "".join(a[i:j]))] if i < j else []
        expected += [("right", "".join(b[k:m]))] if k < m else []
    assert differences(left, right) == expected


def alternating(word: str, count: int, end: str = "") -> str:
    """Words of which every other is this one: there are as many equal runs as words."""
    return " ".join(f"{word} w{n}" for n in range(count)) + end


STEPS = 200_000


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the stretches in which a longest run was looked for."""
    sizes: list[int] = []
    find = SequenceMatcher.find_longest_match

    def spied(self: SequenceMatcher[str], alo: int, ahi: int, blo: int, bhi: int) -> Match:
        sizes.append(ahi - alo)
        return find(self, alo, ahi, blo, bhi)

    monkeypatch.setattr(SequenceMatcher, "find_longest_match", spied)
    monkeypatch.setattr(words, "_MOST_STEPS", STEPS)
    return sizes


def test_texts_with_many_equal_runs_are_compared_as_far_as_the_effort_goes(
    looked_at: list[int],
) -> None:
    left, right = alternating("old", 1000), alternating("new", 1000)
    found = differences(left, right)
    assert sum(looked_at) <= STEPS
    assert "".join(text for kind, text in found if kind != "right") == left
    assert "".join(text for kind, text in found if kind != "left") == right
    assert 50 < len(found) < 1000
    assert all(a != b for (a, _), (b, _) in pairwise(found))


def test_all_lines_of_a_text_share_one_effort(looked_at: list[int]) -> None:
    left, right = (
        "".join(f"{alternating(word, 200, f' end {n}')}\nLine {n}.\n" for n in range(10))
        for word in ("old", "new")
    )
    found = differences(left, right)
    assert sum(looked_at) <= STEPS
    assert "".join(text for kind, text in found if kind != "left") == right


def test_where_the_effort_is_spent_all_of_a_passage_has_changed() -> None:
    effort = Effort(30)
    assert changed_spans("He ran.", "He sat.", effort) == ((2, 6),)
    assert effort.left < 14
    assert changed_spans("He ran.", "He sat.", effort) == ((0, 7),)
    assert changed_spans("He ran home, and so on.", "", effort) == ()


@pytest.mark.parametrize("count", [20, 500])
def test_what_is_remembered_costs_as_much_as_what_is_compared(count: int) -> None:
    texts = alternating("ancient", count), alternating("recent", count)
    assert (sum(map(len, texts)) <= words.REMEMBERED) == (count == 20)
    first, second = Effort(), Effort()
    assert changed_spans(*texts, first) == changed_spans(*texts, second)
    assert first.left == second.left < Effort().left - sum(map(len, texts))
