"""Copied runs against looking everywhere."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from storygen.report.copies import TrainingWords, longest_runs
from storygen.report.words import words

NUMBERS = st.lists(st.integers(0, 3), max_size=25)


def slow_longest_run(passage, text):
    """Every run of the passage at every place of the text."""
    runs = [passage[i:j] for i in range(len(passage)) for j in range(i + 1, len(passage) + 1)]
    found = (run for run in runs for at in range(len(text)) if text[at : at + len(run)] == run)
    return max(map(len, found), default=0)


@given(passages=st.lists(NUMBERS, max_size=5), stories=st.lists(NUMBERS, max_size=3))
def test_longest_runs_are_those_of_looking_everywhere(passages, stories):
    text = [number for story in stories for number in (*story, -1)]
    fast = longest_runs(passages, np.array(text, np.int32))
    assert fast.tolist() == [slow_longest_run(passage, text) for passage in passages]


def test_a_run_is_found_in_any_text_but_not_across_two_stories():
    training = TrainingWords(
        [["The cat sat on the mat.", "A dog barked at noon."], ["Rain fell on the cat."]]
    )
    passages = [
        "Yesterday the CAT sat on a dog",
        "on the mat a dog barked",
        "rain fell on",
        "Zounds",
    ]
    assert training.longest_runs([words(p) for p in passages]) == [4, 3, 3, 0]
    assert "rain" in training.known
    assert "zounds" not in training.known


def test_two_unknown_words_are_no_copy_of_each_other():
    training = TrainingWords([["the end"]])
    assert training.longest_runs([["zounds", "egad"], []]) == [0, 0]
    assert "zounds" not in training.known  # looking a word up does not teach it
