"""The matrices of a model as native code reads them, side by side in large pages of memory.

They are made of a network's, or read from a file in which they were kept (see engine/opening.py).
"""

import mmap
from collections.abc import Mapping

import numpy as np

from storygen.decode.pack import Packed, n_bytes, pack, room_for
from storygen.model.config import GPTConfig
from storygen.model.shapes import matrix_shapes

LARGE_PAGE = 2**21


def form_of(name: str, form: str) -> str:
    """The output head and the embedding keep 8 bits where the other matrices have 4."""
    return "int8" if form == "int4" and not name.startswith("h.") else form


def unfilled(config: GPTConfig, form: str) -> dict[str, Packed]:
    """Room for the matrices of a model. Raises MemoryError or OSError where there is too little."""
    shapes = matrix_shapes(config)
    sizes = {name: n_bytes(*shape, form_of(name, form)) for name, shape in shapes.items()}
    free, found = _memory(sum(sizes.values())), {}
    for name, shape in shapes.items():
        found[name] = room_for(shape, form_of(name, form), free[: sizes[name]])
        free = free[sizes[name] :]
    return found


def packed(config: GPTConfig, weights: Mapping[str, np.ndarray], form: str) -> dict[str, Packed]:
    """The matrices of a network, rounded to one of FORMATS; weights by their names in GPT."""
    found = unfilled(config, form)
    for name, matrix in found.items():
        pack(weights[name], matrix.form, matrix.data)
    return found


def _memory(size: int) -> np.ndarray:
    """So many bytes, in large pages where there are any: finding small ones takes a fifth of the
    time of a step that reads 100 MB. Memory that could be shared would get none."""
    size = -(-max(size, 1) // LARGE_PAGE) * LARGE_PAGE
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)
