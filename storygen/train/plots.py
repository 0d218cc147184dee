"""Curves of a run: loss over steps and tokens seen, training and validation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # after the backend that needs no screen


def plot_loss(metrics: Sequence[dict[str, Any]], title: str, out: Path) -> None:
    """Draw both losses, in nats a token, against steps (below) and tokens seen (above)."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    steps = [m["step"] for m in metrics]
    axes.plot(steps, [m["loss"] for m in metrics], color="#b9b2a5", lw=0.6, label="training step")
    smooth = _smoothed([m["loss"] for m in metrics])
    axes.plot(steps, smooth, color="#8c3b2e", lw=1.5, label="training, smoothed")
    held_out = [(m["step"], m["val_loss"]) for m in metrics if "val_loss" in m]
    axes.plot(
        [s for s, _ in held_out],
        [v for _, v in held_out],
        "o-",
        color="#2b4c6f",
        ms=3,
        label="validation",
    )
    axes.set(xlabel="step", ylabel="loss (nats a token)", title=title)
    per_step = metrics[-1]["tokens"] / metrics[-1]["step"]
    above = axes.twiny()
    above.set_xlim(*(limit * per_step / 1e6 for limit in axes.get_xlim()))
    above.set_xlabel("million tokens seen")
    axes.legend(frameon=False)
    figure.savefig(out, dpi=120)
    plt.close(figure)


def _smoothed(values: Sequence[float], keep: float = 0.95) -> list[float]:
    """Exponential moving average without the bias of its beginning (as in Adam)."""
    smooth, average = [], 0.0
    for n, value in enumerate(values, start=1):
        average = keep * average + (1 - keep) * value
        smooth.append(average / (1 - keep**n))
    return smooth
