"""That the event loop goes on while something waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def living_loop() -> AsyncIterator[None]:
    """Asserts that other tasks had their turns while the block ran."""
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.01)
            beats += 1

    heart = asyncio.create_task(beat())
    try:
        yield
    finally:
        heart.cancel()
    assert beats >= 10
