"""metrics.jsonl: one line for each step of a run."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


def append_metrics(run: Path, entries: Mapping[str, Any]) -> None:
    """Add a line."""
    with (run / METRICS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(entries) + "\n")


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """All lines."""
    lines = (run / METRICS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def drop_metrics_after(run: Path, step: int) -> None:
    """Forget the steps that a cut-off run made after its last checkpoint."""
    path = run / METRICS
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = (n for n, line in enumerate(lines) if _step_of(line) > step)
        path.write_text("".join(lines[: next(kept, len(lines))]), encoding="utf-8")


def _step_of(line: str) -> float:
    """Step of a line; a half-written last line counts as the future."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf
