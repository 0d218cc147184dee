"""What a step costs with more rows: what several writers, or drafts that are checked, would take.

    python -m benchmarks.rows [MODEL ...] [--type int8] [--threads 2] [--rounds 100]

Each model that ships writes with a context of 200 tokens and its suggested settings, with 1 to 16
rows in turn; then a prompt is read. Prints the median of each in milliseconds.
"""

import argparse
import random
import statistics
import time
from collections import defaultdict

from storygen.catalogue import Catalogue, ModelInfo
from storygen.decode.choose import arithmetic
from storygen.decode.interface import Decoder, Token
from storygen.decode.pack import FORMATS
from storygen.engine.opening import open_model
from storygen.params import Row, SamplingParams
from storygen.settings import ROOT, load_settings

ROWS = (1, 2, 3, 4, 6, 8, 12, 16)
PROMPTS = (16, 60)  # tokens
CONTEXT = 200


class Steps:
    """Steps of one model, at random tokens."""

    def __init__(self, decoder: Decoder, params: SamplingParams) -> None:
        """Every slot reads a context."""
        self._decoder, self._params, self._luck = decoder, params, random.Random(1)
        for slot in range(max(ROWS)):
            for start in range(0, CONTEXT, max(PROMPTS)):
                self._read(slot, range(start, min(start + max(PROMPTS), CONTEXT)))

    def written(self, n: int, position: int) -> float:
        """Seconds of one token for each of n slots."""
        rows = [self._token(slot, position) for slot in range(n)]
        choices = [Row(self._params, position, [row.id], ()) for row in rows]
        began = time.perf_counter()
        self._decoder.step(rows, range(n), choices, self._decoder.config.vocab_size)
        return time.perf_counter() - began

    def read(self, n: int) -> float:
        """Seconds of a prompt of n tokens."""
        began = time.perf_counter()
        self._read(0, range(n))
        return time.perf_counter() - began

    def _read(self, slot: int, positions: range) -> None:
        rows = [self._token(slot, position) for position in positions]
        self._decoder.logits(rows, [len(rows) - 1])

    def _token(self, slot: int, position: int) -> Token:
        return Token(slot, position, self._luck.randrange(self._decoder.config.vocab_size))


def measured(info: ModelInfo, form: str, threads: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of each kind of step, taken in turns."""
    by = arithmetic("cpu", form, None, load_settings().native_dir)
    decoder, _ = open_model(by, info.directory, max(ROWS), threads)
    steps = Steps(decoder, SamplingParams(**{**info.suggested, "seed": 1}))
    found = defaultdict(list)
    for n in range(rounds):
        for rows in ROWS:
            found[str(rows)].append(steps.written(rows, CONTEXT + n % 50))
    for tokens in PROMPTS:
        found[f"read {tokens}"] = [steps.read(tokens) for _ in range(max(rounds // 4, 1))]
    decoder.close()
    return {name: 1000 * statistics.median(times) for name, times in found.items()}


def main() -> None:
    """Print a row for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--type", default="int8", choices=FORMATS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    args = parser.parse_args()
    for info in Catalogue(ROOT / "weights").models():
        if not args.models or info.name in args.models:
            found = measured(info, args.type, args.threads, args.rounds)
            print(f"{info.name:12} " + "  ".join(f"{n} {t:.2f}" for n, t in found.items()))


if __name__ == "__main__":
    main()
