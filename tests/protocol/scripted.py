"""Serve the real app.py and the real engine, with a decoder that repeats the last nonce it read, at
a fixed pace. What happens to places is written to a file, with times of the system's clock.

Run as: python -m tests.protocol.scripted PORT [engine [--ray]]
"""

import json
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from storygen import checkpoints
from storygen.decode.interface import Token
from storygen.engine import local, worker
from storygen.engine.interface import Engine
from storygen.engine.local import LocalEngine
from storygen.engine.place import Place
from storygen.params import Row
from storygen.tokenizers import CharTokenizer, Tokenizer
from tests.protocol.serve import start
from tests.protocol.weights import ALPHABET, tiny

STEP = 0.01  # seconds
LOG = "places.jsonl"  # in the data directory
NONCE = re.compile(r"nonce-[0-9a-f]{8}")


class Scripted:
    """A Decoder that remembers what its slots read, and goes on with numbers and the nonce."""

    rows_are_independent = False  # each of its steps is one token

    def __init__(self, slots: int) -> None:
        self.config, self.n_slots, self.max_rows = tiny(ALPHABET), 2 * slots, 64
        self._read: list[list[int]] = [[] for _ in range(self.n_slots)]

    def step(
        self, rows: Sequence[Token], out: Sequence[int], choices: Sequence[Row], n_tokens: int
    ) -> list[int | None]:
        """See decode.interface.Decoder."""
        self._take(rows)
        return [self._next(rows[i].slot) for i in out]

    def logits(self, rows: Sequence[Token], out: Sequence[int]) -> np.ndarray:
        """See decode.interface.Decoder."""
        self._take(rows)
        return np.zeros((len(out), self.config.vocab_size), np.float32)

    def copy(self, source: int, target: int, n: int) -> None:
        """See decode.interface.Decoder."""
        self._read[target] = self._read[source][:n]

    def close(self) -> None:
        """See decode.interface.Decoder."""

    def _take(self, rows: Sequence[Token]) -> None:
        time.sleep(STEP)
        for slot, position, token in rows:
            self._read[slot][position:] = [token]

    def _next(self, slot: int) -> int:
        text = ALPHABET.decode(self._read[slot])
        found = list(NONCE.finditer(text))
        if not found:
            return ALPHABET.encode(" ")[0]
        last = found[-1]
        # A number in between, so that nothing repeats itself.
        following = f" {last.end() ** 3 % 10**6:06d} {last.group()}"
        return ALPHABET.encode(following[len(text) - last.end()])[0]


def write_down(event: str, user: str, **more: Any) -> None:
    """One line of the log."""
    line = json.dumps({"at": time.monotonic(), "event": event, "user": user, **more})
    with (Path(os.environ["STORYGEN_DATA_DIR"]) / LOG).open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def told(what: str, act: Callable[..., Any]) -> Callable[..., Any]:
    """A method of Worker that writes down when it was done for whom."""

    def done(self: Any, place: Place) -> Any:
        act(self, place)
        counts = self.counts()
        write_down(what, place.user, running=sum(counts), at_work=counts[0], in_line=counts[1])

    return done


def encoded(encode: Callable[..., Any]) -> Callable[..., Any]:
    """A tokenizer's encode that writes down whose nonce it read."""

    def done(self: Any, text: str) -> Any:
        for nonce in set(NONCE.findall(text)):
            write_down("encode", nonce)
        return encode(self, text)

    return done


def open_scripted(_: Any, directory: Path, slots: int, *__: Any) -> tuple[Any, Tokenizer]:
    """In the place of open_model."""
    return Scripted(slots), checkpoints.load_tokenizer(directory)


def engine(*args: Any, **options: Any) -> Engine:
    """The real engine with these in their places, in whichever process it is made."""
    local.open_model = open_scripted  # type: ignore[assignment,attr-defined]  # in its place
    worker.Worker.enter = told("enter", worker.Worker.enter)  # type: ignore[method-assign]  # around it
    worker.Worker.leave = told("leave", worker.Worker.leave)  # type: ignore[method-assign]  # around it
    CharTokenizer.encode = encoded(CharTokenizer.encode)  # type: ignore[method-assign]  # around it
    return LocalEngine(*args, **options)


def main() -> None:
    """Serve the page, or the engine alone."""
    local.LocalEngine = engine  # type: ignore[assignment,misc]  # around it
    start()


if __name__ == "__main__":
    from tests.protocol import scripted  # by its name, as a replica's process finds it

    scripted.main()
