"""metrics.jsonl: one line for each step of a run."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


class MetricsFile:
    """Lines for a run's metrics. Those that the disk does not take wait for the next one: a store
    that is away for a while ends no training."""

    def __init__(self, run: Path) -> None:
        self._path = run / METRICS
        self._waiting: list[str] = []

    def append(self, entries: Mapping[str, Any]) -> None:
        """Add a line."""
        self._waiting.append(json.dumps(entries) + "\n")
        with suppress(OSError):
            self._write()
            self._waiting.clear()

    def _write(self) -> None:
        with self._path.open("ab", buffering=0) as file:
            end = file.tell()
            data = "".join(self._waiting).encode()
            try:
                if file.write(data) < len(data):
                    raise OSError("the disk is full")
            except OSError:
                file.truncate(end)  # no half line, to which the next would be added
                raise


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """All lines; of two for a step the later, for a disk may fail after it has taken a line."""
    lines = (run / METRICS).read_text(encoding="utf-8").splitlines()
    entries = map(json.loads, lines)
    return list({entry["step"]: entry for entry in entries}.values())


def drop_metrics_after(run: Path, step: int) -> None:
    """Forget the steps that a cut-off run made after its last checkpoint."""
    path = run / METRICS
    if path.exists():
        kept = 0  # bytes
        with path.open("rb+") as file:
            for line in file:
                if _step_of(line) > step:
                    break
                kept += len(line)
            file.truncate(kept)


def _step_of(line: bytes) -> float:
    """Step of a line; a half-written last line counts as the future."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf
