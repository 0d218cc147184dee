"""Model directories: load one, save one. The on-disk form is Hugging Face's GPT-2 directory, or an
adapter in PEFT's form over one."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from storygen.checkpoints.adapter_files import load_tokenizer

if TYPE_CHECKING:
    from storygen.checkpoints.adapter import load
    from storygen.checkpoints.models import save

__all__ = ["load", "load_tokenizer", "save"]

_WITH_TORCH = {"load": "storygen.checkpoints.adapter", "save": "storygen.checkpoints.models"}


def __getattr__(name: str) -> Any:
    """load and save bring PyTorch, which takes seconds and 200 MB: not before it is needed."""
    if name in _WITH_TORCH:
        return getattr(import_module(_WITH_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
