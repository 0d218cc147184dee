"""GGUF files of the architecture gpt2, as llama.cpp's tools write them: f32, f16, bf16 and q8_0.

The gguf package reads them; it believes what a file says of itself, so the header is walked
through first and every length compared with what is there.
"""

import struct
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import gguf
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
MAX_STRING, MAX_BYTES = 1 << 20, 32 << 20
MAX_ITEMS = 300_000  # in all lists together; GPT-2's vocabulary and merges are 150,000
PLAIN = "storygen.plain_typography"
READABLE = {
    gguf.GGMLQuantizationType.F32: torch.float32,
    gguf.GGMLQuantizationType.F16: torch.float16,
    gguf.GGMLQuantizationType.BF16: torch.float32,
    gguf.GGMLQuantizationType.Q8_0: torch.float32,
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
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value
_STRING, _ARRAY = 8, 9


def open_gguf(path: Path) -> Checkpoint:
    """Weights, sizes and vocabulary of a file."""
    _check_header(path)
    try:
        reader = gguf.GGUFReader(path)
        values = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise CheckpointError(f"{path} is no GGUF file that can be read: {error}.") from None
    weights = {tensor.name: _weight(path, tensor) for tensor in reader.tensors}
    return Checkpoint(path, weights, values)


def translate(checkpoint: Checkpoint, asked: Asked) -> Network:
    """The checkpoint as a Network."""
    n_head = checkpoint.values.get("gpt2.attention.head_count")
    epsilon = checkpoint.values.get("gpt2.attention.layer_norm_epsilon", 1e-5)
    if type(n_head) is not int or not isinstance(epsilon, float):
        raise CheckpointError(f"{checkpoint.path} does not say how many attention heads it has.")
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
    tokens, merges = values.get("tokenizer.ggml.tokens"), values.get("tokenizer.ggml.merges")
    if values.get("tokenizer.ggml.model") != "gpt2" or not tokens or not merges:
        return None
    kinds = values.get("tokenizer.ggml.token_type") or [0] * len(_texts(tokens))
    used = [n for n, kind in enumerate(kinds if isinstance(kinds, list) else []) if kind != _UNUSED]
    vocab = {spelling: n for n, spelling in enumerate(_texts(tokens)[: (used or [-1])[-1] + 1])}
    pairs: list[Any] = [tuple(merge.split(" ")) for merge in _texts(merges)]
    whole = used and pairs and len(vocab) == used[-1] + 1
    if not whole or any(len(pair) != 2 for pair in pairs):
        raise CheckpointError(f"{path} has a vocabulary that contradicts itself.")
    return BPETokenizer(vocab, pairs, values.get(PLAIN) is True)


def _texts(value: Any) -> list[str]:
    """A list of texts, empty for anything else."""
    return value if isinstance(value, list) and all(isinstance(v, str) for v in value) else []


def _weight(path: Path, tensor: gguf.ReaderTensor) -> Weight:
    shape = tuple(int(n) for n in reversed(tensor.shape))
    dtype = READABLE[tensor.tensor_type]
    return Weight(shape, dtype, partial(_read, path, tensor, shape))


def _read(path: Path, tensor: gguf.ReaderTensor, shape: tuple[int, ...]) -> Tensor:
    numbers = tensor.data
    if READABLE[tensor.tensor_type] != torch.float16:
        numbers = gguf.dequantize(numbers, tensor.tensor_type)
    found = torch.tensor(numbers).reshape(shape)
    if not is_finite(found):
        raise CheckpointError(
            f"{path}: {tensor.name} holds values that are no finite numbers. The training that "
            "made it went wrong, or the file is damaged."
        )
    return found


def _check_header(path: Path) -> None:
    """Raise CheckpointError unless every length a header names lies within the file."""
    try:
        with path.open("rb") as file:
            architecture = _walk(file, path.stat().st_size)
    except (struct.error, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no GGUF file that can be read, or it was cut off: {error}. Copy or "
            "download it again, or convert the model to f16 or q8_0."
        ) from None
    if architecture != ARCHITECTURE:
        raise CheckpointError(
            f"{path} is of the architecture {architecture[:40]!r}; storygen runs {ARCHITECTURE}."
        )


def _walk(file: BinaryIO, size: int) -> str:
    """The architecture; what follows it in a file of another is not looked at."""
    if file.read(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version, tensors, values = struct.unpack("<IQQ", file.read(20))
    if version not in (2, 3) or tensors > MAX_TENSORS or values > MAX_VALUES:
        raise ValueError(f"version {version} with {tensors:,} tensors and {values:,} values")
    alignment, architecture, items, names = 32, "", 0, set()
    for _ in range(values):
        name = _string(file)
        (kind,) = struct.unpack("<I", file.read(4))
        if name == "general.alignment" and kind == 4:
            (alignment,) = struct.unpack("<I", file.read(4))
        elif name == "general.architecture" and kind == _STRING:
            architecture = _string(file)
            if architecture != ARCHITECTURE:
                return architecture
        else:
            items += _skip(file, kind, size, MAX_ITEMS - items)
        if file.tell() > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES:,} bytes before its tensors")
        if name in names:
            raise ValueError(f"{name[:80]!r} stands there twice")
        names.add(name)
    if alignment < 8 or alignment > 4096 or alignment & (alignment - 1):
        raise ValueError(f"an alignment of {alignment}")
    ends = [_tensor_end(file, alignment) for _ in range(tensors)]
    start = -(-file.tell() // alignment) * alignment
    if file.tell() > size or start + max(ends, default=0) > size:
        raise ValueError("its tensors end after the file")
    return architecture


def _tensor_end(file: BinaryIO, alignment: int) -> int:
    """Where a tensor's numbers end, counted from where all of them begin."""
    name = _string(file)
    (dims,) = struct.unpack("<I", file.read(4))
    if not 1 <= dims <= 4:
        raise ValueError(f"{name[:80]!r} has {dims} dimensions")
    *shape, kind, offset = struct.unpack(f"<{dims}QIQ", file.read(8 * dims + 12))
    if kind not in list(READABLE):
        known = {int(k): k.name for k in gguf.GGMLQuantizationType}
        raise ValueError(f"{name[:80]!r} is of the type {known.get(kind, kind)}")
    count = 1
    for n in shape:
        count *= n
    block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    if not 0 < count < 2**40 or shape[0] % block or offset % alignment or offset > 2**48:
        raise ValueError(f"{name[:80]!r} has a size it cannot have")
    return offset + count // block * block_bytes


def _skip(file: BinaryIO, kind: int, size: int, most: int) -> int:
    """Pass over a value; how many are in it, at most most."""
    count = 1
    if kind == _ARRAY:
        kind, count = struct.unpack("<IQ", file.read(12))
        if count > most:
            raise ValueError(f"a list of {count:,} values")
    if kind == _STRING:
        for _ in range(count):
            _string(file)
    elif kind in _SIZES:
        file.seek(count * _SIZES[kind], 1)
        if file.tell() > size:
            raise EOFError("a value ends after the file")
    else:
        raise ValueError(f"a value of the unknown kind {kind}")
    return count


def _string(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_STRING:
        raise ValueError(f"a text of {length:,} bytes")
    found = file.read(length)
    if len(found) < length:
        raise EOFError("a text ends after the file")
    return found.decode("utf-8")
