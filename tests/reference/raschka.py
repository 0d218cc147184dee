"""The network of "Build a Large Language Model (From Scratch)", written anew with its names.

`fast` is what the book's later packages do instead: torch's layer norm, one matrix for query, key
and value. `wrapper` is the attention of its third chapter: a module for each head, no
projection.
"""

import torch
from torch import nn


class LayerNorm(nn.Module):
    def __init__(self, emb_dim):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x):
        spread = x.var(dim=-1, keepdim=True, unbiased=False)
        return self.scale * (x - x.mean(dim=-1, keepdim=True)) / torch.sqrt(spread + 1e-5) + (
            self.shift
        )


class GELU(nn.Module):
    def forward(self, x):
        inner = torch.sqrt(torch.tensor(2.0 / torch.pi)) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + torch.tanh(inner))


class FeedForward(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        width = cfg["emb_dim"]
        gelu = nn.GELU(approximate="tanh") if cfg.get("fast") else GELU()
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), gelu, nn.Linear(4 * width, width))

    def forward(self, x):
        return self.layers(x)


def attend(q, k, v, mask):
    """Heads (..., T, hs): softmax of the scaled and masked scores, times the values."""
    scores = q @ k.transpose(-2, -1)
    scores = scores.masked_fill(mask.bool()[: q.shape[-2], : q.shape[-2]], -torch.inf)
    return torch.softmax(scores / k.shape[-1] ** 0.5, dim=-1) @ v


class MultiHeadAttention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        width, T = cfg["emb_dim"], cfg["context_length"]
        self.num_heads = cfg["n_heads"]
        self.W_query = nn.Linear(width, width, bias=cfg["qkv_bias"])
        self.W_key = nn.Linear(width, width, bias=cfg["qkv_bias"])
        self.W_value = nn.Linear(width, width, bias=cfg["qkv_bias"])
        self.out_proj = nn.Linear(width, width)
        self.register_buffer("mask", torch.triu(torch.ones(T, T), diagonal=1))

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (
            w(x).view(B, T, self.num_heads, -1).transpose(1, 2)
            for w in (self.W_query, self.W_key, self.W_value)
        )
        return self.out_proj(attend(q, k, v, self.mask).transpose(1, 2).reshape(B, T, C))


class CausalAttention(nn.Module):
    """One head of the third chapter."""

    def __init__(self, cfg):
        super().__init__()
        width, T = cfg["emb_dim"], cfg["context_length"]
        self.W_query = nn.Linear(width, width // cfg["n_heads"], bias=cfg["qkv_bias"])
        self.W_key = nn.Linear(width, width // cfg["n_heads"], bias=cfg["qkv_bias"])
        self.W_value = nn.Linear(width, width // cfg["n_heads"], bias=cfg["qkv_bias"])
        self.register_buffer("mask", torch.triu(torch.ones(T, T), diagonal=1))

    def forward(self, x):
        return attend(self.W_query(x), self.W_key(x), self.W_value(x), self.mask)


class MultiHeadAttentionWrapper(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.heads = nn.ModuleList(CausalAttention(cfg) for _ in range(cfg["n_heads"]))

    def forward(self, x):
        return torch.cat([head(x) for head in self.heads], dim=-1)


class FusedAttention(nn.Module):
    """Of the later packages."""

    def __init__(self, cfg):
        super().__init__()
        self.num_heads = cfg["n_heads"]
        self.qkv = nn.Linear(cfg["emb_dim"], 3 * cfg["emb_dim"], bias=cfg["qkv_bias"])
        self.proj = nn.Linear(cfg["emb_dim"], cfg["emb_dim"])

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))


class TransformerBlock(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        kinds = {"wrapper": MultiHeadAttentionWrapper, "fast": FusedAttention}
        kind = next((kinds[k] for k in kinds if cfg.get(k)), MultiHeadAttention)
        norm = nn.LayerNorm if cfg.get("fast") else LayerNorm
        self.att = kind(cfg)
        self.ff = FeedForward(cfg)
        self.norm1, self.norm2 = norm(cfg["emb_dim"]), norm(cfg["emb_dim"])

    def forward(self, x):
        x = x + self.att(self.norm1(x))
        return x + self.ff(self.norm2(x))


class GPTModel(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        width = cfg["emb_dim"]
        self.tok_emb = nn.Embedding(cfg["vocab_size"], width)
        self.pos_emb = nn.Embedding(cfg["context_length"], width)
        self.trf_blocks = nn.Sequential(*(TransformerBlock(cfg) for _ in range(cfg["n_layers"])))
        self.final_norm = nn.LayerNorm(width) if cfg.get("fast") else LayerNorm(width)
        self.out_head = nn.Linear(width, cfg["vocab_size"], bias=False)

    def forward(self, idx):
        x = self.tok_emb(idx) + self.pos_emb(torch.arange(idx.shape[1]))
        return self.out_head(self.final_norm(self.trf_blocks(x)))
