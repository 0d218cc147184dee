"""The character-level GPT of Karpathy's lecture, written anew with its names.

`scale` is which width the attention scores are divided by the root of: "embd", the model's, as in
the lecture, or "head", as in later versions. `movie_plots` has the names of MoviePlotGPT.
"""

import torch
from torch import nn


class Head(nn.Module):
    def __init__(self, n_embd, head_size, block_size, scale):
        super().__init__()
        self.key = nn.Linear(n_embd, head_size, bias=False)
        self.query = nn.Linear(n_embd, head_size, bias=False)
        self.value = nn.Linear(n_embd, head_size, bias=False)
        self.register_buffer("tril", torch.tril(torch.ones(block_size, block_size)))
        self.divisor = (n_embd if scale == "embd" else head_size) ** 0.5

    def forward(self, x):
        T = x.shape[1]
        wei = self.query(x) @ self.key(x).transpose(-2, -1) / self.divisor  # (B, T, T)
        wei = wei.masked_fill(self.tril[:T, :T] == 0, -torch.inf).softmax(dim=-1)
        return wei @ self.value(x)


class MultiHeadAttention(nn.Module):
    def __init__(self, n_embd, n_head, block_size, scale):
        super().__init__()
        size = n_embd // n_head
        self.heads = nn.ModuleList(Head(n_embd, size, block_size, scale) for _ in range(n_head))
        self.proj = nn.Linear(n_embd, n_embd)

    def forward(self, x):
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))


class FeedForward(nn.Module):
    def __init__(self, n_embd):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(n_embd, 4 * n_embd), nn.ReLU(), nn.Linear(4 * n_embd, n_embd), nn.Dropout(0.2)
        )

    def forward(self, x):
        return self.net(x)


class Block(nn.Module):
    def __init__(self, n_embd, n_head, block_size, scale):
        super().__init__()
        self.sa = MultiHeadAttention(n_embd, n_head, block_size, scale)
        self.ffwd = FeedForward(n_embd)
        self.ln1, self.ln2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)

    def forward(self, x):
        x = x + self.sa(self.ln1(x))
        return x + self.ffwd(self.ln2(x))


class GPTLanguageModel(nn.Module):
    def __init__(
        self, vocab_size, n_embd, n_head, n_layer, block_size, scale="embd", movie_plots=False
    ):
        super().__init__()
        positions = "positional_embedding" if movie_plots else "position_embedding_table"
        self.token_embedding_table = nn.Embedding(vocab_size, n_embd)
        self.add_module(positions, nn.Embedding(block_size, n_embd))
        self.positions = [self.get_submodule(positions)]  # in a list: not a second name
        self.blocks = nn.Sequential(
            *(Block(n_embd, n_head, block_size, scale) for _ in range(n_layer))
        )
        self.ln_f = nn.LayerNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size)

    def forward(self, idx):
        x = self.token_embedding_table(idx) + self.positions[0](torch.arange(idx.shape[1]))
        return self.lm_head(self.ln_f(self.blocks(x)))
