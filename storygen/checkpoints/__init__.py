"""Model directories: load one, save one. The on-disk form is Hugging Face's GPT-2 directory, or an
adapter in PEFT's form over one."""

from storygen.checkpoints.adapter import load, load_tokenizer
from storygen.checkpoints.hf import save

__all__ = ["load", "load_tokenizer", "save"]
