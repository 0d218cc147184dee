"""One typography: worked examples, and that nothing but typography changes."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.text import ends_sentence, plain_typography

wild = st.text(max_size=100) | st.text(
    alphabet=" .-—'’“”…\u2026\u00a0\u200b\u00adab\r\n", max_size=60
)


@pytest.mark.parametrize(
    ("printed", "typed"),
    [
        ("‘It’s “his,”’ she said", "'It's \"his,\"' she said"),
        ("Well . . . no. . . . And… yes", "Well... no... And... yes"),
        ("he—she--it ⸺ no", "he—she—it — no"),
        ("a---b\n-----\n", "a---b\n-----\n"),  # a rule is not a dash
        ("two  spaces\u00a0and\u2009thin", "two spaces and thin"),
        ("  verse\n    deeper", "  verse\n    deeper"),
        ("re\u00adlent\u200bless\ufeff", "relentless"),
        ("line\r\nline", "line\nline"),
        ("naïve café, 5′, £3 & 😀", "naïve café, 5', £3 & 😀"),
    ],
)
def test_print_becomes_what_is_typed(printed, typed):
    assert plain_typography(printed) == typed


@given(wild)
def test_doing_it_twice_changes_nothing(text):
    once = plain_typography(text)
    assert plain_typography(once) == once


@given(wild)
def test_letters_and_digits_are_never_touched(text):
    def kept(text):
        return [c for c in text if unicodedata.category(c)[0] in "LN" and c != "ʼ"]

    assert kept(plain_typography(text)) == kept(text)


@pytest.mark.parametrize(
    "text", ["So.", "So!", 'He said: "So?"', "“So!”", "(So.)", "so...", "_So._", "etc.", "at nine."]
)
def test_a_sentence_ends_with_its_mark_and_closing_quotes(text):
    assert ends_sentence(text, len(text))


@pytest.mark.parametrize("text", ["", "so", "so,", "Mr.", "(Dr.", "J.", "i.e.", '"', "a. b", "3.5"])
def test_no_sentence_ends_with_an_abbreviation_an_initial_or_nothing(text):
    assert not ends_sentence(text, len(text))
