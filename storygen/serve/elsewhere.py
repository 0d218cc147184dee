"""Going on elsewhere: whoever writes a passage may be lost, and nobody reads any of that."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from storygen.engine.interface import Details, Segment
from storygen.errors import EngineError

MOST_LOSSES = 5  # in a row, without a word in between
FIRST_PAUSE = 0.1  # seconds, and twice as long after each loss

Begin = Callable[[Details], AsyncGenerator[Segment, None]]


class LostError(EngineError):
    """Whoever wrote a passage is gone."""


async def going_on(
    begin: Begin, details: Details | None = None, first_pause: float = FIRST_PAUSE
) -> AsyncGenerator[Segment, None]:
    """A passage whole, whatever becomes of those who write it. begin starts one after the marks of
    its details; it raises LostError, or says `cancelled`, where it cannot end. Raises EngineError
    when that happens again and again."""
    asked = details or Details()
    after, losses = asked.after, 0
    while True:
        try:
            async with aclosing(begin(replace(asked, after=after))) as segments:
                async for segment in segments:
                    if segment.finish_reason == "cancelled":
                        break
                    if segment.mark:
                        after, losses = after + segment.mark, 0
                    yield segment if details else replace(segment, mark="", tokens=())
                    if segment.finish_reason is not None:
                        return
        except LostError:
            pass
        losses += 1
        if losses > MOST_LOSSES:
            raise EngineError(
                f"What writes this passage was lost {losses} times in a row. What was written is "
                "kept. Try again in a moment."
            )
        await asyncio.sleep(first_pause * 2 ** (losses - 1))
