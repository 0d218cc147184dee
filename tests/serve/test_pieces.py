"""Fewer and larger pieces are the same passage."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.engine.interface import Segment, TokenScore
from storygen.errors import BusyError
from storygen.serve.pieces import joined, paced

words = st.builds(
    Segment,
    st.text(max_size=5),
    st.integers(0, 3),
    mark=st.text("abc", max_size=2),
    tokens=st.lists(st.builds(TokenScore, st.text(max_size=2), st.just(-1.0)), max_size=2).map(
        tuple
    ),
)
places = st.builds(lambda n: Segment("", 0, place=n), st.integers(0, 9))


def whole(segments: list[Segment]) -> tuple:
    """All that a passage says, however it is cut."""
    return (
        "".join(s.text for s in segments),
        sum(s.token_count for s in segments),
        "".join(s.mark for s in segments),
        sum((s.tokens for s in segments), ()),
        [s.finish_reason for s in segments if s.finish_reason],
        [s.place for s in segments if s.place is not None],
    )


async def said(*segments: Segment | Exception) -> AsyncIterator[Segment]:
    for segment in segments:
        if isinstance(segment, Exception):
            raise segment
        yield segment


@given(st.lists(words | places), st.sampled_from(["stop", "length", None]))
def test_joined_segments_say_the_same(segments, reason):
    segments = [*segments, Segment(".", 1, reason)]
    made = joined(segments)
    assert whole(made) == whole(segments)
    assert made[-1].finish_reason == reason
    assert all(a.place is not None or b.place is not None for a, b in pairwise(made))


@given(st.lists(words | places, max_size=8), st.sampled_from([0.0, 0.001]))
def test_paced_segments_say_the_same(segments, pause):
    segments = [*segments, Segment(".", 1, "stop")]

    async def read() -> list[Segment]:
        return [segment async for segment in paced(said(*segments), lambda: pause)]

    assert whole(asyncio.run(read())) == whole(segments)


async def test_the_first_piece_comes_at_once_and_what_follows_together():
    async def slow() -> AsyncIterator[Segment]:
        for n in range(40):
            yield Segment(f"{n} ", 1, "stop" if n == 39 else None)
            await asyncio.sleep(0.002)

    pieces = [segment async for segment in paced(slow(), lambda: 0.03)]
    assert pieces[0].text == "0 "
    assert len(pieces) < 20


async def test_nothing_waits_for_the_pause_when_the_passage_is_over():
    pieces = paced(said(Segment("a", 1), Segment("b", 1, "stop")), lambda: 3600.0)
    assert [segment async for segment in pieces][-1].finish_reason == "stop"


async def test_an_error_comes_after_what_was_written():
    pieces = paced(said(Segment("a", 1), BusyError("full")), lambda: 0.0)
    first = await anext(pieces)
    with pytest.raises(BusyError, match="full"):
        await anext(pieces)
    assert first.text == "a"


async def test_closing_ends_what_is_read():
    ended = asyncio.Event()

    async def endless() -> AsyncIterator[Segment]:
        try:
            while True:
                yield Segment("a", 1)
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    pieces = paced(endless(), lambda: 0.0)
    await anext(pieces)
    await pieces.aclose()
    assert ended.is_set()
