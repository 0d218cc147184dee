"""How much of JSON is not text, told without reading it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.structure import is_plain

TEXTS = st.text(st.characters() | st.sampled_from('\\"[],{}'))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
)


def structure(value: object) -> int:
    """How many characters of it are not in texts, counted value by value."""
    if isinstance(value, str):
        return 2
    if isinstance(value, dict):
        return max(2, 1 + sum(4 + structure(inner) for inner in value.values()))
    if isinstance(value, list):
        return max(2, 1 + sum(1 + structure(inner) for inner in value))
    return len(json.dumps(value))


@given(JSON, st.booleans())
def test_what_is_counted_is_what_is_there(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=ascii_only)
    most = structure(value)
    assert is_plain(text, most)
    assert most == 0 or len(text) < most or not is_plain(text, most - 1)


@given(st.text(st.sampled_from('\\"[],ax'), max_size=40), st.integers(0, 40))
def test_nothing_that_can_be_read_hides_its_structure(text: str, most: int) -> None:
    try:
        value = json.loads(text)
    except ValueError:
        return
    assert is_plain(text, most) == (len(text) <= most or structure(value) <= most)


@pytest.mark.parametrize("piece", ["[],", "{},", '"",', "1,", ' "', "[", " "])
def test_a_packet_of_many_values_is_not_plain(piece: str) -> None:
    assert not is_plain(f'["x",{piece * 10_000}1]', 5000)


@pytest.mark.parametrize("text", ["a, b: [c] {d}", '"', "\\", '\\"', "\n", "\U0001f600", "\ud800"])
def test_a_long_text_is_plain_whatever_is_in_it(text: str) -> None:
    for ascii_only in (False, True):
        said = json.dumps(["x", {"output": text * 10_000}], ensure_ascii=ascii_only)
        assert is_plain(said, 20)
