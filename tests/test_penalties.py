import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.params import SamplingParams
from storygen.penalties import breaker_tokens, counted, dry, penalised, penalties
from storygen.tokenizers import CharTokenizer
from tests.engine import oracle

LETTERS = CharTokenizer('ab:"\n')
A, B, COLON = (LETTERS.encode(one)[0] for one in "ab:")


def test_frequency_counts_each_time_and_presence_once():
    assert counted([4, 4, 4, 2], 0.5, 0.0) == {4: -1.5, 2: -0.5}
    assert counted([4, 4, 4, 2], 0.0, 0.5) == {4: -0.5, 2: -0.5}
    assert counted([], 2.0, 2.0) == {}


def test_frequency_and_presence_look_at_what_the_model_wrote_alone():
    params = SamplingParams(frequency_penalty=1.0, presence_penalty=0.25)
    assert penalties(params, [1, 2, 3, 1], 2, frozenset()) == {3: -1.25, 1: -1.25}


def test_dry_grows_with_the_length_of_the_repetition():
    # 1 2 3 was followed by 4; after 3 alone came 9 too.
    window = [1, 2, 3, 4, 3, 9, 1, 2, 3]
    assert dry(window, set(), 1.0, 2.0, 1) == {4: -4.0, 9: -1.0}
    assert dry(window, set(), 0.5, 3.0, 2) == {4: -1.5}
    assert dry(window, set(), 1.0, 2.0, 4) == {}


def test_dry_looks_across_no_breaker():
    assert dry([1, 2, 3, 4, 1, 2, 3], {2}, 1.0, 2.0, 1) == {4: -1.0}
    assert dry([1, 2, 3, 4, 1, 2, 3], {3}, 1.0, 2.0, 1) == {}
    assert dry([1, 2, 3, 4, 1, 2, 3], {4}, 1.0, 2.0, 1) == {}


@pytest.mark.parametrize("window", [[], [1], [1, 2]])
def test_dry_of_a_window_without_repetition_is_nothing(window):
    assert dry(window, set(), 1.0, 2.0, 1) == {}


def test_dry_of_one_endless_word_is_still_a_number():
    [amount] = dry([7] * 4096, set(), 5.0, 4.0, 50).values()
    assert math.isfinite(amount)


def test_a_breaker_is_any_token_with_a_newline_colon_quote_or_asterisk():
    assert breaker_tokens(CharTokenizer('a:b*"\n”.')) == {1, 3, 4, 5, 6}


@given(
    st.lists(st.integers(0, LETTERS.vocab_size - 1), max_size=40),
    st.integers(0, 40),
    st.builds(
        SamplingParams,
        frequency_penalty=st.sampled_from([0.0, 0.5]),
        presence_penalty=st.sampled_from([0.0, 0.25]),
        dry_multiplier=st.sampled_from([0.0, 0.8]),
        dry_base=st.sampled_from([1.0, 1.75, 4.0]),
        dry_allowed_length=st.integers(1, 6),
    ),
)
def test_penalties_are_those_of_the_slow_oracle(window, n_written, params):
    n_written = min(n_written, len(window))
    found = penalties(params, window, n_written, breaker_tokens(LETTERS))
    expected = oracle.penalties(LETTERS, window, window[len(window) - n_written :], params)
    assert found == pytest.approx(expected)
    assert penalised(params) or not found
