import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from storygen.params import Row, SamplingParams
from storygen.sampling import (
    _splitmix64,
    adjusted,
    gumbel,
    min_p,
    repetition_penalty,
    sample,
    temperature,
    top_k,
    top_p,
)

PLAIN = {"temperature": 1.0, "top_k": 0}


def logits_of(*probabilities: float) -> torch.Tensor:
    """Logits (1, V) that mean these probabilities."""
    return torch.tensor([probabilities], dtype=torch.float64).log()


def row(
    position: int = 0,
    context: tuple[int, ...] = (),
    adjustments: tuple[tuple[int, float], ...] = (),
    **params: object,
) -> Row:
    return Row(SamplingParams(**{"seed": 1, **PLAIN, **params}), position, context, adjustments)


def kept(logits: torch.Tensor) -> list[list[int]]:
    """Ids of the tokens that a filter left in each row."""
    return [[i for i, x in enumerate(r) if x > -math.inf] for r in logits.tolist()]


def close(logits: torch.Tensor, probabilities: list[float]) -> bool:
    return torch.allclose(logits.softmax(-1), torch.tensor([probabilities], dtype=torch.float64))


# Temperature


def test_temperature_one_changes_nothing():
    assert close(temperature(logits_of(0.2, 0.3, 0.5), 1.0), [0.2, 0.3, 0.5])


def test_temperature_half_squares_the_odds():
    assert close(temperature(logits_of(0.2, 0.8), 0.5), [0.04 / 0.68, 0.64 / 0.68])


def test_temperature_two_takes_the_root_of_the_odds():
    assert close(temperature(logits_of(0.1, 0.9), 2.0), [0.25, 0.75])


def test_the_smallest_temperature_is_still_a_distribution():
    logits = torch.tensor([[1e300, 2e300, -3e300]], dtype=torch.float64)
    assert close(temperature(logits, 5e-324), [0, 1, 0])


# Top-k


def test_top_k_keeps_the_k_largest():
    assert kept(top_k(logits_of(0.1, 0.4, 0.2, 0.3), 2)) == [[1, 3]]


def test_top_k_keeps_what_equals_the_kth():
    assert kept(top_k(logits_of(0.2, 0.4, 0.2, 0.2), 2)) == [[0, 1, 2, 3]]


@pytest.mark.parametrize("k", [0, 3, 4, 100_000])
def test_top_k_off_or_as_large_as_the_vocabulary_keeps_all(k):
    assert kept(top_k(logits_of(0.5, 0.3, 0.2), k)) == [[0, 1, 2]]


def test_top_k_is_each_rows_own():
    logits = logits_of(0.1, 0.4, 0.2, 0.3).expand(3, 4)
    assert kept(top_k(logits, torch.tensor([[1], [3], [0]]))) == [[1], [1, 2, 3], [0, 1, 2, 3]]


# Top-p


def test_top_p_keeps_the_token_that_crosses_the_threshold():
    assert kept(top_p(logits_of(0.15, 0.5, 0.05, 0.3), 0.6)) == [[1, 3]]


def test_top_p_stops_where_the_threshold_is_reached_exactly():
    assert kept(top_p(logits_of(0.25, 0.5, 0.25), 0.5)) == [[1]]


def test_top_p_keeps_the_first_token_however_small_p_is():
    assert kept(top_p(logits_of(0.15, 0.5, 0.35), 1e-300)) == [[1]]


def test_top_p_keeps_equal_tokens_together():
    assert kept(top_p(logits_of(0.25, 0.25, 0.25, 0.25), 0.3)) == [[0, 1, 2, 3]]


def test_top_p_one_keeps_even_what_rounding_hides():
    assert kept(top_p(torch.tensor([[0.0, -40.0, -700.0]]).double(), 1.0)) == [[0, 1, 2]]


def test_top_p_is_each_rows_own():
    logits = logits_of(0.15, 0.5, 0.05, 0.3).expand(3, 4)
    rows = top_p(logits, torch.tensor([[0.4], [0.9], [1.0]]))
    assert kept(rows) == [[1], [0, 1, 3], [0, 1, 2, 3]]


# Min-p


def test_min_p_is_relative_to_the_most_probable():
    assert kept(min_p(logits_of(0.4, 0.19, 0.21, 0.2), 0.5)) == [[0, 2, 3]]


def test_min_p_zero_keeps_all_and_one_only_the_best():
    logits = logits_of(0.4, 0.4, 0.2).expand(2, 3)
    assert kept(min_p(logits, torch.tensor([[0.0], [1.0]]))) == [[0, 1, 2], [0, 1]]


# Repetition penalty


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_once():
    logits = torch.tensor([[2.0, -2.0, 3.0, -3.0], [1.0, 1.0, 1.0, 1.0]])
    penalised = repetition_penalty(logits, [(0, 1, 1, 0), (3,)], [2.0, 1.0])
    assert penalised.tolist() == [[1.0, -4.0, 3.0, -3.0], [1.0, 1.0, 1.0, 1.0]]
    assert logits[0].tolist() == [2.0, -2.0, 3.0, -3.0]


def test_repetition_penalty_of_an_empty_context_changes_nothing():
    logits = torch.tensor([[2.0, -2.0]])
    assert torch.equal(repetition_penalty(logits, [()], [1.5]), logits)


# Adjustments


def test_adjustments_are_added_to_the_logits_of_their_row_alone():
    logits = torch.tensor([[2.0, -2.0, 3.0], [1.0, 1.0, 1.0]])
    added = adjusted(logits, [((0, -0.5), (2, -math.inf)), ()])
    assert added.tolist() == [[1.5, -2.0, -math.inf], [1.0, 1.0, 1.0]]
    assert logits[0].tolist() == [2.0, -2.0, 3.0]


@pytest.mark.parametrize(
    "params", [{}, {"top_k": 1}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.5}, {"temperature": 0.0}]
)
def test_a_forbidden_token_is_never_drawn_and_the_rest_take_its_place(params):
    logits = torch.tensor([[9.0, 1.0, 8.0]])
    rows = [
        row(position=n, adjustments=((0, -math.inf), (2, -math.inf)), **params) for n in range(20)
    ]
    assert {token for r in rows for token in sample(logits, [r])} == {1}


def test_adjustments_come_after_the_repetition_penalty_and_before_temperature():
    # 4 / 2 - 1 = 1 for the first, 2 for the second: at temperature 0.5 odds of e squared.
    logits = torch.tensor([[4.0, 2.0]])
    rows = [
        row(
            position=n,
            context=(0,),
            adjustments=((0, -1.0),),
            repetition_penalty=2.0,
            temperature=0.5,
        )
        for n in range(4000)
    ]
    share = sum(sample(logits.expand(4000, 2), rows)) / 4000
    assert share == pytest.approx(math.e**2 / (1 + math.e**2), abs=0.02)


# All filters against an independent implementation


@pytest.mark.parametrize("seed", range(5))
def test_filters_agree_with_transformers(seed):
    torch.manual_seed(seed)
    logits, context = torch.randn(3, 50, dtype=torch.float64) * 3, torch.randint(50, (3, 8))
    pairs = [
        (top_k(logits, 7), TopKLogitsWarper(7)),
        (top_p(logits, 0.85), TopPLogitsWarper(0.85)),
        (min_p(logits, 0.07), MinPLogitsWarper(0.07)),
        (
            repetition_penalty(logits, context.tolist(), [1.3] * 3),
            RepetitionPenaltyLogitsProcessor(1.3),
        ),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs(context, logits.clone()))


# Randomness


def noise(seeds=(0,), positions=(0,), ids=(0,)):
    """Gumbel noise (B, N) as a flat list, B being the seeds or the positions."""
    columns = [torch.tensor(values)[:, None] for values in (seeds, positions)]
    return gumbel(*columns, torch.tensor([ids])).flatten().tolist()


def test_splitmix64_gives_the_published_numbers():
    # The reference implementation's first outputs for seed 1234567.
    outputs = _splitmix64(torch.tensor(1234567), torch.arange(4)).tolist()
    assert [n % 2**64 for n in outputs] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
    ]


def test_noise_is_a_function_of_seed_position_and_token():
    assert noise([7], [11], range(50))[13] == noise([7], [11], [13])[0]
    grid = {x for seed in range(30) for x in noise([seed], range(30), range(30))}
    assert len(grid) == 30**3  # as float32, some twenty would coincide


@pytest.mark.parametrize("vary", ["seeds", "positions", "ids"])
def test_noise_has_gumbels_distribution(vary):
    numbers = noise(**{vary: range(10_000)})
    tenths = Counter(int(10 * math.exp(-math.exp(-x))) for x in numbers)
    assert all(900 < tenths[t] < 1100 for t in range(10))  # 1000 +- 3.5 standard deviations


def test_noise_is_finite_for_the_largest_seed_position_and_token():
    assert all(map(math.isfinite, noise([2**63 - 1], [2**40], [100_000])))


def test_rounding_in_the_logits_hardly_ever_changes_a_token():
    torch.manual_seed(0)
    logits = torch.randn(500, 8192) * 2.5
    rows = [row(position=n) for n in range(500)]
    assert sample(logits + torch.randn_like(logits) * 1e-5, rows) == sample(logits, rows)


# Together


def test_sampled_frequencies_are_the_probabilities():
    rows = [row(position=n) for n in range(10_000)]
    counts = Counter(sample(logits_of(0.1, 0.2, 0.3, 0.4).expand(10_000, 4), rows))
    for token, probability in enumerate((0.1, 0.2, 0.3, 0.4)):
        assert abs(counts[token] / 10_000 - probability) < 0.015  # three standard deviations


def test_sampled_frequencies_after_filters_are_those_worked_out_by_hand():
    # Top-k 3 leaves 0.4, 0.3, 0.2; of their 0.9, top-p 0.7 leaves the first two: 4/7 and 3/7.
    rows = [row(position=n, top_k=3, top_p=0.7) for n in range(5_000)]
    counts = Counter(sample(logits_of(0.1, 0.2, 0.3, 0.4).expand(5_000, 4), rows))
    assert set(counts) == {2, 3}
    assert abs(counts[3] / 5_000 - 4 / 7) < 0.021


def test_a_tie_across_the_edge_of_top_k_is_drawn_from_as_a_whole():
    rows = [row(position=n, top_k=2) for n in range(100)]
    assert set(sample(logits_of(0.1, 0.3, 0.3, 0.3).expand(100, 4), rows)) == {1, 2, 3}


def test_temperature_zero_is_greedy_whatever_the_seed():
    logits = torch.tensor([[0.1, 2.0, 1.9]])
    greedy = [sample(logits, [row(temperature=0.0, seed=seed)]) for seed in range(20)]
    assert greedy == [[1]] * 20


def test_greedy_minds_the_repetition_penalty():
    logits = torch.tensor([[0.1, 2.0, 1.9]])
    assert sample(logits, [row(temperature=0.0, repetition_penalty=1.2, context=(1,))]) == [2]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("params", [{"temperature": 0.0}, {}, {"top_k": 2}, {"top_p": 0.5}])
def test_a_row_that_is_no_number_gives_none_and_harms_no_other(broken, params):
    good = torch.tensor([0.1, 2.0, 1.9, 0.5])
    logits = torch.stack([good, good, good])
    logits[1, 2] = broken
    rows = [row(position=4, **params) for _ in range(3)]
    alone = sample(good[None], rows[:1])
    assert sample(logits, rows) == [*alone, None, *alone]


some_params = st.builds(
    row,
    position=st.integers(0, 10_000),
    context=st.lists(st.integers(0, 29), max_size=5).map(tuple),
    seed=st.integers(0, 2**63 - 1),
    temperature=st.sampled_from([0.0, 1e-300, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 5, 29, 30, 31, 1000]),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    repetition_penalty=st.sampled_from([1.0, 1.3, 2.0]),
    adjustments=st.dictionaries(
        st.integers(0, 28), st.sampled_from([-math.inf, -2.0, 0.5]), max_size=5
    ).map(lambda found: tuple(found.items())),
)


@given(st.lists(some_params, min_size=1, max_size=6), st.integers(0, 2**32), st.booleans())
def test_a_row_depends_on_its_own_logits_and_settings_only(rows, seed, ties):
    torch.manual_seed(seed)
    logits = torch.randn(len(rows), 30) * 2
    logits = logits.round() if ties else logits
    alone = [sample(logits[i : i + 1], [row])[0] for i, row in enumerate(rows)]
    assert sample(logits, rows) == alone


@given(some_params, st.lists(st.floats(width=32), min_size=30, max_size=30))
def test_any_logits_give_a_token_that_the_filters_left_or_none(row, values):
    logits = torch.tensor([values])
    [token] = sample(logits, [row])
    if not all(map(math.isfinite, values)):
        assert token is None
    elif token is not None:
        assert 0 <= token < 30
    else:
        assert max(map(abs, values)) > 1e36  # their sum overflows: no trained model's logits


def test_a_row_of_halves_whose_sum_overflows_is_sampled():
    """On a T4 logits are fp16: 8,192 of -20 are finite, and their sum is not."""
    logits = torch.full((1, 8192), -20.0).half()
    assert sample(logits, [Row(SamplingParams(seed=1), 3, ())])[0] is not None
