"""What rounding the weights costs: held-out bits per byte of the shipped models in every form.

    python -m benchmarks.formats [--data data] [MODEL ...]

Scores excerpts of each model's own genre through the engine, as the page would compute them. Needs
prepared corpora (docs/corpora.md). Prints a row a model; loss in percent of fp32's bits per byte.
"""

import argparse
import asyncio
from math import log
from pathlib import Path

from storygen.catalogue import Catalogue, ModelInfo
from storygen.decode.pack import FORMATS
from storygen.engine.local import LocalEngine
from storygen.report.held_out import excerpts, read_genres
from storygen.report.score import readable
from storygen.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent


async def bits_per_byte(info: ModelInfo, form: str, texts: list[str]) -> float:
    """Of texts, by the engine in one form."""
    native = load_settings().native_dir
    engine = LocalEngine(Catalogue(info.directory.parent), device="cpu", dtype=form, native=native)
    await engine.start()
    try:
        scores = [score for text in texts for score in await engine.score(info.name, text)]
    finally:
        await engine.close()
    return -sum(s.logprob for s in scores) / log(2) / sum(len(text.encode()) for text in texts)


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    parser.add_argument("--characters", type=int, default=200_000)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    args = parser.parse_args()
    genres = {genre.name: genre for genre in read_genres(args.data)}
    for info in Catalogue(ROOT / "weights").models():
        genre = genres.get(info.name)
        if genre is None or (args.models and info.name not in args.models):
            continue
        tokenizer = genre.corpus.tokenizer
        texts = [readable(tokenizer, text) for text in excerpts(genre, args.characters)]
        found = {form: asyncio.run(bits_per_byte(info, form, texts)) for form in FORMATS}
        whole = found["fp32"]
        row = "  ".join(
            f"{form} {b:.4f} ({100 * (b / whole - 1):+.2f} %)" for form, b in found.items()
        )
        print(f"{info.name:12} {sum(map(len, texts)):,} characters  {row}", flush=True)


if __name__ == "__main__":
    main()
