"""Server-sent events, however the network divides them, and what is none."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.engine.sse import MAX_EVENT, EventError, Events

STREAM = (
    "\ufeffdata: one\n\n: a comment\n\ndata:two\r\ndata:  lines\r\n\r\nid: 7\rdata: drei€\r\r"
    "event: ping\n\ndata: unended\n"
).encode()
DATA = ["one", "two\n lines", "drei€"]


def fed(*pieces: bytes) -> list[str]:
    events = Events()
    return [data for piece in pieces for data in events.feed(piece)]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_however_the_bytes_are_divided(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(places)]
    assert fed(*pieces) == DATA


def test_a_single_byte_at_a_time_is_enough() -> None:
    assert fed(*(bytes([byte]) for byte in STREAM)) == DATA


def test_an_event_that_has_not_ended_is_none() -> None:
    assert fed(b"data: one\n") == []


@pytest.mark.parametrize("piece", [b"x" * 70_000, b"data: " + b"x" * 70_000, b"data: x\n" * 9_000])
def test_an_event_without_end_is_an_error_before_it_fills_the_memory(piece: bytes) -> None:
    with pytest.raises(EventError, match="without end"):
        fed(*[piece] * (MAX_EVENT // 9_000 + 2))


def test_what_is_no_text_is_an_error() -> None:
    with pytest.raises(EventError, match="UTF-8"):
        fed(b"data: \xff\xfe\n\n")
