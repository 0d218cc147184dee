"""Engines on tiny models, and the oracle that they must equal."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from storygen.catalogue import Catalogue
from storygen.engine.interface import Details, Segment
from storygen.engine.local import LocalEngine
from storygen.engine.runner import Runner
from storygen.params import SamplingParams

MakeEngine = Callable[..., Any]


@pytest.fixture
async def make_engine(tiny_weights: Path, native_folder: Path) -> AsyncIterator[MakeEngine]:
    """Starts LocalEngines on the tiny weights and closes them in the end."""
    async with AsyncExitStack() as stack:

        async def make(weights: Path = tiny_weights, **options: Any) -> LocalEngine:
            options = {"dtype": "fp32", "threads": 1, "native": native_folder, **options}
            engine = LocalEngine(Catalogue(weights), device="cpu", **options)
            await engine.start()
            stack.push_async_callback(engine.close)
            return engine

        yield make


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 5 ms at least, so that a passage of 4,096 tokens outlasts anything beside it."""
    step = Runner.step

    def slowly(*values: Any) -> Any:
        time.sleep(0.005)
        return step(*values)

    monkeypatch.setattr(Runner, "step", slowly)


@pytest.fixture
async def engine(make_engine: MakeEngine) -> LocalEngine:
    """A LocalEngine with four slots."""
    return await make_engine(slots=4)


async def write(
    engine: LocalEngine,
    prompt: str = "It was a dark night",
    model: str = "tiny",
    details: Details | None = None,
    **params: Any,
) -> list[Segment]:
    """All segments of one passage, seed 1 if not said otherwise."""
    params = {"seed": 1, "max_new_tokens": 20, "top_k": 0, **params}
    stream = engine.stream(model, prompt, SamplingParams(**params), details=details)
    return [segment async for segment in stream if segment.place is None]


async def token(stream: AsyncGenerator[Segment, None]) -> Segment:
    """The next segment with text."""
    while (segment := await anext(stream)).place is not None:
        pass
    return segment


def text_of(segments: list[Segment]) -> str:
    """The passage that segments make up."""
    return "".join(segment.text for segment in segments)
