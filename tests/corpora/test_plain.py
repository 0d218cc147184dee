"""Plain text: whole paragraphs out of wrapped lines, and a text of ours as it is."""

from hypothesis import given
from hypothesis import strategies as st

from storygen.corpora.plain import plain_text

WRAPPED = """\
Chapter One

It was a dark night in the harbour, and the wind that came over the sea
was colder than anyone in the town had known it to be in all the years of
the old keeper's watch, which were many.

The keeper lit his lamp and looked at the water for a long time before he
spoke.

  A rose is red,
  the sea is wide

"Nobody comes," he said to the dog that lay before the fire and had never
been known to answer anybody, not even the priest.
"""


def test_wrapped_lines_are_made_whole_and_verse_keeps_its_own():
    paragraphs = plain_text(WRAPPED).strip().split("\n\n")
    assert paragraphs[0] == "Chapter One"
    assert "the wind that came over the sea was colder than anyone" in paragraphs[1]
    assert [p.count("\n") for p in paragraphs] == [0, 0, 0, 1, 0]


def test_project_gutenberg_is_taken_off():
    framed = (
        "The Project Gutenberg eBook of X\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n"
        + WRAPPED
        + "\n\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\nLicence\n"
    )
    assert plain_text("\ufeff" + framed.replace("\n", "\r\n")) == plain_text(WRAPPED)


def test_one_paragraph_a_line_comes_back_as_it_is():
    text = "A paragraph that nobody wrapped. " * 5 + "\n\nVerse\nlines\n\n<|endoftext|>\n\nB.\n"
    assert plain_text(text) == text


@given(st.text())
def test_every_word_stays(text):
    if "PROJECT GUTENBERG" not in text:
        assert plain_text(text).split() == text.removeprefix("\ufeff").split()
