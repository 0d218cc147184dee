"""Tokens per second, time to the first token and memory of our models as the chat runs them.

    python benchmarks/decode.py [--rounds 5] [MODEL ...]

A fresh process for each model; one writer and eight at once take turns, medians over the rounds.
The prompt has 128 tokens' worth of words, each passage 128 tokens. Prints one row a model.
"""

import argparse
import asyncio
import multiprocessing
import resource
import statistics
import sys
import time
from contextlib import aclosing
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from storygen.catalogue import Catalogue  # noqa: E402
from storygen.engine.local import LocalEngine  # noqa: E402
from storygen.params import SamplingParams  # noqa: E402

PROMPT = "The inspector looked at the letter, and then at the man who had brought it. " * 8
TOKENS = 128


async def passage(engine: LocalEngine, model: str, seed: int) -> tuple[float, int]:
    """Seconds to the first text, and tokens, of one passage."""
    params = SamplingParams(max_new_tokens=TOKENS, temperature=0.8, top_k=50, seed=seed)
    began, first, tokens = time.perf_counter(), 0.0, 0
    async with aclosing(engine.stream(model, PROMPT, params)) as segments:
        async for segment in segments:
            first = first or time.perf_counter() - began
            tokens += segment.token_count
    return first, tokens


async def measure(model: str, rounds: int) -> dict[str, float]:
    """Medians for one writer and for eight."""
    engine = LocalEngine(Catalogue(ROOT / "weights"))
    await engine.start()
    figures: dict[str, list[float]] = {"one": [], "eight": [], "first": []}
    for seed in range(-1, rounds):  # the first round warms up
        for writers, name in ((1, "one"), (8, "eight")):
            began = time.perf_counter()
            passages = await asyncio.gather(
                *(passage(engine, model, 100 * (seed + 1) + n) for n in range(writers))
            )
            seconds = time.perf_counter() - began
            if seed >= 0:
                figures[name].append(sum(tokens for _, tokens in passages) / seconds)
                if writers == 1:
                    figures["first"].append(1000 * passages[0][0])
    await engine.close()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {name: statistics.median(values) for name, values in figures.items()} | {"MB": memory}


def _row(model: str, rounds: int) -> None:
    found = asyncio.run(measure(model, rounds))
    print(
        f"{model:16} one writer {found['one']:6.0f} tokens/s, first after {found['first']:4.0f} ms"
        f"   eight {found['eight']:6.0f} tokens/s   {found['MB']:5.0f} MB",
        flush=True,
    )


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    args = parser.parse_args()
    names = args.models or [info.name for info in Catalogue(ROOT / "weights").models()]
    for name in names:
        process = multiprocessing.get_context("spawn").Process(
            target=_row, args=(name, args.rounds)
        )
        process.start()
        process.join()


if __name__ == "__main__":
    main()
