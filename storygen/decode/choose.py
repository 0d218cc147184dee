"""Which decoder computes a model here, and in what numbers."""

import logging
import math
import os
from collections.abc import Mapping
from ctypes import CDLL
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from storygen.decode.build import native_library
from storygen.decode.interface import Decoder
from storygen.decode.native import NativeDecoder
from storygen.decode.pack import FORMATS, Packed
from storygen.errors import EngineError
from storygen.model.config import GPTConfig

if TYPE_CHECKING:  # it takes seconds and 200 MB, and native code does without
    import torch

    from storygen.model import GPT

log = logging.getLogger(__name__)

TORCH = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "float32"}
WITHOUT_LIBRARY = {"int4": "int8"}  # what PyTorch takes for a form it has not
MOST_THREADS = 8  # more do not read memory faster
SPARE_BYTES = 128 * 2**20  # for what stories told that are not being written just now


@dataclass(frozen=True)
class Arithmetic:
    """Where models are computed, the form of their weights, and the library that does it: without
    one, PyTorch."""

    device: str  # cpu or cuda
    form: str  # fp32, bf16, fp16, int8 or int4
    library: CDLL | None = None

    @property
    def load_dtype(self) -> "torch.dtype | None":
        """What a network is loaded as; None as it is stored: native code makes its own form."""
        import torch

        return None if self.library is not None else getattr(torch, TORCH[self.form])


def arithmetic(
    device: str, dtype: str, capability: tuple[int, int] | None, folder: Path | None
) -> Arithmetic:
    """What to compute with here. Compiles the library into folder where it is needed, in seconds;
    None does without. Raises EngineError for what cannot be."""
    place, form = choose(device, dtype, capability)
    if place == "cpu" and form in FORMATS and folder is not None:
        try:
            return Arithmetic(place, form, native_library(folder))
        except (EngineError, OSError) as error:
            log.warning("%s", error)
    return Arithmetic(place, WITHOUT_LIBRARY.get(form, form))


def open_decoder(by: Arithmetic, network: "GPT", slots: int, threads: int) -> Decoder:
    """A decoder for so many stories at a time, and some that are not being written just now."""
    if by.device == "cuda":
        from storygen.decode.graphs import GraphDecoder  # nobody else needs it

        on_card = GraphDecoder(network, n_slots(network.config, slots))
        on_card.warm(1, network.config.vocab_size)  # what more writers need is recorded with them
        return on_card
    if by.library is None:
        # PyTorch's threads wait for each other by spinning: where the page, a browser or a training
        # takes one of the cores for a moment, using all of them costs a step 50 times its time.
        from storygen.decode.scripted import ScriptedDecoder
        from storygen.decode.whole import in_whole_numbers

        if by.form == "int8":
            in_whole_numbers(network)
        threads = threads or max(1, cores() - 1)
        return ScriptedDecoder(network, n_slots(network.config, slots), threads)
    return native_decoder(by, network.config, arrays_of(network), slots, threads)


def arrays_of(network: "GPT") -> dict[str, np.ndarray]:
    """The weights of a network on a CPU, in float32."""
    return {name: weight.float().numpy() for name, weight in network.state_dict().items()}


def native_decoder(
    by: Arithmetic,
    config: GPTConfig,
    weights: Mapping[str, np.ndarray],
    slots: int,
    threads: int,
    matrices: Mapping[str, Packed] | None = None,
) -> NativeDecoder:
    """The same by native code; matrices may be in their form already (see NativeDecoder)."""
    assert by.library is not None, by
    threads = threads or min(MOST_THREADS, cores())
    room = n_slots(config, slots)
    return NativeDecoder(by.library, config, weights, by.form, room, threads, matrices)


def n_slots(config: GPTConfig, slots: int) -> int:
    """Slots for those who write at a time, and for some who do not just now."""
    return slots + max(1, min(slots, SPARE_BYTES // slot_bytes(config)))


def cores() -> int:
    """Those this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def slot_bytes(config: GPTConfig) -> int:
    """Memory of a full slot, at most."""
    return 8 * config.n_layer * config.n_embd * config.block_size


def choose(device: str, dtype: str, capability: tuple[int, int] | None) -> tuple[str, str]:
    """What the settings `device` (auto, cpu, cuda) and `dtype` (auto or a form) mean here.

    capability is the CUDA card's compute capability, None where there is no card. Cards from
    Ampere (8.0) on compute bf16; older ones such as the T4 (7.5) get fp16. A CPU gets int8, the
    fastest that costs next to nothing (docs/speed.md). Raises EngineError for what cannot be.
    """
    if device == "cuda" and capability is None:
        raise EngineError(
            "STORYGEN_DEVICE is cuda, but PyTorch finds no CUDA card on this machine. "
            "Set it to auto or cpu."
        )
    on_card = device != "cpu" and capability is not None
    if on_card and dtype in ("int8", "int4"):
        raise EngineError(
            f"STORYGEN_DTYPE is {dtype}, which only a CPU computes here. "
            "Set it to auto, bf16 or fp16, or STORYGEN_DEVICE to cpu."
        )
    if not on_card:
        return "cpu", "int8" if dtype == "auto" else dtype
    automatic = "bf16" if capability is not None and capability >= (8, 0) else "fp16"
    return "cuda", automatic if dtype == "auto" else dtype


def cuda_capability() -> tuple[int, int] | None:
    """Compute capability of the CUDA card that PyTorch would use, None without one."""
    if not _has_driver():
        return None
    import torch

    return torch.cuda.get_device_capability() if torch.cuda.is_available() else None


def cuda_bytes() -> float:
    """Memory of that card, which native code for CPUs does not use: infinite without one."""
    if cuda_capability() is None:
        return math.inf
    import torch

    return torch.cuda.get_device_properties().total_memory


def _has_driver() -> bool:
    """Whether there is a driver for cards at all, NVIDIA's or AMD's: most machines have none."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            CDLL(name)
            return True
        except OSError:
            pass
    return Path("/dev/kfd").exists()
