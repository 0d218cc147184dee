"""What checking guesses gains: tokens a second with speculation and without.

    python -m benchmarks.speculation [MODEL ...] [--writers 1] [--rounds 12] [--length 256]

MODEL is one that ships, or NAME-wide: its prose from a network of the size of GPT-2, widened by
benchmarks.models.widened. Two engines that differ in this alone write the same passages in turns,
with each model's suggested settings; they must be the same to the letter. Prints the medians, of
the ratios within a round the median and the least, and how many tokens a step would give with one,
two and three guesses: by the table that comes with the model, and by the story's own words alone.
"""

import argparse
import asyncio
import math
import shutil
import statistics
import time
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.models import widened
from storygen.catalogue import Catalogue, ModelInfo
from storygen.checkpoints import load, load_tokenizer, save
from storygen.checkpoints.adapter_files import base_of
from storygen.checkpoints.ngrams import FILE, read_ngrams
from storygen.engine.local import LocalEngine
from storygen.engine.speculation import Speculation
from storygen.params import SamplingParams
from storygen.settings import ROOT, load_settings

TIMES, LAYERS = 3, 10
WARM = 2  # rounds before those that count
TURN = 1.0  # seconds at the least
PASSAGES = 24  # that are looked at for what foretells them


def laid_out(names: list[str], folder: Path) -> None:
    """Put the models into a weights directory."""
    for model in (ROOT / "weights").iterdir():
        (folder / model.name).symlink_to(model)
    for name in names:
        if name.endswith("-wide"):
            directory = ROOT / "weights" / name.removesuffix("-wide")
            model, tokenizer = load(directory)
            extras = {"storygen.json": (directory / "storygen.json").read_text(encoding="utf-8")}
            wide = widened(model, TIMES, LAYERS)
            save(folder / name, wide, tokenizer, dtype=torch.float16, files=extras)
            shutil.copy((base_of(directory) or directory) / FILE, folder / name)


async def turn(
    engine: LocalEngine, name: str, seeds: range, writers: int, length: int
) -> tuple[list[str], float]:
    """What so many writers get at a time, a passage for each seed, and tokens a second of all."""
    info, tokens = next(info for info in engine.models() if info.name == name), 0

    async def passage(seed: int) -> str:
        nonlocal tokens
        line, text = info.opening_lines[seed % len(info.opening_lines)], ""
        params = SamplingParams(**info.suggested | {"max_new_tokens": length, "seed": seed})
        async for segment in engine.stream(name, line, params):
            tokens += segment.token_count
            text += segment.text
        return text

    told, began = [], time.perf_counter()
    for first in range(seeds.start, seeds.stop, writers):
        told += await asyncio.gather(*(passage(first + n) for n in range(writers)))
    return told, tokens / (time.perf_counter() - began)


def tokens_a_step(
    speculation: Speculation, passages: Sequence[tuple[list[int], int]], n: int
) -> float:
    """What n guesses would give; passages are tokens and where the model began."""
    steps = tokens = 0
    for ids, here in passages:
        repeats, at = speculation.repeats(), here
        while at < len(ids):
            guesses = speculation.guesses(repeats, ids[:at], n)
            right = takewhile(lambda pair: pair[0] == pair[1], zip(guesses, ids[at:], strict=False))
            at += 1 + len(list(right))
            steps += 1
        tokens += at - here
    return tokens / steps


def foretold(directory: Path, info: ModelInfo, told: Sequence[str]) -> str:
    """Tokens a step with 1, 2 and 3 guesses, by the table and by the story alone; told are passages
    of the seeds 0, 1 and so on."""
    tokenizer = load_tokenizer(directory)
    lines = info.opening_lines
    passages = [
        (
            tokenizer.encode(lines[seed % len(lines)] + text),
            len(tokenizer.encode(lines[seed % len(lines)])),
        )
        for seed, text in enumerate(told)
    ]
    return "   ".join(
        " ".join(f"{tokens_a_step(Speculation(by, tokenizer), passages, n):.2f}" for n in (1, 2, 3))
        for by in (read_ngrams(directory, tokenizer), None)
    )


async def measure(args: argparse.Namespace, folder: Path) -> None:
    """Print a row for each model and number of writers."""
    native = load_settings().native_dir
    plain, guessing = (
        LocalEngine(
            Catalogue(folder), native=native, threads=args.threads, slots=16, speculate=guesses
        )
        for guesses in (False, True)
    )
    await plain.start()
    await guessing.start()
    print(f"{'model':16}{'writers':>8}{'without':>9}{'with':>7}{'ratio':>7}{'least':>7}   a step")
    for name in args.models:
        info = next(info for info in plain.models() if info.name == name)
        for writers in args.writers:
            rates: dict[LocalEngine, list[float]] = {plain: [], guessing: []}
            written: list[str] = []
            passages = writers
            for n in range(WARM + args.rounds):
                told, seeds = {}, range(n * passages, (n + 1) * passages)
                for engine in (plain, guessing) if n % 2 else (guessing, plain):
                    told[engine], rate = await turn(engine, name, seeds, writers, args.length)
                    rates[engine] += [rate] if n >= WARM else []
                assert told[plain] == told[guessing], (name, seeds)
                written += told[plain] if seeds.start == len(written) else []
                if n < WARM:
                    passages = writers * max(1, math.ceil(TURN * rate / args.length / writers))
            ratios = [b / a for a, b in zip(rates[plain], rates[guessing], strict=True)]
            medians = [statistics.median(rates[engine]) for engine in (plain, guessing)]
            print(
                f"{name:16}{writers:8}{medians[0]:9.0f}{medians[1]:7.0f}"
                f"{statistics.median(ratios):7.2f}{min(ratios):7.2f}   "
                + foretold(folder / name, info, written[:PASSAGES]),
                flush=True,
            )
    await plain.close()
    await guessing.close()


def main() -> None:
    """Print what there is to gain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ships = [info.name for info in Catalogue(ROOT / "weights").models()]
    parser.add_argument("models", nargs="*", default=["mystery-wide", *ships])
    parser.add_argument("--writers", nargs="*", type=int, default=[1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--length", type=int, default=256, help="tokens of a passage")
    args = parser.parse_args()
    with TemporaryDirectory() as folder:
        laid_out(args.models, Path(folder))
        asyncio.run(measure(args, Path(folder)))


if __name__ == "__main__":
    main()
