"""The figures of a run: kept, and written as a table, as CSV and as plots."""

import csv
import platform
import statistics
from functools import partial
from pathlib import Path
from typing import NamedTuple

BOUND = "bound, tokens/s"
BY = {  # what a measure is taken at
    "first token by prompt, ms": "prompt, tokens",
    "time per token, ms": "context, tokens",
    "together, tokens/s": "writers",
    "all begun, ms": "writers",
}


class Figure(NamedTuple):
    """One number of one round."""

    model: str
    system: str
    measure: str
    at: int
    round: int
    value: float


class Results:
    """Figures by model, system and measure."""

    def __init__(self, threads: int, base: str) -> None:
        self.threads, self.base = threads, base
        self.figures: list[Figure] = []
        self.left_out: dict[tuple[str, str], str] = {}
        self.turns = self.disturbed = 0

    def add(self, model: str, system: str, measure: str, at: int, turn: int, value: float) -> None:
        """Keep a figure."""
        self.figures.append(Figure(model, system, measure, at, turn, value))

    def leave_out(self, model: str, system: str, why: str) -> None:
        """Remember why a system has no row."""
        self.left_out[model, system] = why

    def count(self, disturbed: bool) -> None:
        """Count a turn that was taken."""
        self.turns += 1
        self.disturbed += disturbed

    def rounds(
        self, model: str, system: str, measure: str, at: int | None = None
    ) -> dict[int, float]:
        """Figures by round."""
        return {
            f.round: f.value
            for f in self.figures
            if f[:3] == (model, system, measure) and at in (None, f.at)
        }

    def median(self, model: str, system: str, measure: str, at: int | None = None) -> float | None:
        """The median over the rounds, None where there are none."""
        return _median(list(self.rounds(model, system, measure, at).values()))

    def ratio(
        self, model: str, system: str, over: str, measure: str, at: int | None = None
    ) -> float | None:
        """The median of one system's figure over the other's in the same round."""
        ours = self.rounds(model, system, measure, at)
        theirs = self.rounds(model, over, measure, at)
        return _median([ours[n] / theirs[n] for n in ours.keys() & theirs.keys()])

    def bound_share(self, model: str, system: str) -> float | None:
        """Tokens per second over what reading the weights alone would allow, round by round."""
        speed = self.rounds(model, system, "tokens/s")
        bound = self.rounds(model, system, BOUND)
        return _median([speed[n] / bound[n] for n in speed.keys() & bound.keys()])

    def write(self, folder: Path, stem: str) -> None:
        """The table, the figures and the plots, as .md, .csv and .png."""
        (folder / f"{stem}.md").write_text(self.markdown(), encoding="utf-8")
        with (folder / f"{stem}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Figure._fields)
            writer.writerows(self.figures)
        self.plot(folder / f"{stem}.png")

    def markdown(self) -> str:
        """All tables."""
        models = dict.fromkeys(f.model for f in self.figures)
        parts = [
            f"{_processor()}, {self.threads} thread{'s' * (self.threads > 1)}, Python "
            f"{platform.python_version()}. Other programs disturbed {self.disturbed} of "
            f"{self.turns} turns, which were thrown away."
        ]
        parts += [self._decode(model) for model in models if self._systems(model, BOUND)]
        parts += [
            self._by(model, measure)
            for measure in BY
            for model in models
            if self._systems(model, measure)
        ]
        parts += [f"{model}: no {name}: {why}" for (model, name), why in self.left_out.items()]
        return "\n\n".join(parts) + "\n"

    def _systems(self, model: str, measure: str) -> list[str]:
        found = (f.system for f in self.figures if (f.model, f.measure) == (model, measure))
        return list(dict.fromkeys(found))

    def _decode(self, model: str) -> str:
        head = ["tokens/s", f"x {self.base}", "of the bound", "bound"]
        head += ["first token, ms", "peak MB", "load, ms", "same of 32", "rounds"]
        rows = []
        for name in self._systems(model, BOUND):  # those, too, that had no undisturbed turn
            get = partial(self.median, model, name)
            cells = [
                _number(get("tokens/s")),
                _number(self.ratio(model, name, self.base, "tokens/s"), 2),
                _number(self.bound_share(model, name), 2),
                _number(get(BOUND)),
                _number(get("first token, ms"), 1),
                _number(get("peak MB")),
                _number(get("load, ms")),
                _number(get("same of 32")),
                str(len(self.rounds(model, name, "tokens/s"))),
            ]
            rows.append([name, *cells])
        return _table([model, *head], rows)

    def _by(self, model: str, measure: str) -> str:
        points = sorted({f.at for f in self.figures if (f.model, f.measure) == (model, measure)})
        rows = [
            [name, *(_number(self.median(model, name, measure, at), 2) for at in points)]
            for name in self._systems(model, measure)
        ]
        return _table([f"{model}: {measure}, by {BY[measure]}", *map(str, points)], rows)

    def plot(self, path: Path) -> None:
        """A panel for each model and measure."""
        from matplotlib.figure import Figure as Picture

        found = {f.measure for f in self.figures} & {"tokens/s", *BY}
        measures = [m for m in ("tokens/s", *BY) if m in found]
        models = list(dict.fromkeys(f.model for f in self.figures))
        if not measures:
            return
        picture = Picture(figsize=(6 * len(models), 4.5 * len(measures)), layout="constrained")
        panels = picture.subplots(len(measures), len(models), squeeze=False)
        for row, measure in zip(panels, measures, strict=True):
            for panel, model in zip(row, models, strict=True):
                names = self._systems(model, measure)
                panel.set_title(f"{model}: {measure}")
                if measure not in BY:
                    panel.barh(names[::-1], [self.median(model, n, measure) for n in names[::-1]])
                    continue
                for name in names:
                    points = sorted({f.at for f in self.figures if f[:3] == (model, name, measure)})
                    values = [self.median(model, name, measure, at) for at in points]
                    panel.plot(points, values, marker="o", label=name)
                panel.set(xlabel=BY[measure], ylim=(0, None))
                panel.legend(fontsize="x-small")
        picture.savefig(path, dpi=110)


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
