"""kill -9 at random moments of a training, and of saves: what lies on the disk afterwards.

Run by kill.py. A training goes on after each kill, and equals in the end one that nobody killed. A
save that was done is there, or the one after it, whole. A parent imports everything once and forks,
so that a round takes a second: kill_saves.py WHAT FOLDER begins a child at a first line that it is
sent, and kills it at a second.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO

import torch

from storygen.corpora.prepare import prepare
from storygen.corpora.works import Work
from storygen.settings import ROOT
from storygen.tokenizers import CharTokenizer
from storygen.train.__main__ import main as train
from storygen.train.checkpoint import read_checkpoint
from storygen.train.metrics import METRICS, read_metrics
from tests.security.save_until_killed import SAVES

KINDS = ("checkpoint", "model", "adapter", "corpus")  # each is written over its last version
STEPS = 300  # of a training: some kills' worth
RECIPE = f"""
n_layer = 1
n_head = 2
n_embd = 16
block_size = 16
max_steps = {STEPS}
batch_size = 4
accumulate = 2
dropout = 0.1
learning_rate = 1e-2
eval_every = 20
eval_windows = 3
checkpoint_minutes = 0.003
prompts = ["once "]
sample_tokens = 20
[card]
display_name = "Tiny"
genre = "test"
description = "Made in a test."
corpus = "made up"
licence = "none needed"
"""


def training(folder: Path) -> None:
    """Train the run of this folder on, from where it was cut off."""
    made = ["--corpus", str(folder / "corpus"), "--out", str(folder / "run")]
    code = train([str(folder / "tiny.toml"), *made, "--resume"])
    say("finished" if code == 0 else f"exit code {code}")


def saving(folder: Path) -> None:
    """Save one version after another of everything, in any order, and say which."""
    versions = {kind: last_of(folder, kind) for kind in KINDS}
    while True:
        kind = random.choice(KINDS)
        versions[kind] += 1
        SAVES[kind].save(folder / kind, versions[kind])
        say(kind, versions[kind])


def last_of(folder: Path, kind: str) -> int:
    """The version that who killed has found to be there."""
    return int((folder / f"{kind}.version").read_text())


WORK: dict[str, Callable[[Path], None]] = {"training": training, "saving": saving}


def say(*words: object) -> None:
    """A line to who will kill; what libraries print goes elsewhere."""
    os.write(SAID, (" ".join(map(str, words)) + "\n").encode())


SAID = 1


def fork(what: str, folder: Path) -> None:
    """Be the parent."""
    global SAID
    SAID = os.dup(1)
    os.dup2(2, 1)
    torch.set_num_threads(1)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            random.seed(line)
            WORK[what](folder)
            os._exit(0)
        sys.stdin.readline()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        say("gone")


@contextmanager
def parent(what: str, folder: Path) -> Iterator[tuple[IO[str], IO[str]]]:
    """That parent's standard input and output."""
    with (
        (folder / "log").open("a") as log,
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.reliability.kill_saves", what, str(folder)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdin, process.stdout
        process.stdin.close()


def killed(stdin: IO[str], stdout: IO[str], after: float, begun: Path | None = None) -> list[str]:
    """What a child said that was killed after so many seconds, or ended before. They are counted
    from when it has added to a file."""
    before = sized(begun)
    print(random.random(), file=stdin, flush=True)
    for _ in range(1000):
        if begun is None or sized(begun) != before:
            break
        time.sleep(0.02)
    time.sleep(after)
    print("kill", file=stdin, flush=True)
    return list(iter(stdout.readline, "gone\n"))


def kill_training(rounds: int, folder: Path) -> list[str]:
    """Kill a training so many times; what was wrong."""
    text = "once upon a time there was an owl.\n" * 40
    unbroken, broken = folder / "unbroken", folder / "broken"
    for place in (unbroken, broken):
        place.mkdir()
        (place / "tiny.toml").write_text(RECIPE)
        letters = CharTokenizer.from_text(text)
        prepare("tiny", [Work("owl.txt", text)], letters, place / "corpus")
    with parent("training", unbroken) as (stdin, stdout):
        end(stdin, stdout)
    wrong: list[str] = []
    reached, ends, resumed = 0, 0, 0
    with parent("training", broken) as (stdin, stdout):
        for n in range(rounds):
            said = killed(stdin, stdout, random.random(), broken / "run" / METRICS)
            is_begun = (broken / "run").is_dir()
            found = read_checkpoint(broken / "run") if is_begun else None
            _, state, damaged = found or ({}, {"step": 0}, [])
            if damaged:
                wrong.append(f"round {n}: {damaged} are damaged")
            if state["step"] < reached:
                wrong.append(f"round {n}: step {state['step']} is the newest, after {reached}")
            reached, resumed = state["step"], resumed + (state["step"] > 0)
            if n == rounds - 1 and not said:
                said = end(stdin, stdout)
            if said:
                wrong += [f"round {n}: {told} differs" for told in differences(unbroken, broken)]
                (broken / "run").rename(broken / f"run-{ends}")
                ends, reached = ends + 1, 0
    print(f"training: {rounds} kills, {resumed} left a checkpoint, {ends} runs reached their end")
    return wrong


def sized(path: Path | None) -> int:
    """The bytes of a file, of none where there is none."""
    return path.stat().st_size if path is not None and path.exists() else 0


def end(stdin: IO[str], stdout: IO[str]) -> list[str]:
    """What a child said that was let go on to its end."""
    print("begin", file=stdin, flush=True)
    said = stdout.readline()
    print("kill", file=stdin, flush=True)
    return [said, *iter(stdout.readline, "gone\n")]


def differences(unbroken: Path, broken: Path) -> list[str]:
    """In what a training that was killed differs from one that was not."""
    states = [read_checkpoint(place / "run") for place in (unbroken, broken)]
    if None in states:
        return [f"having no checkpoint ({(broken / 'log').read_text()[-500:]})"]
    (ours, told, _), (theirs, known, _) = [state for state in states if state]
    wrong = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    losses = [
        [(line["step"], line["loss"]) for line in read_metrics(place / "run")]
        for place in (unbroken, broken)
    ]
    if losses[0] != losses[1]:
        wrong.append("the losses")
    return wrong if told == known else [*wrong, "the state"]


def kill_saving(rounds: int, folder: Path) -> list[str]:
    """Kill saves so many times; what was wrong."""
    wrong: list[str] = []
    saves = 0
    for kind in KINDS:
        (folder / kind).mkdir()
        SAVES[kind].save(folder / kind, 0)
        (folder / f"{kind}.version").write_text("0")
    with parent("saving", folder) as (stdin, stdout):
        for n in range(rounds):
            said = [line.split() for line in killed(stdin, stdout, random.random() * 0.7)]
            saves += len(said)
            for kind in KINDS:
                done = [int(version) for name, version in said if name == kind]
                last = done[-1] if done else last_of(folder, kind)
                found = version_of(kind, folder, (last, last + 1))
                if found is None:
                    wrong.append(f"round {n}: of {kind} neither {last} nor {last + 1} is whole")
                (folder / f"{kind}.version").write_text(str(last + 1 if found is None else found))
    print(f"saving: {rounds} kills, {saves} saves done")
    for kind in KINDS:
        SAVES[kind].save(folder / kind, last_of(folder, kind) + 1)
        left = [path.name for path in (folder / kind).iterdir() if ".new-" in path.name]
        wrong += [f"{kind} leaves {left} behind"] if left else []
    return wrong


def version_of(kind: str, folder: Path, versions: tuple[int, int]) -> int | None:
    """Which of these is there, whole."""
    try:
        found = SAVES[kind].read(folder / kind)
    except Exception as error:
        print(f"{kind}: {error!r}")
        return None
    for version in versions:
        fresh = folder / "fresh" / f"{kind}-{next(FRESH)}"
        fresh.mkdir(parents=True)
        SAVES[kind].save(fresh, version)
        if SAVES[kind].read(fresh) == found:
            return version
    return None


FRESH = count()

if __name__ == "__main__":
    fork(sys.argv[1], Path(sys.argv[2]))
