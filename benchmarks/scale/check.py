"""Does the simulated replica wait as the engine does?

    python -m benchmarks.scale.check [--model "mystery int8"] [--loads 0.3 0.5 0.7] [--seconds 60]

Passages arrive at random at the real engine, with one thread, at shares of what it can do as
costs.csv has it. Prints how long they waited for their first word, beside the simulation. Needs a
quiet machine, and costs measured on the same one: another program that takes a tenth of the core
makes a load of 0.7 one of 0.8.
"""

import argparse
import asyncio
import random
import time
from contextlib import aclosing
from pathlib import Path

from benchmarks.models import subject
from benchmarks.scale.assumptions import Writers
from benchmarks.scale.costs import FILE, Costs, prose
from benchmarks.scale.replica import Waits, percentile, simulate
from benchmarks.scale.simulate import LONGER, SLOTS, Plan
from storygen.catalogue import Catalogue
from storygen.engine.local import LocalEngine
from storygen.params import SamplingParams
from storygen.settings import ROOT, load_settings

HABITS = Writers()


class Real:
    """The engine, asked for passages such as Plan.replica has them."""

    def __init__(self, directory: Path, form: str) -> None:
        self.model = directory.name
        self.engine = LocalEngine(
            Catalogue(directory.parent),
            dtype=form,
            threads=1,
            slots=SLOTS,
            queue_size=10_000,
            native=load_settings().native_dir,
        )
        self.number, self.words = 0, 0

    async def start(self) -> None:
        """Open the model, and learn how many words make a prompt."""
        await self.engine.start()
        count = await self.engine.count_tokens(self.model, prose(100, 1))
        self.words = int(100 * HABITS.prompt / count)
        await self.passage(random.Random(0))

    async def passage(self, chance: random.Random) -> float:
        """Seconds to its first word."""
        self.number += 1
        words = 1 if chance.random() < HABITS.remembered else self.words
        tokens = int(HABITS.tokens * chance.choice((1, 1, 1, 0.5)))
        params = SamplingParams(max_new_tokens=tokens, seed=self.number, loop_guard=False)
        asked, first = time.monotonic(), 0.0
        who = f"writer-{self.number}"
        stream = self.engine.stream(self.model, prose(words, self.number), params, user=who)
        async with aclosing(stream) as segments:
            async for segment in segments:
                if segment.token_count and not first:
                    first = time.monotonic() - asked
        return first

    async def waits(self, a_second: float, seconds: float) -> list[float]:
        """First words of passages that arrive at random for so long."""
        chance, until, passages = random.Random(1), time.monotonic() + seconds, []
        while time.monotonic() < until:
            passages.append(asyncio.create_task(self.passage(chance)))
            await asyncio.sleep(chance.expovariate(a_second))
        return list(await asyncio.gather(*passages))


def row(what: str, times: list[float]) -> str:
    """Three percentiles in milliseconds."""
    found = (1000 * percentile(times, share) for share in (0.5, 0.95, 0.99))
    return f"{what:24}{len(times):8}" + "".join(f"{value:9.1f}" for value in found)


async def compare(model: str, loads: list[float], seconds: float) -> None:
    """Print two rows for each load."""
    name, form = model.split()
    directory = subject(name, ROOT / "runs/scale/models", ROOT / "weights").directory
    plan = Plan(Costs.read(FILE), model, 1, HABITS)
    real = Real(directory, form)
    await real.start()
    print(f"{'':24}{'n':>8}{'half':>9}{'19 of 20':>9}{'99 of 100':>10}, ms to the first word")
    for load in loads:
        rate = load / plan.core_seconds
        told: Waits = simulate(plan.replica, rate, LONGER)
        print(row(f"{load:.0%}, simulated", told.first_word))
        print(row(f"{load:.0%}, the engine", await real.waits(rate, seconds)), flush=True)
    await real.engine.close()


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="mystery int8")
    parser.add_argument("--loads", nargs="+", type=float, default=[0.3, 0.5, 0.7])
    parser.add_argument("--seconds", type=float, default=60)
    args = parser.parse_args()
    asyncio.run(compare(args.model, args.loads, args.seconds))


if __name__ == "__main__":
    main()
