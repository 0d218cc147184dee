"""The matrices of a model as native code reads them, side by side in large pages of memory.

They are made of a network's, or read from a file in which they were kept (see engine/opening.py).
"""

import mmap
from collections.abc import Mapping

import torch
from torch import Tensor

from storygen.decode.pack import Packed, n_bytes, pack, room_for
from storygen.model import GPTConfig

LARGE_PAGE = 2**21


def matrix_shapes(config: GPTConfig) -> dict[str, tuple[int, int]]:
    """(n_out, n_in) of each matrix by its name in GPT, in the order of their use."""
    C, inner, head = config.n_embd, config.mlp_size, (config.vocab_size, config.n_embd)
    of_layer = {
        "attn.c_attn": (3 * C, C),
        "attn.c_proj": (C, C),
        "mlp.c_fc": (inner, C),
        "mlp.c_proj": (C, inner),
    }
    shapes = {
        f"h.{n}.{name}.weight": shape
        for n in range(config.n_layer)
        for name, shape in of_layer.items()
    }
    return shapes | {"lm_head.weight": head} | ({} if config.tied else {"wte.weight": head})


def vector_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """The shape of everything else: norms, biases, positions."""
    C = config.n_embd
    of_layer = {f"ln_{n}.{kind}": (C,) for n in (1, 2) for kind in ("weight", "bias")}
    biases = {
        name.removesuffix("weight") + "bias": (n_out,)
        for name, (n_out, _) in matrix_shapes(config).items()
        if name.startswith("h.") or (config.output_bias and name == "lm_head.weight")
    }
    norms = {f"h.{n}.{name}": of for n in range(config.n_layer) for name, of in of_layer.items()}
    ends = {"wpe.weight": (config.block_size, C), "ln_f.weight": (C,), "ln_f.bias": (C,)}
    return norms | biases | ends


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


def packed(config: GPTConfig, weights: Mapping[str, Tensor], form: str) -> dict[str, Packed]:
    """The matrices of a network, rounded to one of FORMATS; weights by their names in GPT."""
    found = unfilled(config, form)
    for name, matrix in found.items():
        pack(weights[name], matrix.form, matrix.data)
    return found


def _memory(size: int) -> Tensor:
    """So many bytes, in large pages where there are any: finding small ones takes a fifth of the
    time of a step that reads 100 MB. Memory that could be shared would get none."""
    size = -(-max(size, 1) // LARGE_PAGE) * LARGE_PAGE
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)
