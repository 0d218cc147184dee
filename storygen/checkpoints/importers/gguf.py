"""GGUF files of the architecture gpt2, as llama.cpp's tools write them, quantized or not.

The header is read here: the package's own reader believes what a file says of itself, and takes
gigabytes for one that lies. The numbers are turned into float32 by the package.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import gguf
import numpy as np
import torch
from torch import Tensor

from storygen.checkpoints.importers.network import Asked, Checkpoint, Network, network, renamed
from storygen.checkpoints.tensors import is_finite
from storygen.checkpoints.weights import Weight
from storygen.errors import CheckpointError
from storygen.tokenizers import BPETokenizer

ARCHITECTURE = "gpt2"
DIALECT = f"GGUF file of the architecture {ARCHITECTURE}"
MAGIC = b"GGUF"
MAX_VALUES, MAX_TENSORS = 1024, 4096
MAX_STRING, MAX_BYTES = 1 << 18, 8 << 20
MAX_ITEMS = 300_000  # in all lists together; GPT-2's vocabulary and merges are 150,000
ROWS = 2048
PLAIN = "storygen.plain_typography"
KINDS = {
    int(kind): kind
    for kind in gguf.GGMLQuantizationType
    if kind.name in ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
    or kind.name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
}
# llama.cpp's names and ours; both keep matrices as (out, in)
NAMES = {
    "token_embd": "wte",
    "position_embd": "wpe",
    "output_norm": "ln_f",
    "output": "lm_head",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
RULES = [
    rule
    for theirs, ours in NAMES.items()
    for rule in (
        (rf"{theirs}\.(weight|bias)", rf"{ours}.\1"),
        (rf"blk\.(\d+)\.{theirs}\.(weight|bias)", rf"h.\1.{ours}.\2"),
    )
]
_UNUSED = int(gguf.TokenType.UNUSED)
# a value's type by its number, as struct writes it
_CODES = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor's numbers are, and in which form; shape is the one torch gives it."""

    name: str
    shape: tuple[int, ...]
    kind: gguf.GGMLQuantizationType
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers in the file."""
        block, block_bytes = gguf.GGML_QUANT_SIZES[self.kind]
        return torch.Size(self.shape).numel() // block * int(block_bytes)


def open_gguf(path: Path) -> Checkpoint:
    """Weights, sizes and vocabulary of a file."""
    try:
        with path.open("rb") as file:
            values, tensors, start = _read_header(file, path)
    except (OSError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no GGUF file that can be read, or it was cut off: {error}. Copy or "
            "download it again, or convert the model to f16 or q8_0."
        ) from None
    return Checkpoint(path, {t.name: _weight(path, t, start) for t in tensors}, values)


def translate(checkpoint: Checkpoint, asked: Asked) -> Network:
    """The checkpoint as a Network."""
    n_head = checkpoint.values.get("gpt2.attention.head_count")
    epsilon = checkpoint.values.get("gpt2.attention.layer_norm_epsilon", 1e-5)
    if type(n_head) is not int or not isinstance(epsilon, float):
        raise CheckpointError(
            f"{checkpoint.path} does not say how many attention heads it "
            "has: convert the model again, or import what it was made from."
        )
    return network(
        checkpoint,
        DIALECT,
        renamed(checkpoint, RULES, DIALECT),
        n_head=n_head,
        activation="gelu_new",
        missing_biases=False,
        layer_norm_epsilon=round(epsilon, 12),  # from float32
    )


def tokenizer_of(path: Path, values: Mapping[str, Any]) -> BPETokenizer | None:
    """The vocabulary inside a file; None where there is none of GPT-2's kind."""
    tokens, merges = values.get("tokenizer.ggml.tokens"), values.get("tokenizer.ggml.merges", [])
    if values.get("tokenizer.ggml.model") != "gpt2" or not tokens:
        return None
    kinds = values.get("tokenizer.ggml.token_type") or [0] * len(_texts(tokens))
    used = [n for n, kind in enumerate(kinds if isinstance(kinds, list) else []) if kind != _UNUSED]
    vocab = {spelling: n for n, spelling in enumerate(_texts(tokens)[: (used or [-1])[-1] + 1])}
    pairs: list[Any] = [tuple(merge.split(" ")) for merge in _texts(merges)]
    whole = used and (pairs or merges == []) and len(vocab) == used[-1] + 1
    if not whole or any(len(pair) != 2 for pair in pairs):
        raise CheckpointError(
            f"{path} has a vocabulary that contradicts itself. Copy or download it again, or say "
            "with --tokenizer what it is."
        )
    return BPETokenizer(vocab, pairs, values.get(PLAIN) is True)


def _texts(value: Any) -> list[str]:
    """A list of texts, empty for anything else."""
    return value if isinstance(value, list) and all(isinstance(v, str) for v in value) else []


def _weight(path: Path, tensor: _Tensor, start: int) -> Weight:
    half = tensor.kind == gguf.GGMLQuantizationType.F16
    dtype = torch.float16 if half else torch.float32
    return Weight(tensor.shape, dtype, partial(_numbers, path, tensor, start, half))


def _numbers(path: Path, tensor: _Tensor, start: int, half: bool) -> Tensor:
    data = np.fromfile(path, np.uint8, tensor.nbytes, offset=start + tensor.offset)
    if half:
        found = torch.from_numpy(data.view("<f2")).view(tensor.shape)
    else:  # a few rows at a time: the package takes several times what they are
        found = torch.empty(tensor.shape)
        rows = found.view(-1, tensor.shape[-1])
        stored = data.reshape(len(rows), -1)
        for n in range(0, len(rows), ROWS):
            few = gguf.dequantize(stored[n : n + ROWS], tensor.kind)
            rows[n : n + ROWS] = torch.from_numpy(few)
    if not is_finite(found):
        raise CheckpointError(
            f"{path}: {tensor.name} holds values that are no finite numbers. The training that "
            "made it went wrong, or the file is damaged: copy or download it again."
        )
    return found


def _read_header(file: BinaryIO, path: Path) -> tuple[dict[str, Any], list[_Tensor], int]:
    """What a file says of its network, its tensors, and where their numbers begin. Raises
    ValueError or EOFError for lengths that do not lie within the file."""
    if file.read(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version, count, said = _unpacked(file, "IQQ")
    if version not in (2, 3) or count > MAX_TENSORS or said > MAX_VALUES:
        raise ValueError(f"version {version} with {count:,} tensors and {said:,} values")
    values: dict[str, Any] = {}
    items = 0
    for _ in range(said):
        name = _string(file)
        (kind,) = _unpacked(file, "I")
        if name in values:
            raise ValueError(f"{name[:80]!r} stands there twice")
        values[name] = found = _value(file, kind, MAX_ITEMS - items)
        items += len(found) if isinstance(found, list) else 0
        if name == "general.architecture" and found != ARCHITECTURE:
            break
    _check_architecture(path, values.get("general.architecture"))
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 4096 or alignment & (alignment - 1):
        raise ValueError(f"an alignment of {str(alignment)[:40]}")
    tensors = [_tensor(file, alignment) for _ in range(count)]
    start = -(-file.tell() // alignment) * alignment
    size = path.stat().st_size
    if start + max((t.offset + t.nbytes for t in tensors), default=0) > size:
        raise EOFError("its tensors end after the file")
    return values, tensors, start


def _check_architecture(path: Path, found: Any) -> None:
    if found != ARCHITECTURE:
        raise CheckpointError(
            f"{path} is of the architecture {str(found)[:40]!r}; storygen runs {ARCHITECTURE}. "
            "llama.cpp runs the others."
        )


def _tensor(file: BinaryIO, alignment: int) -> _Tensor:
    name = _string(file)
    (dims,) = _unpacked(file, "I")
    if not 1 <= dims <= 4:
        raise ValueError(f"{name[:80]!r} has {dims} dimensions")
    *sizes, number, offset = _unpacked(file, f"{dims}QIQ")
    kind = KINDS.get(number)
    if kind is None:
        known = {int(k): k.name for k in gguf.GGMLQuantizationType}
        raise ValueError(f"{name[:80]!r} is of the type {known.get(number, number)}")
    count = 1
    for n in sizes:
        count *= n
    block = gguf.GGML_QUANT_SIZES[kind][0]
    if not 0 < count < 2**40 or sizes[0] % block or offset % alignment or offset > 2**48:
        raise ValueError(f"{name[:80]!r} has a size it cannot have")
    return _Tensor(name, tuple(reversed(sizes)), kind, offset)


def _value(file: BinaryIO, kind: int, most: int) -> Any:
    """A number, a text or a list of them, of at most most."""
    if kind == _STRING:
        return _string(file)
    if kind in _CODES:
        return _unpacked(file, _CODES[kind])[0]
    if kind == _ARRAY:
        kind, count = _unpacked(file, "IQ")
        if count > most:
            raise ValueError(f"a list of {count:,} values")
        if kind == _STRING:
            return [_string(file) for _ in range(count)]
        if kind in _CODES:
            return list(_unpacked(file, f"{count}{_CODES[kind]}"))
    raise ValueError(f"a value of the unknown kind {kind}")


def _string(file: BinaryIO) -> str:
    (length,) = _unpacked(file, "Q")
    if length > MAX_STRING or file.tell() > MAX_BYTES:
        raise ValueError(f"a text of {length:,} bytes, {file.tell():,} bytes into the file")
    found = file.read(length)
    if len(found) < length:
        raise EOFError("a text ends after the file")
    return found.decode("utf-8")


def _unpacked(file: BinaryIO, form: str) -> tuple[Any, ...]:
    """Little-endian numbers of the forms that struct knows."""
    size = struct.calcsize(f"<{form}")
    data = file.read(size)
    if len(data) < size:
        raise EOFError("a value ends after the file")
    return struct.unpack(f"<{form}", data)
