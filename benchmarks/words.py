"""How long the likeliest whole words take to find, after a story that was read before.

    python -m benchmarks.words [MODEL ...] [--threads 2] [--rounds 5]

Each model that ships is asked for 8 and for 20 words at four places of each of the tests' three
excerpts, after at most 2,000 characters. Prints the median milliseconds of the quickest of these
places, the middle one and the slowest.
"""

import argparse
import asyncio
import statistics
import time

from storygen.catalogue import Catalogue
from storygen.engine.local import LocalEngine
from storygen.settings import ROOT, load_settings

PLACES = 4  # of an excerpt
BEFORE = 2000  # characters, of which the models read what their context has room for
WORDS = (8, 20)


def prompts() -> list[str]:
    """Texts that end in the middle of a sentence, mostly."""
    return [
        text[: len(text) * place // PLACES].rsplit(None, 1)[0][-BEFORE:]
        for text in (path.read_text("utf-8") for path in sorted(ROOT.glob("tests/data/*.txt")))
        for place in range(1, PLACES + 1)
    ]


async def measured(engine: LocalEngine, model: str, n: int, rounds: int) -> list[float]:
    """Milliseconds for n words after each prompt, from the quickest to the slowest."""
    found = []
    for prompt in prompts():
        await engine.next_words(model, prompt, n)
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            await engine.next_words(model, prompt, n)
            times.append(1000 * (time.perf_counter() - began))
        found.append(statistics.median(times))
    return sorted(found)


async def measure(args: argparse.Namespace) -> None:
    """Print a row for each model and number of words."""
    engine = LocalEngine(
        Catalogue(ROOT / "weights"), native=load_settings().native_dir, threads=args.threads
    )
    await engine.start()
    for info in engine.models():
        if args.models and info.name not in args.models:
            continue
        for n in WORDS:
            times = await measured(engine, info.name, n, args.rounds)
            told = " ".join(f"{t:6.1f}" for t in (times[0], statistics.median(times), times[-1]))
            print(f"{info.name:12} {n:2} words {told} ms")
    await engine.close()


def main() -> None:
    """Measure what is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
