"""Figures of passages, on texts short enough to count."""

import pytest

from storygen.report.words import distinct_2, ends_at_sentence, invented, repeated_4, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("“Don’t—” said Watson’s half-brother, 42.", "don't said watson's half brother"),
        ("'Tis the dogs' café, STRASSE and Straße", "tis the dogs café strasse and strasse"),
        ("snake_case", "snake case"),
        ("1914 -- ...", ""),
    ],
)
def test_a_word_is_letters_with_apostrophes_between(text, expected):
    assert words(text) == expected.split()


def test_distinct_pairs_are_counted_over_all_passages_and_never_across_two():
    # a b, b a, a b | a b, b c: three different ones of five.
    assert distinct_2(["abab", "abc"]) == pytest.approx(3 / 5)
    assert distinct_2(["a", "b"]) == 0


def test_repeated_runs_of_four_are_counted_within_a_passage():
    # abcdabcd has five runs of four, of which abcd twice; the second passage repeats nothing of
    # its own, although abcd stood in the first.
    assert repeated_4(["abcdabcd", "abcd"]) == pytest.approx(1 / 6)
    assert repeated_4(["abc"]) == 0


def test_invented_words_are_counted_each_time():
    assert invented([["the", "glorp", "cat"], ["glorp"]], {"the", "cat"}) == pytest.approx(0.5)
    assert invented([], {"the"}) == 0


@pytest.mark.parametrize("text", ["It was.", "“Who?” ", "(It was!)\n", "And then…", "'No.'"])
def test_passages_that_end_at_a_sentence(text):
    assert ends_at_sentence(text)


@pytest.mark.parametrize("text", ["", "It was", "It was,", "Well.—", "He. And", "“Who?” he"])
def test_passages_that_do_not(text):
    assert not ends_at_sentence(text)
