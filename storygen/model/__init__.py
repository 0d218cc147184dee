"""The network: configuration, GPT, its key-value cache, the uncached oracle. Knows torch only."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from storygen.model.config import GPTConfig

if TYPE_CHECKING:
    from storygen.model.gpt import GPT
    from storygen.model.kv_cache import KVCache
    from storygen.model.uncached import generate

__all__ = ["GPT", "GPTConfig", "KVCache", "generate"]

_WITH_TORCH = {
    "GPT": "storygen.model.gpt",
    "KVCache": "storygen.model.kv_cache",
    "generate": "storygen.model.uncached",
}


def __getattr__(name: str) -> Any:
    """The other names bring PyTorch, which takes seconds and 200 MB: not before it is needed."""
    if name in _WITH_TORCH:
        return getattr(import_module(_WITH_TORCH[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
