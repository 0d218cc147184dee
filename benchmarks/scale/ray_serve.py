"""Two replicas under Ray Serve beside two engines alone, and a replica killed while they write.

    python -m benchmarks.scale.ray_serve [--model mystery] [--rounds 5] [--stories 16]
    python -m benchmarks.scale.ray_serve --kill
    python -m benchmarks.scale.ray_serve --grow

The first compares tokens a second: both sides write the same passages with two processes of one
thread each, taking turns round by round, so that whatever else the machine does meets both alike.
The bar is 0.9. The second kills a replica in the middle of all passages, once a round, and compares
each text with the one that an engine alone writes. The third begins with one replica, goes on until
there are two, and compares each text as well. All need requirements-ray.txt, and two cores with
nothing else on them for figures that mean something.
"""

import argparse
import asyncio
import multiprocessing
import os
import signal
import statistics
import sys
import time
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from storygen.engine.interface import Engine
from storygen.engines import engine_of
from storygen.params import SamplingParams
from storygen.serve.families import base_name
from storygen.serve.ray_start import LOCAL, load
from storygen.settings import Settings

REPLICAS = 2
BAR = 0.9
GROWN_IN = 180  # seconds


@dataclass(frozen=True)
class Load:
    """What is written in a round: so many stories of so many tokens by a model."""

    model: str
    stories: int
    tokens: int

    def prompt(self, n: int) -> str:
        """How the n-th story begins."""
        return f"On the {n}th day of that winter the fog came up from the river, and nobody knew"

    def params(self, n: int) -> SamplingParams:
        """No story ends early, so that all rounds are alike."""
        return SamplingParams(max_new_tokens=self.tokens, seed=n, loop_guard=False)


async def write(engine: Engine, load: Load, n: int) -> tuple[str, int]:
    """The n-th story, and how many tokens it has."""
    text, tokens = "", 0
    stream = engine.stream(load.model, load.prompt(n), load.params(n), user=f"writer {n}")
    async with aclosing(stream) as segments:
        async for segment in segments:
            text, tokens = text + segment.text, tokens + segment.token_count
    return text, tokens


async def write_all(engine: Engine, load: Load, numbers: range) -> list[tuple[str, int]]:
    """Some of the stories, all at a time."""
    return await asyncio.gather(*(write(engine, load, n) for n in numbers))


# ------------------------------------------------------------------------------ engines alone


def _alone(pipe: Connection, settings: Settings, load: Load) -> None:
    """A process with an engine, which writes a round whenever it is told to."""

    async def serve() -> None:
        engine = engine_of(settings)
        await engine.start()
        await write(engine, load, 0)
        pipe.send([])
        while (numbers := await asyncio.to_thread(pipe.recv)) is not None:
            pipe.send(await write_all(engine, load, numbers))
        await engine.close()

    asyncio.run(serve())


class Alone:
    """Engines in processes of their own, with nothing between us and them but a pipe."""

    def __init__(self, settings: Settings, load: Load) -> None:
        self._load, context = load, multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(REPLICAS)]
        self._ours = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=_alone, args=(theirs, settings, load)) for _, theirs in pipes
        ]

    def __enter__(self) -> "Alone":
        for process in self._processes:
            process.start()
        for pipe in self._ours:
            pipe.recv()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None
    ) -> None:
        for pipe, process in zip(self._ours, self._processes, strict=True):
            pipe.send(None)
            process.join()

    def round(self) -> list[tuple[str, int]]:
        """All stories, shared out evenly."""
        for n, pipe in enumerate(self._ours):
            pipe.send(range(n, self._load.stories, REPLICAS))
        shares = [pipe.recv() for pipe in self._ours]
        return [shares[n % REPLICAS][n // REPLICAS] for n in range(self._load.stories)]


# ------------------------------------------------------------------------------------ measuring


def compare(settings: Settings, load_: Load, rounds: int, address: str) -> float:
    """The share of the engines' speed that the replicas have: the median over rounds."""
    ray = load(address)
    options = ray.Options(replicas=REPLICAS, models=load_.model)
    shares = []
    with ExitStack() as stack:
        alone = stack.enter_context(Alone(settings, load_))
        engine = stack.enter_context(ray.started(settings, options, address))
        loop = stack.enter_context(asyncio.Runner())
        loop.run(engine.start())
        loop.run(write_all(engine, load_, range(load_.stories)))  # a round to get warm
        for n in range(rounds):
            began = time.perf_counter()
            ours = loop.run(write_all(engine, load_, range(load_.stories)))
            between = time.perf_counter()
            theirs = alone.round()
            ended = time.perf_counter()
            assert ours == theirs, "the same seeds gave other texts"
            tokens = sum(count for _, count in ours)
            speeds = tokens / (between - began), tokens / (ended - between)
            shares.append(speeds[0] / speeds[1])
            print(
                f"round {n + 1}: {speeds[0]:7.1f} tokens/s under Ray Serve, {speeds[1]:7.1f} by "
                f"{REPLICAS} engines alone: {shares[-1]:.3f}",
                flush=True,
            )
    share = statistics.median(shares)
    print(f"median {share:.3f}, bar {BAR}")
    return share


def kill(settings: Settings, load_: Load, rounds: int, address: str) -> int:
    """How many passages were not the undisturbed ones, of all that lost a replica."""
    ray = load(address)
    options = ray.Options(replicas=REPLICAS, models=load_.model)
    with Alone(settings, load_) as alone:
        whole = alone.round()
    wrong = 0
    served_as = base_name(settings.weights_dir / load_.model)
    with ray.started(settings, options, address) as engine, asyncio.Runner() as loop:
        loop.run(engine.start())
        for n in range(rounds):
            all_ready(served_as)
            began = time.perf_counter()
            written, seconds = loop.run(_with_a_kill(engine, load_, served_as))
            bad = sum(one != other for one, other in zip(written, whole, strict=True))
            wrong += bad
            print(
                f"round {n + 1}: a replica killed after {seconds:.1f} s, {len(written)} passages "
                f"after {time.perf_counter() - began:.1f} s, {bad} not as undisturbed",
                flush=True,
            )
    return wrong


def grow(settings: Settings, load_: Load, address: str) -> int:
    """How many passages were not as an engine alone writes them, before and while a second replica
    came, and in a round by both. Raises TimeoutError where none comes."""
    ray = load(address)
    options = ray.Options(replicas=1, max_replicas=REPLICAS, models=load_.model)
    with Alone(settings, load_) as alone:
        whole = alone.round()
    wrong, rounds, at_last = 0, 0, False
    served_as = base_name(settings.weights_dir / load_.model)
    with ray.started(settings, options, address) as engine, asyncio.Runner() as loop:
        loop.run(engine.start())
        began = time.perf_counter()
        while not at_last:
            at_last = is_complete(served_as)
            if at_last:
                print(f"two replicas after {time.perf_counter() - began:.1f} s, {rounds} rounds")
            elif time.perf_counter() - began > GROWN_IN:
                raise TimeoutError(f"there is one replica after {GROWN_IN} s")
            written = loop.run(write_all(engine, load_, range(load_.stories)))
            wrong += sum(one != other for one, other in zip(written, whole, strict=True))
            rounds += 1
        pids = replica_pids(served_as)
        before = [_processor_seconds(pid) for pid in pids]
        loop.run(write_all(engine, load_, range(load_.stories)))
        took = [_processor_seconds(pid) - at for pid, at in zip(pids, before, strict=True)]
    print(f"{rounds * load_.stories} passages, {wrong} not as undisturbed")
    print(f"in a round more they took {took[0]:.2f} and {took[1]:.2f} s of a processor")
    return wrong


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _with_a_kill(
    engine: Engine, load: Load, served_as: str
) -> tuple[list[tuple[str, int]], float]:
    """All stories, and after how many seconds a replica was killed: when the first has a third of
    its words."""
    began, tokens = time.perf_counter(), 0
    writing = asyncio.create_task(write_all(engine, load, range(load.stories)))
    stream = engine.stream(load.model, load.prompt(0), load.params(0), user="who watches")
    async with aclosing(stream) as segments:
        async for segment in segments:
            tokens += segment.token_count
            if 3 * tokens > load.tokens:
                break
    os.kill(replica_pids(served_as)[0], signal.SIGKILL)
    seconds = time.perf_counter() - began
    return await writing, seconds


def replica_pids(served_as: str) -> list[int]:
    """The processes here of our own replicas of a deployment: by the name that Ray gives them, and
    by the secret that our Ray has."""
    name, secret = f"ray::ServeReplica:storygen-{served_as}:", os.environ["RAY_AUTH_TOKEN"].encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is somebody else's
            is_one = (process / "cmdline").read_text().startswith(name)
            if is_one and secret in (process / "environ").read_bytes():
                found.append(int(process.name))
    return sorted(found)


def all_ready(served_as: str) -> None:
    """Wait until there are as many replicas as there should be."""
    while not is_complete(served_as):
        time.sleep(0.5)


def is_complete(served_as: str) -> bool:
    """Whether there are as many replicas as there should be, and all can be asked."""
    from ray import serve

    application = serve.status().applications[f"storygen-{served_as}"]
    states = application.deployments[served_as].replica_states
    return states.get("RUNNING") == REPLICAS and len(replica_pids(served_as)) == REPLICAS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mystery")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stories", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--ray", default=LOCAL, metavar="ADDRESS", help="of a Ray that runs here")
    parser.add_argument("--kill", action="store_true", help="kill a replica in each round")
    parser.add_argument("--grow", action="store_true", help="wait for a second replica")
    args = parser.parse_args()
    settings = Settings(threads=1)
    what = Load(args.model, args.stories, args.tokens)
    if args.kill:
        return int(kill(settings, what, args.rounds, args.ray) > 0)
    if args.grow:
        return int(grow(settings, what, args.ray) > 0)
    return int(compare(settings, what, args.rounds, args.ray) < BAR)


if __name__ == "__main__":
    sys.exit(main())
