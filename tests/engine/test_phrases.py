import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.engine.phrases import BannedPhrases
from tests.engine import oracle


def found(phrases, text, before="", over=False):
    """Index in text of the first of these phrases, and from where one may begin."""
    phrase, beginning = BannedPhrases(phrases).find(before + text, 0, len(before), over)
    return phrase if phrase is None else phrase - len(before), beginning - len(before)


@pytest.mark.parametrize("text", ["hell ", "the ", "shed ", "he2 ", "hélas "])
def test_a_word_is_not_found_in_a_longer_one(text):
    assert found(["he"], text) == (None, len(text))


@pytest.mark.parametrize("text", ["he.", "He ", "HE'", "“he”", "-he-", "he's", "_he_"])
def test_a_word_is_found_in_any_case_between_whatever_is_no_word(text):
    assert found(["hE"], text)[0] == text.lower().index("he")


def test_a_word_is_over_when_something_else_follows():
    assert found(["he"], "so he") == (None, 3)
    assert found(["he"], "so he", over=True)[0] == 3
    assert found(["he"], "so he ")[0] == 3


def test_what_ends_in_a_mark_is_over_at_once():
    assert found(["no!"], "Oh no!")[0] == 3


@pytest.mark.parametrize(
    ("phrase", "text"),
    [
        ("all of a sudden", "All of\n a  sudden."),
        ("don't", "Don’t "),
        ("well...", "well…"),
        ("well…", "well..."),
        ("so -- then", "so — then "),
        ("straße", "STRASSE "),
        ("suddenly", "sud\u00addenly "),
        (" he ", "he "),
    ],
)
def test_typography_and_the_number_of_spaces_do_not_matter(phrase, text):
    assert found([phrase], text)[0] == 0


def test_a_phrase_may_begin_in_the_draft_but_not_lie_in_it():
    assert found(["all of a sudden"], " sudden,", before="It was all of a")[0] == -8
    assert found(["all of a sudden"], " it", before="all of a sudden") == (None, 3)
    assert found(["hell"], "l o", before="Oh, hel")[0] == -3


def test_from_the_first_possible_beginning_on_text_is_unsure():
    assert found(["all of a sudden", "of course"], "and all of") == (None, 4)
    assert found(["all of a sudden", "of course"], "and all in") == (None, 10)


def test_no_phrase_is_never_found():
    assert not BannedPhrases([])
    assert not BannedPhrases(["\u200b"])
    assert found([], "text") == (None, 4)


short = st.text(alphabet="aB ._", max_size=12)


@given(st.lists(st.text(alphabet="Ab ._", min_size=1, max_size=4), max_size=4), short, short)
def test_phrases_are_found_where_the_oracle_finds_them(phrases, before, text):
    phrases = [phrase for phrase in phrases if phrase.strip()]
    for over in (False, True):
        at, _ = found(phrases, text, before, over)
        expected = oracle.first_banned(before, text, phrases, over)
        assert (at if at is None else max(0, at)) == expected
