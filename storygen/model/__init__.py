"""The network: configuration, GPT, its key-value cache, the uncached oracle. Knows torch only."""

from storygen.model.config import GPTConfig
from storygen.model.generate import generate
from storygen.model.gpt import GPT
from storygen.model.kv_cache import KVCache

__all__ = ["GPT", "GPTConfig", "KVCache", "generate"]
