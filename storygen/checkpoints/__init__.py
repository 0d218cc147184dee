"""Model directories: load one, save one. The on-disk form is Hugging Face's GPT-2 directory."""

from storygen.checkpoints.hf import load, save

__all__ = ["load", "save"]
