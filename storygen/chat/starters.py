"""Opening lines: what an empty page offers to begin with."""

from collections.abc import Sequence
from itertools import chain, zip_longest

import chainlit as cl

from storygen.catalogue import ModelInfo

MAX_STARTERS = 6


def opening_lines(models: Sequence[ModelInfo]) -> list[cl.Starter]:
    """Lines of the models' own, the first of each before the second of any. One that is taken
    brings its model with it."""
    rounds = zip_longest(*([(line, m.name) for line in m.opening_lines] for m in models))
    lines = [pair for pair in chain.from_iterable(rounds) if pair is not None]
    return [
        cl.Starter(label=line, message=line, command=model)
        for line, model in dict(lines[:MAX_STARTERS]).items()
    ]
