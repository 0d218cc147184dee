"""Choices: the passages of a completions request, each prompt's n, several written at a time."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from storygen.engine.interface import Engine, Segment
from storygen.errors import EngineError
from storygen.metrics import PassageTimer
from storygen.params import MAX_SEED
from storygen.serve.asked import Asked

AT_ONCE = 4  # of one request; the others wait here, not in the engine's line
MOST_AHEAD = 64  # segments that a request's client has yet to read

T = TypeVar("T")
Numbered = tuple[int, Segment]


def seeded(asked: Asked) -> Asked:
    """The request with a seed, drawn where none was given."""
    if asked.params.seed is not None or (asked.details is not None and asked.details.after):
        return asked
    seed = secrets.randbelow(2**53)  # which every reader of JSON can hold
    return replace(asked, params=replace(asked.params, seed=seed))


def written(engine: Engine, asked: Asked, user: str) -> AsyncGenerator[Numbered, None]:
    """The segments of all choices with the numbers of these, as they come."""

    def choice(number: int) -> Callable[[], AsyncGenerator[Segment, None]]:
        prompt, i = divmod(number, asked.n)
        params = asked.params
        if params.seed is not None:
            params = replace(params, seed=(params.seed + i) % (MAX_SEED + 1))
        return lambda: _watched(
            engine.stream(
                asked.model, asked.prompts[prompt], params, user=user, details=asked.details
            )
        )

    return merged([choice(number) for number in range(len(asked.prompts) * asked.n)])


async def merged(
    streams: Sequence[Callable[[], AsyncGenerator[T, None]]],
) -> AsyncGenerator[tuple[int, T], None]:
    """What comes of several streams, each with its number, AT_ONCE of them at a time. The first
    error ends all of them, and so does leaving.

    They wait for whoever reads. Ends and errors need no room, so that one that is told while all
    are cancelled waits for nobody."""
    inbox = asyncio.Queue[tuple[int, T] | Exception | None]()
    turn, room = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(MOST_AHEAD)

    async def play(number: int) -> None:
        try:
            async with turn, aclosing(streams[number]()) as pieces:
                async for piece in pieces:
                    await room.acquire()
                    inbox.put_nowait((number, piece))
        except Exception as error:
            inbox.put_nowait(error)
        inbox.put_nowait(None)

    tasks = [asyncio.create_task(play(number)) for number in range(len(streams))]
    left = len(tasks)
    try:
        while left:
            news = await inbox.get()
            if isinstance(news, Exception):
                raise news
            if news is None:
                left -= 1
            else:
                room.release()
                yield news
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _watched(stream: AsyncGenerator[Segment, None]) -> AsyncGenerator[Segment, None]:
    """A passage, counted; one that was cut off by the engine is an error."""
    timer, reason = PassageTimer(), "cancelled"
    try:
        async with aclosing(stream) as segments:
            async for segment in segments:
                timer.took(segment.token_count)
                if segment.finish_reason in {"cancelled", "error"}:
                    raise EngineError("The engine stopped before the passage's end. Try again.")
                reason = segment.finish_reason or reason
                yield segment
    except Exception:
        reason = "error"
        raise
    finally:
        timer.ended(reason)
