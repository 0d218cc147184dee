"""What an engine far away sends: fewer and larger pieces, each of which costs the same to send."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from dataclasses import replace

from storygen.engine.interface import Segment


def joined(segments: Iterable[Segment]) -> list[Segment]:
    """The same passage in as few segments as it takes; one with a place stays by itself."""
    made: list[Segment] = []
    for segment in segments:
        last = made[-1] if made else None
        if last is None or last.place is not None or segment.place is not None:
            made.append(segment)
        else:
            made[-1] = replace(
                segment,
                text=last.text + segment.text,
                token_count=last.token_count + segment.token_count,
                mark=last.mark + segment.mark,
                tokens=last.tokens + segment.tokens,
            )
    return made


async def paced(
    segments: AsyncIterator[Segment], pause: Callable[[], float]
) -> AsyncGenerator[Segment, None]:
    """The first segment at once, then what has come within pause() seconds of the last one, joined.
    Closing it ends `segments`, and its errors are raised after what came before them."""
    held: list[Segment] = []
    came = asyncio.Event()

    async def read() -> None:
        try:
            async for segment in segments:
                held.append(segment)
                came.set()
        finally:
            came.set()

    reading = asyncio.create_task(read())
    try:
        while not reading.done() or held:
            await came.wait()
            pieces = joined(held)
            held.clear()
            came.clear()
            for piece in pieces:
                yield piece
            if not reading.done():
                await asyncio.wait([reading], timeout=pause())
            if reading.done():
                came.set()
        await reading
    finally:
        reading.cancel()
        await asyncio.wait([reading])
