"""A passage whose writer is lost goes on elsewhere, without losing or doubling a word."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.engine.interface import Details, Segment
from storygen.errors import BusyError, EngineError
from storygen.serve.elsewhere import MOST_LOSSES, LostError, going_on

WORDS = [f"{n} " for n in range(12)]
LAST = "length"


class Writers:
    """Each writes some words from where it is told to, and is lost, or ends the passage.

    A mark is a letter for each word. A writer that ends says what it holds back before.
    """

    def __init__(self, *lives: int, way: str = "lost"):
        self.lives, self.way, self.asked = list(lives), way, []

    async def begin(self, details: Details) -> AsyncGenerator[Segment, None]:
        self.asked.append(details)
        life = self.lives.pop(0) if self.lives else len(WORDS)
        for n in range(len(details.after), len(WORDS)):
            if life == 0:
                if self.way == "lost":
                    raise LostError("gone")
                yield Segment("what was held back", 1, "cancelled")
                return
            life -= 1
            yield Segment(WORDS[n], 1, mark="m")
        yield Segment("", 0, LAST)


async def written(writers: Writers, details: Details | None = None) -> list[Segment]:
    return [s async for s in going_on(writers.begin, details, first_pause=0.0)]


@given(st.lists(st.integers(1, 5), max_size=6), st.sampled_from(["lost", "cancelled"]))
def test_the_passage_is_whole_wherever_writers_are_lost(lives, way):
    segments = asyncio.run(written(Writers(*lives, way=way)))
    assert "".join(s.text for s in segments) == "".join(WORDS)
    assert sum(s.token_count for s in segments) == len(WORDS)
    assert [s.finish_reason for s in segments if s.finish_reason] == [LAST]


async def test_each_goes_on_after_the_marks_of_those_before():
    writers = Writers(3, 2)
    await written(writers)
    assert [details.after for details in writers.asked] == ["", "mmm", "mmmmm"]


async def test_marks_are_shown_to_those_who_asked_for_details_alone():
    details = Details(logprobs=2, after="mm")
    writers = Writers(1)
    assert {s.mark for s in await written(Writers(1))} == {""}
    segments = await written(writers, details)
    assert "".join(s.mark for s in segments) == "m" * 10
    assert writers.asked == [details, Details(logprobs=2, after="mmm")]


async def test_who_is_lost_before_a_word_again_and_again_is_an_error():
    writers = Writers(*[0] * 50)
    with pytest.raises(EngineError, match=f"lost {MOST_LOSSES + 1} times in a row"):
        await written(writers)
    assert len(writers.asked) == MOST_LOSSES + 1


async def test_an_error_is_passed_on_and_nothing_is_tried_again():
    async def refuse(writers: list[int], details: Details) -> AsyncGenerator[Segment, None]:
        writers.append(1)
        raise BusyError("full")
        yield

    asked: list[int] = []
    with pytest.raises(BusyError, match="full"):
        await anext(going_on(partial(refuse, asked)))
    assert asked == [1]


async def test_closing_it_closes_who_writes():
    closed = []

    async def begin(details: Details) -> AsyncGenerator[Segment, None]:
        try:
            while True:
                yield Segment("a", 1, mark="m")
        finally:
            closed.append(True)

    passage = going_on(begin)
    await anext(passage)
    await passage.aclose()
    assert closed == [True]
