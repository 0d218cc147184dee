import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.engine.interface import Segment
from storygen.engine.phrases import StopStrings
from storygen.engine.sequence import Sequence, check_prompt, prompt_tail
from storygen.errors import PromptError
from storygen.params import SamplingParams
from storygen.tokenizers import CharTokenizer

LETTERS = CharTokenizer("abcdefghijklmnopqrstuvwxyz #", eot="#")


def sequence(prompt="once", tokenizer=LETTERS, **params):
    made = Sequence("model", prompt, SamplingParams(**{"seed": 1, **params}))
    made.begin(tokenizer, 32)
    return made


def feed(made, text, tokenizer=LETTERS):
    """The segments for text's tokens, up to the last segment."""
    segments = []
    for token in tokenizer.encode(text):
        segments.append(made.take(token))
        if segments[-1] and segments[-1].finish_reason:
            break
    return segments


# Stop strings


def split_at(text, cuts):
    """text in pieces cut at these indices."""
    edges = [0, *sorted({c % (len(text) + 1) for c in cuts}), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


def filtered(stops, pieces):
    """All that is shown of a text with these stop strings, and whether it stopped."""
    strings, text, shown = StopStrings(stops), "", 0
    for piece in pieces:
        text += piece
        end = strings.end(text, shown)
        if end is not None:
            return text[:end], True
        shown = strings.beginning(text, shown)
    return text, False


few_letters = st.text(alphabet="ab", max_size=30)
some_stops = st.lists(st.text(alphabet="ab", min_size=1, max_size=5), max_size=3)


@given(few_letters, some_stops, st.lists(st.integers(0, 30)))
def test_any_split_of_text_into_tokens_gives_the_same_text(text, stops, cuts):
    assert filtered(stops, split_at(text, cuts)) == filtered(stops, list(text))


@given(few_letters, some_stops)
def test_the_text_ends_before_the_stop_string_that_is_completed_first(text, stops):
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    expected = (text[: min(ends)[1]], True) if ends else (text, False)
    assert filtered(stops, list(text)) == expected


@given(few_letters, some_stops)
def test_no_more_is_held_back_than_could_become_a_stop_string(text, stops):
    strings, shown = StopStrings(stops), 0
    for n in range(1, len(text) + 1):
        if strings.end(text[:n], shown) is not None:
            return
        shown = strings.beginning(text[:n], shown)
        held = text[shown:n]
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_a_stop_string_inside_a_longer_one_wins_when_it_ends_first():
    assert filtered(["abcd", "b"], ["abcd"]) == ("a", True)


def test_the_longer_of_two_stop_strings_that_end_together_wins():
    assert filtered(["cd", "bcd"], ["a", "bc", "d"]) == ("a", True)


def test_an_empty_stop_string_stops_nothing():
    assert filtered([""], ["abc"]) == ("abc", False)


# A passage


def test_a_passage_is_the_text_of_its_tokens():
    assert feed(sequence(), "upon") == [Segment(c, 1) for c in "upon"]


def test_the_end_token_stops_and_is_not_shown():
    segments = feed(sequence(), "up#on")
    assert segments == [Segment("u", 1), Segment("p", 1), Segment("", 0, "stop")]


def test_the_last_allowed_token_comes_with_the_finish_reason():
    assert feed(sequence(max_new_tokens=2), "upon") == [Segment("u", 1), Segment("p", 1, "length")]


def test_a_stop_string_ends_the_passage_and_its_tokens_count():
    segments = [s for s in feed(sequence(stop=("end",)), "the end of it") if s]
    assert segments == [
        Segment("t", 1),
        Segment("h", 1),
        Segment("e ", 2),  # held back until the space: it might have begun "end"
        Segment("", 3, "stop"),
    ]


@pytest.mark.parametrize(("text", "reason"), [("the en#", "stop"), ("the en", "length")])
def test_what_was_held_back_for_a_stop_string_is_shown_when_the_passage_ends(text, reason):
    made = sequence(stop=("end",), max_new_tokens=6 if reason == "length" else 7)
    segments = [s for s in feed(made, text) if s]
    assert "".join(s.text for s in segments) == "the en"
    assert segments[-1].finish_reason == reason
    assert sum(s.token_count for s in segments) == 6


def test_the_models_own_stop_string_counts_too():
    made = Sequence("model", "once", SamplingParams(seed=1), stop=("on",))
    made.begin(LETTERS, 32)
    assert [s for s in feed(made, "upon") if s][-1].finish_reason == "stop"


def test_an_unfinished_character_at_the_end_is_dropped(tiny_tokenizer):
    made = sequence(tokenizer=tiny_tokenizer, max_new_tokens=2)
    ids = [*tiny_tokenizer.encode("a"), *tiny_tokenizer.encode("é")[:1]]
    assert [made.take(i) for i in ids] == [Segment("a", 1), Segment("", 1, "length")]


def test_a_cancelled_passage_shows_what_was_held_back():
    made = sequence(stop=("end",))
    feed(made, "en")
    assert made.finish("cancelled") == Segment("en", 2, "cancelled")


@given(st.text(max_size=30), st.integers(0, 1000))
def test_token_counts_of_segments_add_up_to_the_tokens(tiny_tokenizer, text, seed):
    ids = tiny_tokenizer.encode(text)
    random.Random(seed).shuffle(ids)  # characters broken apart
    made = sequence(tokenizer=tiny_tokenizer, stop=("a",), max_new_tokens=100)
    taken, segments = 0, []
    for token in ids:
        taken += 1
        segments.append(made.take(token))
        if segments[-1] and segments[-1].finish_reason:
            break
    else:
        segments.append(made.finish("cancelled"))
    assert sum(s.token_count for s in segments if s) == taken


# Prompts


def test_an_empty_prompt_is_refused():
    with pytest.raises(PromptError, match="empty: write the beginning"):
        check_prompt("")


def test_a_prompt_of_more_than_a_million_characters_is_refused_with_the_numbers():
    check_prompt("a" * 1_000_000)
    with pytest.raises(PromptError, match=r"1,000,001 characters: at most 1,000,000"):
        check_prompt("a" * 1_000_001)


def test_a_short_prompt_is_read_whole():
    assert prompt_tail("word " * 10, 32) == "word " * 10


def test_the_end_of_a_long_prompt_begins_at_a_space_between_words():
    tail = prompt_tail("One word after another. " * 1000, 32)
    assert 16 * 32 - 4 * 32 <= len(tail) <= 16 * 32
    assert tail.startswith(" ")
    assert tail.endswith("another. ")


def test_a_long_prompt_without_a_space_is_cut_anywhere():
    assert prompt_tail("a" * 5000, 32) == "a" * 512


@given(st.text(alphabet="ab .'\n", min_size=600, max_size=900))
def test_the_end_of_a_long_prompt_has_the_tokens_it_has_in_the_whole(tiny_tokenizer, prompt):
    tail = prompt_tail(prompt, 32)
    if tail.startswith(" "):
        ids = tiny_tokenizer.encode(tail)
        assert tiny_tokenizer.encode(prompt)[-len(ids) :] == ids


def test_a_passage_begun_with_a_long_prompt_reads_its_end_only():
    made = sequence("a" * 100_000 + " the end")
    assert len(made.ids) == 16 * 32
    assert LETTERS.decode(made.ids).endswith("a the end")
