"""What would speculation from the story's own words gain?

    python -m benchmarks.drafts [--passages 24]

Each shipped model writes passages of 500 tokens with its suggested settings. At each place the
longest stretch of at least `n` tokens that stood in the story before foretells the next ones, four
at most; those that were then drawn would have been computed in one step (Leviathan et al. 2023,
drafts by lookup as in Saxena's prompt lookup decoding). Prints, for each n, how often there is such
a draft, how often its first token is right, and how many tokens a step would have given: the gain
if checking a draft cost nothing, which is the most there could be.
"""

import argparse
import asyncio
from pathlib import Path

from storygen.catalogue import Catalogue, ModelInfo
from storygen.checkpoints import load
from storygen.engine.local import LocalEngine
from storygen.params import SamplingParams
from storygen.settings import ROOT, load_settings

LENGTH = 500  # tokens of a passage
LONGEST = 4  # tokens of a draft
MOST = 12  # tokens that are looked up
FEWEST = (1, 2, 3, 5, 8)


def drafted(ids: list[int], fewest: int) -> list[int]:
    """What followed the longest stretch before that the tokens end in, if it is long enough."""
    for n in range(min(MOST, len(ids) - 1), fewest - 1, -1):
        for start in range(len(ids) - n - 1, -1, -1):
            if ids[start : start + n] == ids[-n:]:
                return ids[start + n : start + n + LONGEST]
    return []


def gains(passages: list[tuple[list[int], int]], fewest: int) -> tuple[float, float, float]:
    """Shares of places with a draft and of drafts that begin right; tokens a step. Each passage is
    its tokens and where the model began."""
    steps = tokens = drafts = right = 0
    for ids, here in passages:
        while here < len(ids):
            draft = drafted(ids[:here], fewest)
            drafts += bool(draft)
            kept = 0
            while kept < len(draft) and here + kept < len(ids) and draft[kept] == ids[here + kept]:
                kept += 1
            right += kept > 0
            steps += 1
            taken = min(kept + 1, len(ids) - here)  # the step draws one more after those kept
            tokens += taken
            here += taken
    return drafts / steps, right / max(1, drafts), tokens / steps


async def written(engine: LocalEngine, info: ModelInfo, n: int) -> list[tuple[list[int], int]]:
    """Passages of a model as token ids, and where each begins after its opening line."""
    _, tokenizer = load(info.directory)
    found = []
    for seed in range(n):
        line = info.opening_lines[seed % len(info.opening_lines)]
        params = SamplingParams(**info.suggested | {"max_new_tokens": LENGTH, "seed": seed})
        text = "".join([s.text async for s in engine.stream(info.name, line, params)])
        found.append((tokenizer.encode(line + text), len(tokenizer.encode(line))))
    return found


async def measure(passages: int) -> None:
    """Print a row for each model and n."""
    native = Path(load_settings().data_dir) / "native"
    engine = LocalEngine(Catalogue(ROOT / "weights"), native=native)
    await engine.start()
    print(f"{'model':14}{'n':>3}{'with a draft':>14}{'begins right':>14}{'tokens a step':>15}")
    for info in engine.models():
        told = await written(engine, info, passages)
        for fewest in FEWEST:
            share, right, rate = gains(told, fewest)
            print(f"{info.name:14}{fewest:3}{share:14.1%}{right:14.1%}{rate:15.2f}", flush=True)
    await engine.close()


def main() -> None:
    """Print what there is to gain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=24)
    asyncio.run(measure(parser.parse_args().passages))


if __name__ == "__main__":
    main()
