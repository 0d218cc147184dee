"""Whether a server that is the API alone can write, found out when it is asked."""

import asyncio
from contextlib import aclosing

from storygen import metrics
from storygen.engine.interface import Engine
from storygen.errors import BusyError, StorygenError
from storygen.machines import FIRST_WORDS, standstill
from storygen.params import SamplingParams


class Readiness:
    """Whether the first model can write: found out by having it write a token, once it could not be
    said before."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._has_written = False
        self._trying = asyncio.Lock()

    @property
    def is_alive(self) -> bool:
        """Whether the engine runs."""
        return self._engine.health().is_alive

    async def reason(self) -> str | None:
        """Why nothing can be written now; None when it can."""
        if (reason := standstill(self._engine)) is not None:
            return reason
        async with self._trying:
            failure = None if self._has_written else await self._failure()
        self._has_written = failure is None
        metrics.READY.set(failure is None)
        return failure

    async def _failure(self) -> str | None:
        models = self._engine.models()
        if not models:
            return "there is no model"
        params = SamplingParams(max_new_tokens=1, seed=0)
        try:
            stream = self._engine.stream(models[0].name, FIRST_WORDS, params)
            async with aclosing(stream) as segments:
                async for _ in segments:
                    pass
        except BusyError:  # so it writes
            return None
        except StorygenError as error:
            return f"the first model cannot write: {type(error).__name__}"
        return None
