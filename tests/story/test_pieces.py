"""Cutting a long text: nothing is lost, and the cuts are where a reader would pause."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.story.pieces import MOST, split
from storygen.story.tree import Passage, manuscript

SENTENCE = "The rain came down on the slates all night long. "  # ten words
PARAGRAPH = SENTENCE * 5 + "\n\n"  # fifty

PIECES = [SENTENCE * 3, PARAGRAPH, PARAGRAPH * 20, "Chapter 3\n\n", "\n\n* * *\n\n", "x" * 500]
MARKS = [
    "“No—",
    '"',
    "’",
    ",",
    " ",
    "\n",
    "\t",
    "\u3000",
    "\u2028",
    "天地玄黄。" * 300,
    "word " * 700,
]
texts = st.lists(st.sampled_from([*PIECES, *MARKS]), max_size=12).map("".join)


def stored(pieces: list[str]) -> list[Passage]:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Passage(str(n), "story", str(n - 1) if n else None, "writer", piece, moment)
        for n, piece in enumerate(pieces)
    ]


@given(texts | st.text())
def test_passages_in_a_row_are_the_very_text(text: str) -> None:
    pieces = split(text)
    assert "".join(pieces) == text
    assert manuscript(stored(pieces)) == text
    assert all(pieces)


@given(texts)
def test_only_a_single_word_makes_a_passage_too_long(text: str) -> None:
    for piece in split(text):
        words = len(piece.split())
        assert words <= 1 or (words <= MOST and len(piece) < 10 * (MOST + 1))


def test_a_short_text_is_one_passage() -> None:
    assert split("") == []
    assert split("It was dark.") == ["It was dark."]
    assert split(PARAGRAPH * 20) == [PARAGRAPH * 20]


def test_passages_of_an_even_text_have_600_words() -> None:
    assert [len(piece.split()) for piece in split(PARAGRAPH * 60)] == [600, 600, 600, 600, 600]


@pytest.mark.parametrize("beginning", ["CHAPTER II", "# The Fog", "* * *", "Part Two: Home"])
def test_a_passage_begins_with_what_begins(beginning: str) -> None:
    text = PARAGRAPH * 9 + f"{beginning}\n\n" + PARAGRAPH * 9
    assert [piece[:10] for piece in split(text)] == [text[:10], f"{beginning}\n\n{text}"[:10]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SENTENCE * 59 + "\n\n" + SENTENCE * 100, 590),  # a paragraph before a sentence
        ((SENTENCE.strip() + "\n") * 58 + SENTENCE * 100, 580),  # a line before a sentence
        (SENTENCE * 159, 600),
        ("rain " * 1500, 600),
    ],
)
def test_the_best_place_near_the_middle_is_taken(text: str, words: int) -> None:
    assert len(split(text)[0].split()) == words


def test_writing_without_spaces_is_cut_between_its_lines() -> None:
    line = "天地玄黄宇宙洪荒。" * 100 + "\n"
    assert [len(piece) for piece in split(line * 30)] == [7 * 901] * 3 + [9 * 901]
