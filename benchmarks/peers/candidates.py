"""A draw for the runtimes that have no sampler: their graphs end in the 50 largest logits."""

import numpy as np

from benchmarks.peers import TEMPERATURE


def draw(
    values: np.ndarray, ids: np.ndarray, top_k: int, random: np.random.Generator
) -> np.ndarray:
    """One of each row's top_k candidates (B, K), as (B, 1); values are in descending order."""
    logits = values[:, :top_k] / TEMPERATURE
    weights = np.exp(logits - logits[:, :1])  # (B, top_k)
    reached = weights.cumsum(axis=1)
    targets = random.random((len(values), 1)) * reached[:, -1:]
    chosen = (reached < targets).sum(axis=1, keepdims=True)
    return np.take_along_axis(ids, chosen, axis=1)
