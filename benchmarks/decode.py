"""How fast models write, beside other systems that write with the same models.

    pip install -r benchmarks/requirements.txt
    python -m benchmarks.decode [--models gpt2 small tiny] [--measure decode first growth streams]

Each system is a process of its own; they take turns, one passage each, round after round, so that
what the machine does to one it does to all. A turn that other programs disturbed is thrown away and
taken again. What a system reaches is compared with what reading its weights from memory allows,
measured between the turns. Writes a table, a CSV file and plots to --out.
"""

import argparse
import random
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import Memory
from benchmarks.models import SIZES, Subject, subject
from benchmarks.peers import PEERS, Missing
from benchmarks.peers.process import Process
from benchmarks.results import BOUND, Results
from storygen.checkpoints import load
from storygen.model import generate

ROOT = Path(__file__).resolve().parent.parent
MEASURES = ("decode", "first", "growth", "streams")
PROMPTS = (16, 64, 128, 256, 512, 1000)  # of the time to the first token
CONTEXTS = (50, 100, 200, 400, 700, 1000)  # at which the time for a token is taken
STREAMS = (1, 2, 4, 8, 16)
TURN = 0.5  # seconds at the least: shorter ones are too few ticks of the clock that shows others
DISTURBED = 0.06  # share of the machine that others may take
ATTEMPTS = 3
REST = 0.25  # seconds before a turn: the threads of the system before it spin for some time


class Bench:
    """One model and the systems that run it."""

    def __init__(self, model: Subject, args: argparse.Namespace, results: Results) -> None:
        self.model, self.args, self.results = model, args, results
        self.random = random.Random(0)

    @contextmanager
    def systems(self, streams: int = 1) -> Iterator[dict[str, Process]]:
        """A process for each system that can run here."""
        with ExitStack() as stack:
            started = {}
            for name in self.args.systems:
                folder = self.args.out / "models" / self.model.name / PEERS[name].file
                try:
                    process = Process(
                        name, self.model.directory, folder, self.args.threads, streams
                    )
                    started[name] = stack.enter_context(process)
                except Missing as why:
                    self.results.leave_out(self.model.name, name, str(why))
            yield started

    def run(self) -> None:
        """All measures that were asked for."""
        alone = [m for m in MEASURES if m in self.args.measure and m != "streams"]
        if alone:
            with self.systems() as systems:
                for name, process in systems.items():
                    self.note(name, "load, ms", 0, 0, 1000 * process.load)
                self.agree(systems)
                for measure in alone:
                    for turn in range(self.args.rounds):
                        getattr(self, measure)(systems, turn)
                        print(f"{self.model.name}: {measure}, round {turn + 1}", flush=True)
        if "streams" in self.args.measure:
            with self.systems(max(STREAMS)) as systems:
                for turn in range(self.args.rounds):
                    self.streams(systems, turn)
                    print(f"{self.model.name}: streams, round {turn + 1}", flush=True)

    def agree(self, systems: dict[str, Process]) -> None:
        """How many tokens of eight greedy passages of four are the uncached oracle's."""
        model, _ = load(self.model.directory)
        prompts = [self.prompt(24) for _ in range(8)]
        wanted = [
            generate(model, torch.tensor([prompt]), 4, lambda logits, _: int(logits.argmax()))
            for prompt in prompts
        ]
        for name, process in systems.items():
            same = 0
            for prompt, ids in zip(prompts, wanted, strict=True):
                reply = process.ask(prompts=[prompt], tokens=4, top_k=1, seed=0, seconds=0)
                written = reply["passages"][0]["tokens"]
                equal = [a == b for a, b in zip(written, ids, strict=True)]
                same += [*equal, False].index(False)
            self.note(name, "same of 32", 0, 0, same)

    def decode(self, systems: dict[str, Process], turn: int) -> None:
        """Tokens per second after the first one, time to the first, memory; the memory bound."""
        length, tokens = self.model.passage
        for name, process in systems.items():
            reply = self.turn(process, [self.prompt(length)], tokens)
            if reply is None:
                continue
            times = [passage["times"][0] for passage in reply["passages"]]
            speeds = [(len(t) - 1) / (t[-1] - t[0]) for t in times]
            self.note(name, "tokens/s", 0, turn, statistics.median(speeds))
            first = statistics.median(t[0] for t in times)
            self.note(name, "first token, ms", length, turn, 1000 * first)
            self.note(name, "peak MB", 0, turn, reply["memory"] / 1e6)
        for name in systems:
            size = self.bytes_per_token(name)
            self.note(name, BOUND, 0, turn, self.args.memory.bandwidth(size) / size)

    def first(self, systems: dict[str, Process], turn: int) -> None:
        """Time to the first token by the length of the prompt."""
        for length in self.within(PROMPTS):
            for name, process in systems.items():
                reply = self.turn(process, [self.prompt(length)], 1)
                if reply is not None:
                    first = statistics.median(p["times"][0][0] for p in reply["passages"])
                    self.note(name, "first token by prompt, ms", length, turn, 1000 * first)

    def growth(self, systems: dict[str, Process], turn: int) -> None:
        """Time for a token by the length of what came before it."""
        contexts, start = self.within(CONTEXTS), 16
        for name, process in systems.items():
            reply = self.turn(process, [self.prompt(start)], max(contexts) + 16 - start)
            if reply is None:
                continue
            times = reply["passages"][0]["times"][0]
            for context in contexts:
                around = times[context - start - 16 : context - start + 16]
                steps = [b - a for a, b in pairwise(around)]
                self.note(
                    name, "time per token, ms", context, turn, 1000 * statistics.median(steps)
                )

    def streams(self, systems: dict[str, Process], turn: int) -> None:
        """Tokens per second of several writers at once, while all of them write."""
        length, tokens = self.model.passage[0], min(64, self.model.passage[1])
        for streams in STREAMS:
            for name, process in systems.items():
                prompts = [self.prompt(length) for _ in range(streams)]
                reply = self.turn(process, prompts, tokens)
                if reply is None:
                    continue
                times = reply["passages"][0]["times"]
                last_first, first_last = max(t[0] for t in times), min(t[-1] for t in times)
                written = sum(last_first < moment <= first_last for t in times for moment in t)
                together = written / (first_last - last_first)
                self.note(name, "together, tokens/s", streams, turn, together)
                self.note(name, "all begun, ms", streams, turn, 1000 * last_first)

    def turn(
        self, process: Process, prompts: list[list[int]], tokens: int
    ) -> dict[str, Any] | None:
        """An undisturbed turn of a system, or None where there was none in three attempts."""
        for _ in range(ATTEMPTS):
            time.sleep(REST)
            seed = self.random.randrange(2**31)
            reply = process.ask(prompts=prompts, tokens=tokens, top_k=50, seed=seed, seconds=TURN)
            disturbed = reply["others"] > self.args.disturbed
            self.results.count(disturbed)
            if not disturbed:
                return reply
        return None

    def note(self, system: str, measure: str, at: int, turn: int, value: float) -> None:
        """Keep a figure."""
        self.results.add(self.model.name, system, measure, at, turn, value)

    def prompt(self, length: int) -> list[int]:
        """Random tokens, none of them the last of the vocabulary, which ends texts."""
        return [self.random.randrange(self.model.config.vocab_size - 1) for _ in range(length)]

    def within(self, lengths: tuple[int, ...]) -> list[int]:
        """Those of the lengths that leave room in the context."""
        return [n for n in lengths if n + 16 <= self.model.config.block_size]

    def bytes_per_token(self, system: str) -> float:
        """Weights that a token needs, in the system's form."""
        return self.model.bytes_per_token(PEERS[system].blocks, PEERS[system].head)


def main() -> None:
    """Measure and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(SIZES), help="sizes, or shipped models")
    parser.add_argument("--systems", nargs="+", default=list(PEERS), choices=PEERS, metavar="NAME")
    parser.add_argument("--measure", nargs="+", default=["decode"], choices=MEASURES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--base", default="llama.cpp q8_0", help="what ratios are to")
    parser.add_argument(
        "--disturbed", type=float, default=DISTURBED, help="share others may take of a turn"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs/decode")
    args = parser.parse_args()
    models = [subject(name, args.out / "models", ROOT / "weights") for name in args.models]
    largest = max(model.bytes_per_token(32, 32) for model in models)
    args.memory = Memory(args.out, args.threads, int(largest))
    results = Results(args.threads, args.base)
    for model in models:
        Bench(model, args, results).run()
        results.write(args.out, "-".join(m for m in MEASURES if m in args.measure))
    print(results.markdown())


if __name__ == "__main__":
    main()
