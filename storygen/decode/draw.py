"""The next tokens drawn on the device, by operations whose shapes depend on no number.

The same draw as sampling.sample(), made of the same functions: but nothing is decided by looking at
a tensor, so that a card does all of it without its host, and a CUDA graph can hold it.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from storygen.sampling import gumbel, min_p, temperature, top_p

NO_NUMBER, UNSURE = -1, -2  # instead of a token


class Kind(NamedTuple):
    """What the draws of a step have in common; what no row uses is left out."""

    n_tokens: int  # of the vocabulary
    width: int = 0  # how many of the largest logits are looked at; 0: all, and no row has top-k
    nucleus: bool = False  # whether a row has top-p
    penalised: bool = False  # whether a row has a repetition penalty
    adjusted: bool = False  # whether a row has adjustments


class Choices(NamedTuple):
    """The rows' settings, each (B,); see params.Row. Token ids of n_tokens and more are padding."""

    temperature: Tensor  # 0 is greedy
    top_p: Tensor
    min_p: Tensor
    penalty: Tensor
    seed: Tensor
    position: Tensor
    top_k: Tensor  # at least 1; the width stands for more
    context: Tensor  # (B, N) token ids
    ids: Tensor  # (B, A) of tokens that are adjusted, each once
    added: Tensor  # (B, A) to their logits


def draw(logits: Tensor, of: Choices, kind: Kind) -> Tensor:
    """A token for each row of logits (B, V) -> (B,); NO_NUMBER where they are none, and UNSURE
    where more tokens share the top-k-th logit than the width holds."""
    logits = logits[:, : kind.n_tokens].double()
    finite = logits.sum(dim=-1).isfinite()  # (B,)
    if kind.penalised:
        logits = _penalised(logits, of)
    if kind.adjusted:
        ids = of.ids.clamp(max=kind.n_tokens)  # padding goes into a column of its own
        logits = F.pad(logits, (0, 1)).scatter_add(1, ids, of.added)[:, : kind.n_tokens]
    greedy, best = of.temperature == 0, logits.argmax(dim=-1)  # (B,)
    values, ids = _largest(logits, kind.width)
    values = temperature(values, torch.where(greedy, 1.0, of.temperature)[:, None])
    unsure = torch.zeros_like(greedy)
    if kind.width:
        kth = of.top_k[:, None].clamp(max=kind.width) - 1
        threshold = values.gather(1, kth)  # (B, 1)
        if kind.width < kind.n_tokens:
            unsure = (values[:, -1:] >= threshold)[:, 0] & ~greedy
        values = values.masked_fill(values < threshold, -torch.inf)
    if kind.nucleus:
        values = top_p(values, of.top_p[:, None])
    values = min_p(values, of.min_p[:, None])
    noise = gumbel(of.seed[:, None], of.position[:, None], ids)
    drawn = ids.gather(1, (values + noise).argmax(dim=-1, keepdim=True))[:, 0]
    chosen = torch.where(greedy, best, drawn).masked_fill(unsure, UNSURE)
    return torch.where(finite, chosen, NO_NUMBER)


def _penalised(logits: Tensor, of: Choices) -> Tensor:
    """sampling.repetition_penalty() of all rows at once."""
    B, V = logits.shape
    seen = torch.zeros(B, V + 1, dtype=torch.bool, device=logits.device)
    seen = seen.scatter(1, of.context.clamp(max=V), True)[:, :V]
    penalty = of.penalty[:, None]
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _largest(logits: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The largest logits in descending order and their ids (B, width); for 0 all as they come."""
    B, V = logits.shape
    if not width:
        return logits, torch.arange(V, device=logits.device).expand(B, V)
    if width == V:
        ranked = logits.sort(dim=-1, descending=True)
        return ranked.values, ranked.indices
    best = logits.topk(width)
    return best.values, best.indices
