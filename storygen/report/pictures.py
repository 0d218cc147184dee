"""The report's pictures: every model on every genre, and what temperature does."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from storygen.engine.interface import TokenScore

TEMPERATURES = (0.3, 0.8, 1.3)
CANDIDATES = 12
_COLOURS = ("#2b4c6f", "#b9b2a5", "#8c3b2e")  # cold to hot
_BETTER = LinearSegmentedColormap.from_list("better", ["#8fae8b", "#f4f0e6", "#c98a7d"])


def draw_matrix(matrix: Mapping[str, Mapping[str, float]], out: Path) -> None:
    """Bits per byte of each row on each genre; colours compare within a column."""
    rows, columns = list(matrix), list(next(iter(matrix.values())))
    values = np.array([[matrix[row][column] for column in columns] for row in rows])
    low, high = values.min(axis=0), values.max(axis=0)
    shade = (values - low) / np.where(high > low, high - low, 1)
    size = (2.4 + 1.3 * len(columns), 1.2 + 0.5 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shade, cmap=_BETTER, aspect="auto")
    for y, x in np.ndindex(*values.shape):
        weight = "bold" if values[y, x] == low[x] else "normal"
        axes.text(x, y, f"{values[y, x]:.3f}", ha="center", va="center", weight=weight)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title("bits per byte on held-out text; lower is better")
    figure.savefig(out, dpi=120)


def at_temperature(scores: Sequence[TokenScore], temperature: float) -> np.ndarray:
    """Probability of each of all tokens at a temperature, from their log-probabilities."""
    scaled = np.array([score.logprob for score in scores]) / temperature
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def draw_temperatures(model: str, prompt: str, scores: Sequence[TokenScore], out: Path) -> None:
    """Bars of the most probable next tokens at each of TEMPERATURES."""
    shown = scores[:CANDIDATES]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for n, (temperature, colour) in enumerate(zip(TEMPERATURES, _COLOURS, strict=True)):
        heights = at_temperature(scores, temperature)[: len(shown)]
        places = np.arange(len(shown)) + (n - 1) * 0.27
        axes.bar(places, heights, 0.27, color=colour, label=f"temperature {temperature}")
    axes.set_xticks(range(len(shown)), [repr(score.text)[1:-1] for score in shown], rotation=30)
    axes.set(ylabel="probability", title=f"{model} after “{prompt}”")
    axes.legend(frameon=False)
    figure.savefig(out, dpi=120)
