"""Passages as a writer would get them: by the engine, at the model's suggested settings."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from storygen.catalogue import Catalogue, ModelInfo
from storygen.engine.interface import TokenScore
from storygen.engine.local import LocalEngine
from storygen.params import SamplingParams

SLOTS = 16


def write_passages(info: ModelInfo, prompts: Sequence[str]) -> list[str]:
    """How the model goes on with each prompt; the n-th with seed n."""
    return asyncio.run(_write(info, prompts))


def next_tokens(info: ModelInfo, prompt: str) -> list[TokenScore]:
    """Every token with its log-probability after the prompt, the most probable first."""
    return asyncio.run(_next(info, prompt))


async def _write(info: ModelInfo, prompts: Sequence[str]) -> list[str]:
    engine = await _engine(info, len(prompts))

    async def passage(seed: int, prompt: str) -> str:
        params = SamplingParams(**{**info.suggested, "seed": seed})
        async with aclosing(engine.stream(info.name, prompt, params)) as segments:
            return "".join([segment.text async for segment in segments])

    try:
        return await asyncio.gather(*(passage(n, prompt) for n, prompt in enumerate(prompts)))
    finally:
        await engine.close()


async def _next(info: ModelInfo, prompt: str) -> list[TokenScore]:
    engine = await _engine(info, 1)
    try:
        return await engine.next_tokens(info.name, prompt, info.vocab_size)
    finally:
        await engine.close()


async def _engine(info: ModelInfo, waiting: int) -> LocalEngine:
    """On the CPU, in fp32: the same passages on machines with a card and without."""
    catalogue = Catalogue(info.directory.parent)
    engine = LocalEngine(catalogue, device="cpu", dtype="fp32", slots=SLOTS, queue_size=waiting)
    await engine.start()
    return engine
