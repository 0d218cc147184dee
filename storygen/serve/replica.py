"""Replica: an engine for some models, asked from afar, one of several for the same ones."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from storygen.engine.interface import Details, Engine, Segment
from storygen.errors import EngineError, StorygenError
from storygen.params import SamplingParams
from storygen.serve.affinity import story_key
from storygen.serve.pieces import paced

MESSAGES = 40  # a second at most: each costs half a thousandth of it, however little it says

Question = Literal["score", "next_tokens", "next_words"]


@dataclass(frozen=True)
class Story:
    """What is to be gone on with, by which it is known again."""

    model: str
    prompt: str
    user: str = ""

    @property
    def key(self) -> str:
        """The same for as long as the story is gone on with."""
        return story_key(self.model, self.user, self.prompt)


class Replica:
    """What a StorygenError says must arrive as it is: it is sent as a value, not raised."""

    async def __init__(  # type: ignore[misc]  # Ray Serve waits for it
        self, make: Callable[[], Engine], first: str
    ) -> None:
        """Ready when the first model has been opened."""
        self._writing = 0
        self._engine = make()
        await self._engine.start()
        await self._engine.next_tokens(first, "The", 1)

    async def stream(
        self, story: Story, params: SamplingParams, details: Details
    ) -> AsyncGenerator[Segment | StorygenError, None]:
        """The passage that follows."""
        self._writing += 1
        passage = self._engine.stream(
            story.model, story.prompt, params, user=story.user, details=details
        )
        try:
            async with aclosing(paced(passage, self._pause)) as segments:
                async for segment in segments:
                    yield segment
        except StorygenError as error:
            yield error
        finally:
            self._writing -= 1

    async def ask(self, story: Story, question: Question, rest: dict[str, Any]) -> Any:
        """What the engine answers about a text."""
        answer = getattr(self._engine, question)
        try:
            return await answer(story.model, story.prompt, **rest, user=story.user)
        except StorygenError as error:
            return error

    async def check_health(self) -> None:
        """Raises EngineError where another replica should take this one's place."""
        if not self._engine.health().is_alive:
            raise EngineError("The engine of this replica has stopped.")

    async def record_routing_stats(self) -> dict[str, Any]:
        """The models in memory here, for whoever chooses among replicas."""
        return {"models": list(self._engine.health().models)}

    def _pause(self) -> float:
        return self._writing / MESSAGES
