"""Where models run and in what numbers."""

import torch

from storygen.errors import EngineError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device_dtype(
    device: str, dtype: str, capability: tuple[int, int] | None
) -> tuple[torch.device, torch.dtype]:
    """What the settings `device` (auto, cpu, cuda) and `dtype` (auto, fp32, bf16, fp16) mean here.

    capability is the CUDA card's compute capability, None where there is no card. Cards from
    Ampere (8.0) on compute bf16; older ones such as the T4 (7.5) get fp16. A CPU gets fp32.
    Raises EngineError when a card is asked for and there is none.
    """
    if device == "cuda" and capability is None:
        raise EngineError(
            "STORYGEN_DEVICE is cuda, but PyTorch finds no CUDA card on this machine. "
            "Set it to auto or cpu."
        )
    chosen = torch.device("cpu" if device == "cpu" or capability is None else "cuda")
    if dtype != "auto":
        return chosen, DTYPES[dtype]
    if capability is None or chosen.type == "cpu":
        return chosen, torch.float32
    return chosen, torch.bfloat16 if capability >= (8, 0) else torch.float16


def cuda_capability() -> tuple[int, int] | None:
    """Compute capability of the CUDA card that PyTorch would use, None without one."""
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else None
