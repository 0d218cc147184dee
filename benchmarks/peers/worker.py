"""One system in a process of its own, which generates when it is told to over a pipe.

    python -m benchmarks.peers.worker FILE FORM DIRECTORY WORK THREADS STREAMS

Lines of JSON: a request in, a reply out. The first reply says how long the model took to load.
"""

import importlib
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import Watch, peak_memory
from benchmarks.peers import Missing


def main() -> None:
    """Load, then answer until the pipe closes."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print what they like

    def reply(**values: Any) -> None:
        print(json.dumps(values), file=replies, flush=True)

    file, form, directory, work, threads, streams = sys.argv[1:]
    try:
        module = importlib.import_module(f"benchmarks.peers.{file}")
        folder = Path(work)
        if form.startswith("prepare "):
            folder.mkdir(parents=True, exist_ok=True)
            if hasattr(module, "prepare"):
                module.prepare(Path(directory), form.removeprefix("prepare "), folder)
            reply()
            return
        began = time.perf_counter()
        system = module.System(Path(directory), form, folder, int(threads), int(streams))
        reply(load=time.perf_counter() - began)
    except (Missing, ImportError) as error:
        reply(missing=str(error))
        return
    for line in sys.stdin:
        reply(**turn(system, **json.loads(line)))
    replies.close()
    os._exit(0)  # some libraries end badly


def turn(
    system: Any, prompts: list[list[int]], tokens: int, top_k: int, seed: int, seconds: float
) -> dict[str, Any]:
    """Passages of these prompts, one after the other until `seconds` are over.

    A few tokens come before, uncounted: other systems have had the processor meanwhile. Each
    passage has the prompts' tokens in another order: a system may remember what it has read.
    """
    passage(system, [shuffled(prompt, seed) for prompt in prompts], min(tokens, 8), top_k, seed)
    watch, began, passages = Watch(), time.perf_counter(), []
    while not passages or time.perf_counter() - began < seconds:
        passages.append(passage(system, prompts, tokens, top_k, seed + len(passages)))
        prompts = [shuffled(prompt, seed + len(passages)) for prompt in prompts]
    return {"passages": passages, "others": watch.others(), "memory": peak_memory()}


def shuffled(prompt: list[int], seed: int) -> list[int]:
    """The same tokens in another order."""
    return random.Random(seed).sample(prompt, len(prompt))


def passage(
    system: Any, prompts: list[list[int]], tokens: int, top_k: int, seed: int
) -> dict[str, Any]:
    """For each row when its tokens came, in seconds, and what the first row's tokens are."""
    times: list[list[float]] = [[] for _ in prompts]
    first: list[int] = []
    began = time.perf_counter()

    def arrived(row: int, token: int) -> None:
        times[row].append(time.perf_counter() - began)
        if row == 0:
            first.append(token)

    system.generate(prompts, tokens, top_k, seed, arrived)
    assert all(len(row) == tokens for row in times), [len(row) for row in times]
    return {"times": times, "tokens": first}


if __name__ == "__main__":
    main()
