"""Weights in the layouts that decode.c multiplies, and back again.

Outputs are interleaved by 16, and the lines of 4 such blocks too; see "matrices" in decode.c.
Rounding is to the nearest. INT8 gives each 64 inputs of an output a scale (their largest weight is
127); INT4 gives one to each 32, and picks of several the one with the least squared error (as
llama.cpp's quantizer does).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

LANES, BLOCKS, GROUP, LINE = 16, 4, 64, 64
WIDE = LANES * BLOCKS  # outputs come in multiples of this
SLICE = 16  # times WIDE outputs are rounded at a time
FORMATS = ("fp32", "bf16", "int8", "int4")  # in the order of decode.c's enum
DIVISORS = (8.0, 7.75, 7.5, 7.25, 7.0, 6.75, 8.25, 8.5, 8.75, 9.0)  # of the largest weight, in INT4


class Packed(NamedTuple):
    """A matrix (n_out, n_in) as bytes."""

    form: str
    n_in: int
    n_out: int
    data: np.ndarray  # (n_out / 64, lines, 4, 64) uint8


def pack(weight: ArrayLike, form: str, into: np.ndarray | None = None) -> Packed:
    """A weight matrix (n_out, n_in), as torch.nn.Linear has it, in one of FORMATS.

    into is memory for n_bytes() bytes. Worked on in slices: rounding takes many times their size.
    """
    weight = np.asarray(weight)
    shape = (weight.shape[0], weight.shape[1])
    if into is None:
        into = np.empty(n_bytes(*shape, form), np.uint8)
    make = {"fp32": _fp32, "bf16": _bf16, "int8": _int8, "int4": _int4}[form]
    packed = room_for(shape, form, into)
    data = packed.data
    for start in range(0, len(data), SLICE):
        rows = weight[start * WIDE : (start + SLICE) * WIDE].astype(np.float32, order="C")
        with np.errstate(invalid="ignore"):  # what is no number stays none, by its scale
            blocks = make(_padded(rows, 0, WIDE))
        blocks = blocks.reshape(-1, BLOCKS, data.shape[1], LINE)
        data[start : start + SLICE] = blocks.transpose(0, 2, 1, 3)
    return packed


def room_for(shape: tuple[int, int], form: str, memory: np.ndarray) -> Packed:
    """Memory of n_bytes() bytes as a packed matrix of a shape (n_out, n_in)."""
    n_out, n_in = shape
    return Packed(form, n_in, n_out, memory.reshape(-1, lines(n_in, form), BLOCKS, LINE))


def unpack(packed: Packed) -> np.ndarray:
    """The numbers that a packed matrix stands for, (n_out, n_in) in fp32."""
    undo = {"fp32": _from_fp32, "bf16": _from_bf16, "int8": _from_int8, "int4": _from_int4}
    blocks = np.ascontiguousarray(packed.data.transpose(0, 2, 1, 3))
    numbers = undo[packed.form](blocks.reshape(-1, blocks.shape[2], LINE))
    return np.ascontiguousarray(numbers[: packed.n_out, : packed.n_in])


def n_bytes(n_out: int, n_in: int, form: str) -> int:
    """Size of a packed matrix."""
    return -(-n_out // WIDE) * BLOCKS * LINE * lines(n_in, form)


def lines(n_in: int, form: str) -> int:
    """Lines of a block of outputs."""
    groups = -(-n_in // GROUP)
    return {"fp32": n_in, "bf16": -(-n_in // 2), "int8": groups * 17, "int4": groups * 9}[form]


# Each of these makes (blocks, pieces, bytes) of a weight (n_out, n_in), or undoes it of its lines.


def _fp32(weight: np.ndarray) -> np.ndarray:
    return _bytes(weight.reshape(-1, LANES, weight.shape[1]).transpose(0, 2, 1), 2)


def _from_fp32(data: np.ndarray) -> np.ndarray:
    numbers = data.view(np.float32).transpose(0, 2, 1)  # (blocks, lanes, n_in)
    return numbers.reshape(-1, numbers.shape[2])


def _bf16(weight: np.ndarray) -> np.ndarray:
    pairs = to_bf16(_padded(weight, 1, 2)).reshape(-1, LANES, -(-weight.shape[1] // 2), 2)
    return _bytes(pairs.transpose(0, 2, 1, 3), 2)


def _from_bf16(data: np.ndarray) -> np.ndarray:
    pairs = data.view(np.uint16).reshape(*data.shape[:2], LANES, 2).transpose(0, 2, 1, 3)
    return from_bf16(pairs.reshape(len(data) * LANES, -1))


def _int8(weight: np.ndarray) -> np.ndarray:
    groups = _groups(weight, GROUP)  # (blocks, lanes, groups, 64)
    scale = np.abs(groups).max(-1) / np.float32(127)  # (blocks, lanes, groups)
    whole = np.rint(groups / _divisor(scale)[..., None]).clip(-127, 127) + 128
    fours = whole.astype(np.uint8).reshape(*scale.shape, GROUP // 4, 4)
    lines = _bytes(fours.transpose(0, 2, 3, 1, 4), 2)
    return np.concatenate([lines, _bytes(scale.transpose(0, 2, 1), 2)], -1)


def _from_int8(data: np.ndarray) -> np.ndarray:
    data = data.reshape(len(data), -1, GROUP * LANES + 4 * LANES)
    fours = data[..., : GROUP * LANES].reshape(*data.shape[:2], GROUP // 4, LANES, 4)
    scale = np.ascontiguousarray(data[..., GROUP * LANES :]).view(np.float32)  # (blocks, n, lanes)
    whole = fours.transpose(0, 3, 1, 2, 4).astype(np.float32) - 128
    numbers = whole * scale.transpose(0, 2, 1)[..., None, None]
    return numbers.reshape(len(data) * LANES, -1)


def _int4(weight: np.ndarray) -> np.ndarray:
    groups = _padded(_groups(weight, GROUP // 2), 2, 2)  # (blocks, lanes, 2 groups, 32)
    scale = _best_scale(groups)
    whole = np.rint(groups / _divisor(scale)[..., None]).clip(-8, 7) + 8
    fours = whole.astype(np.uint8).reshape(*scale.shape[:2], -1, 2, GROUP // 8, 4)
    fours = fours.transpose(0, 2, 3, 4, 1, 5)  # (blocks, groups of 64, 2, fours, lanes, 4)
    nibbles = fours[:, :, 0] | fours[:, :, 1] << 4
    scales = to_bf16(scale).reshape(*scale.shape[:2], -1, 2).transpose(0, 2, 3, 1)
    return np.concatenate([_bytes(nibbles, 2), _bytes(scales, 2)], -1)


def _from_int4(data: np.ndarray) -> np.ndarray:
    half = GROUP * LANES // 2
    data = data.reshape(len(data), -1, half + 4 * LANES)
    nibbles = data[..., :half].reshape(*data.shape[:2], GROUP // 8, LANES, 4)
    fours = np.stack([nibbles & 15, nibbles >> 4], 2).astype(np.float32) - 8
    bits = np.ascontiguousarray(data[..., half:]).view(np.uint16)
    whole = fours * from_bf16(bits).reshape(*data.shape[:2], 2, 1, LANES, 1)
    return whole.transpose(0, 4, 1, 2, 3, 5).reshape(len(data) * LANES, -1)


def _best_scale(groups: np.ndarray) -> np.ndarray:
    """The scale (...) in bf16's precision, of some near the largest weight / 8, that rounds the
    last dimension of groups to -8..7 with the least squared error."""
    index = np.abs(groups).argmax(-1)[..., None]
    extreme = np.take_along_axis(groups, index, -1)[..., 0]  # its sign makes the scale's: a -8
    best, least = np.zeros_like(extreme), np.full_like(extreme, np.inf)
    for divisor in DIVISORS:
        scale = from_bf16(to_bf16(extreme / np.float32(-divisor)))
        rounded = np.rint(groups / _divisor(scale)[..., None]).clip(-8, 7)
        error = np.square(rounded * scale[..., None] - groups).sum(-1)
        better = error < least
        best, least = np.where(better, scale, best), np.where(better, error, least)
    return best


def to_bf16(numbers: np.ndarray) -> np.ndarray:
    """The upper halves of floats as uint16, rounded to the nearest, ties to even."""
    bits = np.ascontiguousarray(numbers).view(np.uint32)
    rounded = bits + 0x7FFF + (bits >> 16 & 1)
    return np.where(numbers == numbers, rounded >> 16, 0x7FC0).astype(np.uint16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """The floats whose upper halves these are."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _groups(weight: np.ndarray, size: int) -> np.ndarray:
    """(n_out, n_in) -> (blocks, lanes, groups, size), the last group filled up with zeros."""
    return _padded(weight, 1, size).reshape(-1, LANES, -(-weight.shape[1] // size), size)


def _padded(numbers: np.ndarray, axis: int, to: int) -> np.ndarray:
    """With zeros up to the next multiple of `to` along an axis."""
    missing = -numbers.shape[axis] % to
    if not missing:
        return numbers
    return np.pad(numbers, [(0, missing if n == axis else 0) for n in range(numbers.ndim)])


def _divisor(scale: np.ndarray) -> np.ndarray:
    return np.where(scale == 0, np.float32(1), scale)


def _bytes(numbers: np.ndarray, keep: int) -> np.ndarray:
    """Numbers as bytes, but for the first dimensions."""
    return np.ascontiguousarray(numbers).reshape(*numbers.shape[:keep], -1).view(np.uint8)
