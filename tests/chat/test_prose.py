"""Prose for the page. A CommonMark parser is the oracle here, in tests/browser the page itself."""

import sys
from types import FrameType

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from storygen.chat.prose import sentence, typed, untyped, verbatim

MARKS = st.sampled_from([*"ab1. :*_-#>`~[](){}<>!|\\&;@/=+^$'\"\t\n", "  ", "www.", "://", ":::"])
PROSE = st.lists(MARKS, max_size=60).map("".join)


def displayed(markdown: str) -> tuple[str, set[str]]:
    """The text CommonMark makes of it, and the kinds of nodes it is made of."""
    tokens = MarkdownIt("commonmark").parse(markdown)
    kinds, text = {token.type for token in tokens}, ""
    for token in tokens:
        for child in token.children or ():
            kinds.add(child.type)
            text += child.content
    return text, kinds


@given(PROSE)
@example("# said:wait\n\n1984. It was *not*\n    indented\n- <b>")
@example("  \n\n in the middle \n\n  ")
@example("`a``b```")
def test_prose_is_one_paragraph_of_exactly_its_words(text: str) -> None:
    shown, kinds = displayed(verbatim(text))
    assert shown == text
    plain = {"paragraph_open", "inline", "text", "code_inline", "paragraph_close"}
    assert kinds <= plain | {"strong_open", "strong_close"}


# The oracle strips control characters at the ends, which CommonMark does not.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"], include_characters="\t\n\v\f\r")


@given(st.text(CHARACTERS, max_size=60))
def test_any_characters_are_shown_as_themselves(text: str) -> None:
    assert displayed(verbatim(text))[0] == text


@given(PROSE, st.integers(0, 60))
def test_parts_encoded_one_by_one_join(text: str, cut: int) -> None:
    parts = verbatim(text[:cut]) + verbatim(text, min(cut, len(text)))
    if "``" not in parts:  # two code spans side by side: Screen.stream sends the whole instead
        assert displayed(parts)[0] == text


def test_plain_words_stay_readable() -> None:
    text = "“So,” she said; it was a naïve idea - and (perhaps) his 2nd."
    assert verbatim(text) == "&#8220;" + text[1:]


def test_a_text_of_nothing_but_marks_takes_no_call_for_each() -> None:
    """A passage of two million asterisks took seconds, and a story has many passages."""
    calls = 0

    def count(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        encoded = verbatim("*&" * 5000)
    finally:
        sys.setprofile(before)
    assert encoded == "&#42;&#38;" * 5000
    assert calls < 100


def test_notice_is_emphasis_and_nothing_else() -> None:
    shown, kinds = displayed(sentence("There is no model '*x*_y_'\nany [more](x)."))
    assert shown == "There is no model '*x*_y_' any [more](x)."
    assert {"em_open", "em_close"} <= kinds
    assert "link_open" not in kinds


@given(st.text(max_size=20))
def test_typed_text_comes_back(text: str) -> None:
    assert untyped(typed(text)) == text.removeprefix("\u2060")


def test_white_space_beside_a_line_end_stands_in_code_spans() -> None:
    """The page trims lines inside a text node, which the oracle here does not."""
    assert verbatim("a \n b") == "&#97;` `&#10;` `b"
    assert verbatim("a\n @ \nb") == "&#97;&#10;`  @  `&#10;b"
    assert displayed(verbatim("a\n @ \nb"))[0] == "a\n @ \nb"


def test_only_the_space_a_passage_begins_with_is_strong() -> None:
    assert verbatim(" The fog") == "**&#32;**&#84;he fog"
    for text in ("The **fog**", "  two", " \nline", " :::", " @", " www.x", " ", ""):
        assert "strong_open" not in displayed(verbatim(text))[1], text
