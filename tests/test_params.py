import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.errors import ParamsError
from storygen.params import MAX_SEED, RANGES, SamplingParams, checked

WHOLE = [name for name, (kind, _, _) in RANGES.items() if kind is int]


def test_defaults_are_within_their_ranges():
    params = SamplingParams()
    assert all(
        low <= getattr(params, name) <= high
        for name, (_, low, high) in RANGES.items()
        if name != "seed"
    )


def test_every_number_has_a_range():
    fields = {field.name for field in dataclasses.fields(SamplingParams)}
    assert fields - set(RANGES) == {"stop", "banned", "end_at_sentence", "loop_guard"}


@pytest.mark.parametrize("name", RANGES)
def test_both_ends_of_a_range_are_allowed(name):
    kind, low, high = RANGES[name]
    for end in (low, high):
        if (name, end) != ("top_p", 0):
            value = getattr(SamplingParams(**{name: end}), name)
            assert value == end
            assert type(value) is kind


@pytest.mark.parametrize("name", RANGES)
def test_a_value_out_of_range_is_refused_with_name_value_and_bounds(name):
    _, low, high = RANGES[name]
    with pytest.raises(ParamsError, match=rf"^{name} is .*from {low:g} to "):
        SamplingParams(**{name: low - 1})
    with pytest.raises(ParamsError, match=f"^{name} is "):
        SamplingParams(**{name: 2 * high + 1})


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", [True, "1", [1], {}, None, math.nan, math.inf, -math.inf, b"1"])
def test_a_value_of_the_wrong_kind_is_refused(name, value):
    if (name, value) != ("seed", None):
        with pytest.raises(ParamsError, match=f"^{name} must be a "):
            SamplingParams(**{name: value})


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_may_come_as_a_float_but_not_with_a_fraction(name):
    assert type(getattr(SamplingParams(**{name: 3.0}), name)) is int
    with pytest.raises(ParamsError, match="a whole number"):
        SamplingParams(**{name: 3.5})


def test_the_largest_seed_is_kept_exactly():
    assert SamplingParams(seed=MAX_SEED).seed == MAX_SEED


@pytest.mark.parametrize(
    "value", [10**5000, -(10**400), "x" * 10**6, [[]] * 1000], ids=["huge", "low", "text", "list"]
)
def test_a_refusal_is_short_however_large_the_value(value):
    with pytest.raises(ParamsError) as error:
        SamplingParams(max_new_tokens=value)
    assert len(str(error.value)) < 200


def test_top_p_zero_is_refused():
    with pytest.raises(ParamsError, match="top_p is 0"):
        SamplingParams(top_p=0.0)


@pytest.mark.parametrize(
    ("stop", "banned"),
    [
        *((wrong, wrong) for wrong in ("END", None, 5, [""], [1], {"a"}, [["a"]], (None,))),
        (["a" * 201], ["a" * 101]),
        (["x"] * 9, ["x"] * 65),
    ],
    ids=str,
)
def test_stop_and_banned_must_be_a_few_short_texts(stop, banned):
    with pytest.raises(ParamsError, match="stop"):
        SamplingParams(stop=stop)
    with pytest.raises(ParamsError, match="banned"):
        SamplingParams(banned=banned)


def test_a_banned_phrase_of_white_space_alone_is_refused():
    with pytest.raises(ParamsError, match=r"banned has ' \\n': each must have a letter"):
        SamplingParams(banned=(" \n",))


@pytest.mark.parametrize("name", ["end_at_sentence", "loop_guard"])
@pytest.mark.parametrize("value", [0, 1, "yes", None, []])
def test_a_switch_is_true_or_false(name, value):
    with pytest.raises(ParamsError, match=f"{name} must be true or false"):
        SamplingParams(**{name: value})


def test_a_list_of_stop_texts_becomes_a_tuple_so_that_params_can_be_hashed():
    params = SamplingParams(stop=["THE END"])
    assert params.stop == ("THE END",)
    assert hash(params) == hash(SamplingParams(stop=("THE END",)))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=3,
)


@given(st.sampled_from(sorted(RANGES)), anything)
def test_any_value_is_in_range_afterwards_or_refused(name, value):
    kind, low, high = RANGES[name]
    try:
        number = checked(name, value)
    except ParamsError:
        return
    assert type(number) is kind
    assert low <= number <= high
