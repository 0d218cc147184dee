"""Weights in the layouts that decode.c multiplies, and back again.

Outputs are interleaved by 16, and the lines of 4 such blocks too; see "matrices" in decode.c.
Rounding is to the nearest. INT8 gives each 64 inputs of an output a scale (their largest weight is
127); INT4 gives one to each 32, and picks of several the one with the least squared error (as
llama.cpp's quantizer does).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LANES, BLOCKS, GROUP, LINE = 16, 4, 64, 64
WIDE = LANES * BLOCKS  # outputs come in multiples of this
SLICE = 16  # times WIDE outputs are rounded at a time
FORMATS = ("fp32", "bf16", "int8", "int4")  # in the order of decode.c's enum


class Packed(NamedTuple):
    """A matrix (n_out, n_in) as bytes."""

    form: str
    n_in: int
    n_out: int
    data: Tensor  # (n_out / 64, lines, 4, 64) uint8


def pack(weight: Tensor, form: str, into: Tensor | None = None) -> Packed:
    """A weight matrix (n_out, n_in), as torch.nn.Linear has it, in one of FORMATS.

    into is memory for n_bytes() bytes. Worked on in slices: rounding takes many times their size.
    """
    shape = (weight.shape[0], weight.shape[1])
    if into is None:
        into = torch.empty(n_bytes(*shape, form), dtype=torch.uint8)
    make = {"fp32": _fp32, "bf16": _bf16, "int8": _int8, "int4": _int4}[form]
    packed = room_for(shape, form, into)
    data = packed.data
    for start in range(0, len(data), SLICE):
        rows = weight[start * WIDE : (start + SLICE) * WIDE].detach().float()
        blocks = make(F.pad(rows, (0, 0, 0, -len(rows) % WIDE)))
        data[start : start + SLICE] = blocks.view(-1, BLOCKS, data.shape[1], LINE).transpose(1, 2)
    return packed


def room_for(shape: tuple[int, int], form: str, memory: Tensor) -> Packed:
    """Memory of n_bytes() bytes as a packed matrix of a shape (n_out, n_in)."""
    n_out, n_in = shape
    return Packed(form, n_in, n_out, memory.view(-1, lines(n_in, form), BLOCKS, LINE))


def unpack(packed: Packed) -> Tensor:
    """The numbers that a packed matrix stands for, (n_out, n_in) in fp32."""
    undo = {"fp32": _from_fp32, "bf16": _from_bf16, "int8": _from_int8, "int4": _from_int4}
    blocks = packed.data.transpose(1, 2).flatten(0, 1).contiguous()  # (blocks, lines, 64)
    return undo[packed.form](blocks)[: packed.n_out, : packed.n_in].contiguous()


def n_bytes(n_out: int, n_in: int, form: str) -> int:
    """Size of a packed matrix."""
    return -(-n_out // WIDE) * BLOCKS * LINE * lines(n_in, form)


def lines(n_in: int, form: str) -> int:
    """Lines of a block of outputs."""
    groups = -(-n_in // GROUP)
    return {"fp32": n_in, "bf16": -(-n_in // 2), "int8": groups * 17, "int4": groups * 9}[form]


# Each of these makes (blocks, pieces, bytes) of a weight (n_out, n_in), or undoes it of its lines.


def _fp32(weight: Tensor) -> Tensor:
    return _bytes(weight.view(-1, LANES, weight.shape[1]).transpose(1, 2), 2)


def _from_fp32(data: Tensor) -> Tensor:
    return data.view(torch.float32).transpose(1, 2).flatten(0, 1)


def _bf16(weight: Tensor) -> Tensor:
    weight = F.pad(weight, (0, weight.shape[1] % 2)).bfloat16()
    return _bytes(weight.view(-1, LANES, weight.shape[1] // 2, 2).transpose(1, 2), 2)


def _from_bf16(data: Tensor) -> Tensor:
    pairs = data.view(torch.bfloat16).unflatten(2, (LANES, 2))
    return pairs.transpose(1, 2).flatten(2).flatten(0, 1).float()


def _int8(weight: Tensor) -> Tensor:
    groups = _groups(weight, GROUP)  # (blocks, lanes, groups, 64)
    scale = groups.abs().amax(-1) / 127  # (blocks, lanes, groups)
    whole = (groups / _divisor(scale)[..., None]).round().clamp(-127, 127) + 128
    fours = whole.to(torch.uint8).unflatten(-1, (-1, 4)).permute(0, 2, 3, 1, 4)
    return torch.cat([_bytes(fours, 2), _bytes(scale.permute(0, 2, 1), 2)], -1)


def _from_int8(data: Tensor) -> Tensor:
    data = data.view(len(data), -1, GROUP * LANES + 4 * LANES)
    fours = data[..., : GROUP * LANES].unflatten(2, (-1, LANES, 4))
    scale = data[..., GROUP * LANES :].contiguous().view(torch.float32)  # (blocks, groups, lanes)
    whole = fours.permute(0, 3, 1, 2, 4).flatten(3).float() - 128
    return (whole * scale.permute(0, 2, 1)[..., None]).flatten(2).flatten(0, 1)


def _int4(weight: Tensor) -> Tensor:
    groups = _groups(weight, GROUP // 2)  # (blocks, lanes, 2 groups, 32)
    if groups.shape[2] % 2:
        groups = F.pad(groups, (0, 0, 0, 1))
    scale = _best_scale(groups)
    whole = (groups / _divisor(scale)[..., None]).round().clamp(-8, 7) + 8
    fours = whole.to(torch.uint8).unflatten(2, (-1, 2)).unflatten(-1, (-1, 4))
    fours = fours.permute(0, 2, 3, 4, 1, 5)  # (blocks, groups of 64, 2, fours, lanes, 4)
    nibbles = fours[:, :, 0] | fours[:, :, 1] << 4
    scales = scale.bfloat16().unflatten(2, (-1, 2)).permute(0, 2, 3, 1)
    return torch.cat([_bytes(nibbles, 2), _bytes(scales, 2)], -1)


def _from_int4(data: Tensor) -> Tensor:
    half = GROUP * LANES // 2
    data = data.view(len(data), -1, half + 4 * LANES)
    nibbles = data[..., :half].unflatten(2, (-1, LANES, 4))
    fours = torch.stack([nibbles & 15, nibbles >> 4], 2).float() - 8
    scale = data[..., half:].contiguous().view(torch.bfloat16).unflatten(-1, (2, LANES)).float()
    whole = fours * scale[:, :, :, None, :, None]
    return whole.permute(0, 4, 1, 2, 3, 5).flatten(2).flatten(0, 1)


def _best_scale(groups: Tensor) -> Tensor:
    """The scale (...) in bf16's precision, of some near the largest weight / 8, that rounds the
    last dimension of groups to -8..7 with the least squared error."""
    index = groups.abs().argmax(-1, keepdim=True)
    extreme = groups.gather(-1, index)[..., 0]  # its sign makes the scale's: it becomes a -8
    best, least = torch.zeros_like(extreme), torch.full_like(extreme, torch.inf)
    for divisor in (8.0, 7.75, 7.5, 7.25, 7.0, 6.75, 8.25, 8.5, 8.75, 9.0):
        scale = (extreme / -divisor).bfloat16().float()
        rounded = (groups / _divisor(scale)[..., None]).round().clamp(-8, 7)
        error = (rounded * scale[..., None] - groups).square().sum(-1)
        better = error < least
        best, least = torch.where(better, scale, best), torch.where(better, error, least)
    return best


def _groups(weight: Tensor, size: int) -> Tensor:
    """(n_out, n_in) -> (blocks, lanes, groups, size), the last group filled up with zeros."""
    weight = F.pad(weight, (0, -weight.shape[1] % size))
    return weight.view(-1, LANES, weight.shape[1] // size, size)


def _divisor(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 1.0, scale)


def _bytes(numbers: Tensor, keep: int) -> Tensor:
    """Numbers as bytes, but for the first dimensions."""
    return numbers.contiguous().view(torch.uint8).flatten(keep)
