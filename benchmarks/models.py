"""The models that are measured: random weights in three sizes, or one that ships, by name."""

from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path

import torch

from storygen.checkpoints import load, save
from storygen.checkpoints.adapter_files import base_of
from storygen.model import GPT, GPTConfig
from storygen.tokenizers import BYTE_SPELLING, END_OF_TEXT, BPETokenizer

SIZES = {
    "gpt2": GPTConfig(50257, 1024, n_layer=12, n_head=12, n_embd=768),
    "small": GPTConfig(8192, 1024, n_layer=8, n_head=8, n_embd=512),
    "tiny": GPTConfig(256, 256, n_layer=6, n_head=6, n_embd=384),
}


@dataclass(frozen=True)
class Subject:
    """A model directory and what a row needs to know of it."""

    name: str
    directory: Path
    config: GPTConfig

    @property
    def passage(self) -> tuple[int, int]:
        """Tokens of the prompt and of the passage: 128 and 256, or what the context holds."""
        block = self.config.block_size
        return (128, 256) if block > 384 else (block // 4, block - block // 4 - 1)

    def bytes_per_token(self, block_bits: float, head_bits: float) -> float:
        """The weights that one token needs: all matrices, of the embeddings only a row."""
        config = self.config
        head = config.vocab_size * config.n_embd
        blocks = config.n_layer * config.n_embd * (4 * config.n_embd + 2 * config.mlp_size)
        return (blocks * block_bits + head * head_bits) / 8


def subject(name: str, folder: Path, weights: Path) -> Subject:
    """A random model of the size `name`, made in folder once, or the model of that name."""
    if name in SIZES:
        directory = folder / name / "hf"
        if not (directory / "config.json").is_file():
            directory.parent.mkdir(parents=True, exist_ok=True)
            save(directory, random_model(SIZES[name]), spelling(SIZES[name].vocab_size))
        return Subject(name, directory, SIZES[name])
    model, tokenizer = load(weights / name)
    if base_of(weights / name) is None:
        return Subject(name, weights / name, model.config)
    merged = folder / name / "hf"  # peers know nothing of adapters
    save(merged, model, tokenizer, dtype=torch.float16)
    return Subject(name, merged, model.config)


def random_model(config: GPTConfig, seed: int = 0) -> GPT:
    """GPT-2's initialisation, but biases random too, or a peer that forgot one would agree; and
    larger matrices, or the shared embedding would make it write its last token for ever."""
    torch.manual_seed(seed)
    model = GPT(config).init_weights()
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.02)
        elif name.startswith("h.") and weight.dim() > 1:
            weight.data *= 3
    return model.requires_grad_(False).eval()


def widened(model: GPT, times: int, n_layer: int) -> GPT:
    """A network of so many times the width, and more layers, that computes the same: every number
    is there several times, and the further layers add nothing (Chen, Goodfellow and Shlens 2015,
    Net2Net). So a small model's prose comes from one of any size."""
    config = model.config
    assert config.n_inner is None
    assert config.tied
    larger = replace(
        config, n_embd=times * config.n_embd, n_head=times * config.n_head, n_layer=n_layer
    )
    wide, weights = GPT(larger), model.state_dict()
    for name, weight in wide.state_dict().items():
        if name not in weights:
            weight.zero_()
            continue
        parts = weights[name].chunk(3 if "c_attn" in name else 1)  # queries, keys, values
        if name in ("wte.weight", "wpe.weight", "lm_head.weight"):
            weight.copy_(parts[0].repeat(1, times))
        elif weight.dim() == 1:
            weight.copy_(torch.cat([part.repeat(times) for part in parts]))
        else:
            weight.copy_(torch.cat([part.repeat(times, times) for part in parts]) / times)
        if name.startswith("ln_f"):
            weight /= times  # what the output head adds up it adds up several times
    return wide.requires_grad_(False).eval()


def spelling(vocab_size: int) -> BPETokenizer:
    """A byte-level vocabulary of any size from 256 on: bytes, pairs of bytes, the end of a text.

    >>> spelling(8192).vocab_size
    8192
    """
    letters = list(BYTE_SPELLING.values())
    pairs = list(islice(product(letters, letters), max(0, vocab_size - 257)))
    tokens = [*letters, *(a + b for a, b in pairs), *[END_OF_TEXT] * (vocab_size > 256)]
    return BPETokenizer({token: n for n, token in enumerate(tokens)}, pairs)
