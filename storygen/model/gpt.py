"""GPT-2, in the order of the forward pass: attention, MLP, block, model.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners": a decoder-only
transformer with layer norm before each sub-layer and learned positions. Modules are named as in
the published checkpoints. Nothing here knows about training, sampling or serving.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from storygen.model.config import GPTConfig
from storygen.model.kv_cache import KVCache


class CausalSelfAttention(nn.Module):
    """Every position attends to itself and to those before it, in n_head subspaces."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.dropout
        # The trainer may put a function here that computes the same.
        self.attend: Callable[..., Tensor] = F.scaled_dot_product_attention
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)  # query, key and value at once
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, layer: int, cache: KVCache | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """x (B, T, C) -> (B, T, C); with a cache, keys and values of earlier calls come first."""
        B, T, C = x.shape
        q, k, v = self.c_attn(x).split(C, dim=2)
        q, k, v = (  # (B, T, C) -> (B, nh, T, hs)
            t.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for t in (q, k, v)
        )
        if cache is not None:
            k, v = cache.append(layer, k, v)  # (B, nh, S, hs), S the longest row
        y = self.attend(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and T > 1,
        )
        y = y.transpose(1, 2).reshape(B, T, C)  # heads side by side again
        return self.resid_dropout(self.c_proj(y))


class MLP(nn.Module):
    """Two linear layers with the configured activation between, applied to each position."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.c_fc = nn.Linear(config.n_embd, config.mlp_size)
        self.c_proj = nn.Linear(config.mlp_size, config.n_embd)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        x = self.c_fc(x)
        if self.activation == "relu":
            x = F.relu(x)
        else:
            x = F.gelu(x, approximate="tanh" if self.activation == "gelu_new" else "none")
        return self.dropout(self.c_proj(x))


class Block(nn.Module):
    """Attention, then MLP, each on a layer-normed copy and added to the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = CausalSelfAttention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, layer: int, cache: KVCache | None, mask: Tensor | None) -> Tensor:
        """x (B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.ln_1(x), layer, cache, mask)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Token ids in, logits of the next token at every position out."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        # Left unset: init_weights() or a checkpoint follows, and to draw them on the meta device
        # imports half of PyTorch, for a second.
        self.wte = _embedding(config.vocab_size, config.n_embd)
        self.wpe = _embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=config.output_bias)
        if config.tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """idx (B, T) token ids -> logits (B, T, vocab_size).

        With a cache, idx holds only the tokens after those it has seen; it must have B rows, and
        rows may be of different lengths. Without one, positions start at 0 and T is at most
        block_size.
        """
        return self.lm_head(self.hidden(idx, cache))

    def hidden(self, idx: Tensor, cache: KVCache | None = None) -> Tensor:
        """idx (B, T) -> what the output head sees (B, T, C).

        Filling a cache needs no logits, and a score only some: the head is a large matrix.
        """
        _, T = idx.shape
        mask = None
        if cache is None:
            assert T <= self.config.block_size, (T, self.config.block_size)
            positions = torch.arange(T, device=idx.device)  # (T,)
        else:
            positions, mask = cache.reserve(T)  # (B, T), (B, 1, T, S) or None
        x = self.drop(self.wte(idx) + self.wpe(positions))  # (B, T, C)
        for layer, block in enumerate(self.h):
            x = block(x, layer, cache, mask)
        return self.ln_f(x)

    def init_weights(self) -> "GPT":
        """GPT-2's initialisation: N(0, 0.02), residual projections scaled by 1/sqrt(2 n_layer)."""
        for name, weight in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            elif weight.dim() > 1:
                residual = name.endswith("c_proj.weight")
                std = 0.02 / math.sqrt(2 * self.config.n_layer) if residual else 0.02
                nn.init.normal_(weight, std=std)
        return self

    @property
    def n_params(self) -> int:
        """Number of weights; a shared head counts once."""
        return sum(weight.numel() for weight in self.parameters())


def _embedding(n: int, size: int) -> nn.Embedding:
    return nn.Embedding.from_pretrained(torch.empty(n, size), freeze=False)
