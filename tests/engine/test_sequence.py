import math
import random
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storygen.engine.interface import Segment
from storygen.engine.phrases import StopStrings
from storygen.engine.sequence import Sequence, check_prompt, prompt_tail
from storygen.errors import PromptError
from storygen.params import SamplingParams
from storygen.tokenizers import CharTokenizer
from tests.engine import oracle

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
        shown = next(strings.beginnings(text, shown), len(text))
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
        shown = next(strings.beginnings(text[:n], shown), n)
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


# Banned phrases


def test_a_banned_word_takes_the_passage_back_to_the_token_with_which_it_began():
    made = sequence(prompt="once", banned=("up",))
    assert feed(made, " a up") == [Segment(c, 1) for c in " a "] + [None, None]
    assert made.take(*LETTERS.encode(" ")) is None  # which shows that it was the whole word
    assert LETTERS.decode(made.ids) == "once a "
    assert made.adjustments() == [(*LETTERS.encode("u"), -math.inf)]
    assert feed(made, "on") == [Segment("o", 1), Segment("n", 1)]
    assert made.adjustments() == []


def test_a_longer_word_that_begins_like_a_banned_one_is_shown_when_it_is_one():
    made = sequence(banned=("up",))
    assert feed(made, " upon ")[1:] == [None, None, Segment("upo", 3), *map(one, "n ")]


def one(character):
    return Segment(character, 1)


@pytest.mark.parametrize("end", ["#", "length"])
def test_a_word_that_ends_with_the_passage_is_banned_too(end):
    made = sequence(banned=("up",), max_new_tokens=3 if end == "length" else 9)
    feed(made, " up" + ("#" if end == "#" else ""))
    assert LETTERS.decode(made.ids) == "once "
    assert feed(made, "to" if end == "length" else "to#")[-1].finish_reason in ("length", "stop")


def test_a_cancelled_passage_does_not_show_a_banned_word():
    made = sequence(banned=("up",))
    feed(made, " up")
    assert made.finish("cancelled") == Segment("", 2, "cancelled")


def test_a_word_begun_by_the_writer_is_not_completed():
    made = sequence("once up", banned=("upon",))
    feed(made, "on ")
    assert LETTERS.decode(made.ids) == "once up"


def test_what_would_begin_a_phrase_if_the_token_after_it_were_replaced_is_held_back():
    # After "a " comes "b ", which may become "b d". Undone, "a c" may still be written.
    made = sequence("x", banned=("a c", "b d"))
    assert feed(made, " a b ") == [Segment(" ", 1), None, None, None, None]
    assert feed(made, "e") == [Segment("a b e", 5)]


def test_a_stop_string_that_cuts_a_word_leaves_no_banned_one():
    made = sequence(banned=("up",), stop=("on",))
    feed(made, " upon")
    assert LETTERS.decode(made.ids) == "once "
    assert feed(made, "on") == [None, Segment("", 2, "stop")]


def test_fifty_returns_to_one_place_end_the_passage():
    # A place may be left again: it is the returns that count.
    many = CharTokenizer([chr(0x4E00 + n) for n in range(60)] + [" "])
    made = sequence("\u4e00 ", many, banned=tuple(many.characters[:60]))
    for n in range(49):
        made.take(n)
        assert made.take(60) is None
    made.take(49)
    assert made.take(60) == Segment("", 0, "stop")


def test_a_passage_ends_where_everything_is_forbidden():
    made = sequence("a", CharTokenizer("a"), banned=("aa",), max_new_tokens=1)
    assert made.take(0) == Segment("", 0, "stop")


words = st.lists(st.sampled_from(["a", "b", "ab", "ba"]), min_size=1, max_size=3).map(" ".join)


class Chance:
    """A model: what it writes depends on the text before it, and is drawn from what is allowed."""

    def __init__(self, seed, characters):
        self.seed, self.characters = seed, characters

    def draw(self, ids, adjustments):
        forbidden = {token for token, _ in adjustments}
        order = random.Random(f"{self.seed} {ids}").sample(
            range(len(self.characters)), len(self.characters)
        )
        return next(token for token in order if token not in forbidden)


@settings(max_examples=300)
@given(
    st.lists(words, min_size=1, max_size=5),
    st.sampled_from(["", "a", "b ", "ab a", "."]),
    st.lists(words, max_size=2),
    st.integers(0, 10**6),
    st.integers(1, 40),
)
@example(["a a", "b"], "", ["ba"], 14258, 13)
def test_nothing_banned_is_ever_shown_and_nothing_shown_taken_back(
    phrases, prompt, stops, seed, most
):
    tokenizer = CharTokenizer("ab .#", eot="#")
    prompt = "." + prompt
    params = {"banned": tuple(phrases), "stop": tuple(stops), "max_new_tokens": most}
    made = sequence(prompt, tokenizer, **params, loop_guard=False)
    model, text, n = Chance(seed, tokenizer.characters), "", 0
    for _ in range(50 * most * most):
        segment = made.take(model.draw(made.ids, made.adjustments()))
        if segment:
            text, n = text + segment.text, n + segment.token_count
        assert oracle.first_banned(prompt, text, phrases, over=False) is None
        if segment and segment.finish_reason:
            break
    assert segment.finish_reason
    assert oracle.first_banned(prompt, text, phrases, over=True) is None
    assert n == len(made.ids) - len(prompt)


# Sentences


@pytest.mark.parametrize(
    ("text", "shown", "most"),
    [
        ("So it was. And then", "So it was.", 15),
        ("So it was.\n\nAnd", "So it was.", 15),
        ("He said: so! And", "He said: so!", 15),
        ("(So it was.) And", "(So it was.)", 15),
        ("to P. it. And", "to P. it.", 10),
    ],
)
def test_a_passage_ends_with_a_sentence_when_two_thirds_are_written(text, shown, most):
    prose = CharTokenizer(sorted({*text, *"once"}))
    made = sequence("once", prose, end_at_sentence=True, max_new_tokens=most)
    segments = [s for s in feed(made, text, prose) if s]
    assert "".join(s.text for s in segments) == shown
    assert segments[-1].finish_reason == "stop"


def test_a_sentence_that_ends_before_two_thirds_does_not_end_the_passage():
    prose = CharTokenizer("abc. ")
    made = sequence("a", prose, end_at_sentence=True, max_new_tokens=15)
    segments = [s for s in feed(made, "ab. bc. cab. abc", prose) if s]
    assert "".join(s.text for s in segments) == "ab. bc. cab."
    made = sequence("a", prose, end_at_sentence=True, max_new_tokens=9)
    segments = [s for s in feed(made, "ab. abcabcabcabc", prose) if s]
    assert "".join(s.text for s in segments) == "ab. abcab"
    assert segments[-1].finish_reason == "length"


# Loops


def test_a_passage_that_only_repeats_itself_ends_as_a_loop_unless_it_may():
    dots = CharTokenizer(". a")
    dots.tokens_per_word = 4
    segments = feed(sequence("a", dots, max_new_tokens=99), ". " * 40, dots)
    assert segments[-1].finish_reason == "loop"
    assert len(segments) == 24
    segments = feed(sequence("a", dots, max_new_tokens=40, loop_guard=False), ". " * 40, dots)
    assert segments[-1].finish_reason == "length"


# Prompts


def test_an_empty_prompt_is_refused():
    with pytest.raises(PromptError, match="empty: write the beginning"):
        check_prompt("")


def test_a_prompt_that_no_token_spells_is_refused():
    """Zero-width characters alone made the engine fail: plain typography leaves them out."""
    with pytest.raises(PromptError, match="no visible character"):
        sequence("\u200b\u2060", CharTokenizer("ab", plain=True))


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
