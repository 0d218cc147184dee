"""Memory: what a model will take, known before it is opened."""

from storygen.catalogue import ModelInfo
from storygen.decode.choose import n_slots, slot_bytes
from storygen.model.config import GPTConfig

# Bytes a weight, with the scales of those that are rounded.
BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.07, "int4": 0.6}

DRAW_BYTES = (
    160  # a token of the vocabulary: some twenty numbers of 8 bytes each, see decode/draw.py
)
OF_CARD = 0.9  # of its memory is for models; PyTorch and the libraries take some


def model_bytes(info: ModelInfo, form: str, slots: int) -> int:
    """Its weights, and the memory of all its slots, which is reserved when it is opened."""
    size = info.n_embd
    matrices = 12 * info.n_layer * size**2 * BYTES[form]
    head = info.vocab_size * size * max(BYTES[form], BYTES["int8"])
    positions = info.block_size * size * BYTES["fp32"]
    return int(matrices + head + positions) + reserved_bytes(info, slots)


def card_bytes(info: ModelInfo, form: str, slots: int) -> int:
    """The same on a CUDA card, where keys and values are in the model's own form, and a draw from
    a whole vocabulary is prepared in float64 for every slot."""
    size, room = info.n_embd, n_slots(_config(info), slots)
    weights = 12 * info.n_layer * size**2 + (info.vocab_size + info.block_size) * size
    cache = 2 * room * info.n_layer * size * (info.block_size + 1)
    return int(BYTES[form] * (weights + cache)) + DRAW_BYTES * room * info.vocab_size


def reserved_bytes(info: ModelInfo, slots: int) -> int:
    """What so many slots can come to hold, at most, however long stories get."""
    config = _config(info)
    return n_slots(config, slots) * slot_bytes(config)


def _config(info: ModelInfo) -> GPTConfig:
    return GPTConfig(
        vocab_size=info.vocab_size,
        block_size=info.block_size,
        n_layer=info.n_layer,
        n_head=1,
        n_embd=info.n_embd,
    )
