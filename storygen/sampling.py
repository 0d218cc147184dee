"""From logits to the next token: filters as pure functions, and a reproducible draw.

A token is chosen in this order: repetition penalty, adjustments, temperature, top-k, top-p, min-p,
draw. All of it is done in float64, row by row: a row's token depends on its own logits and settings
only. Equal logits share one fate in every filter, so no result hangs on how a sort breaks ties.

The draw adds Gumbel noise, a function of (seed, position, token), and takes the largest sum; that
is a draw from the softmax. Logits of the same text differ by some 1e-6 in float32 when others are
in the batch, and this changes a token about as rarely: 0 of 15,000 measured. Looking one random
number up in the cumulated distribution would let 12 change, for it shifts all 8,192 boundaries.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from storygen.params import Row, SamplingParams


def sample(logits: Tensor, rows: Sequence[Row]) -> list[int | None]:
    """The next token of each row of logits (B, V); None where a row holds NaN or infinity."""
    params = [row.params for row in rows]
    logits = logits.double()  # in fp16 a row's sum would be infinite
    finite = logits.sum(dim=-1).isfinite()  # (B,)
    logits = repetition_penalty(
        logits, [row.context for row in rows], [p.repetition_penalty for p in params]
    )
    logits = adjusted(logits, [row.adjustments for row in rows])
    chosen = logits.argmax(dim=-1)  # (B,)
    if any(p.temperature > 0 for p in params):
        candidates, ids = _narrow(logits, [p.top_k for p in params if p.temperature > 0])
        seeds = _column([p.seed or 0 for p in params], logits)
        noise = gumbel(seeds, _column([row.position for row in rows], logits), ids)
        drawn = (_filtered(candidates, params) + noise).argmax(dim=-1, keepdim=True)  # (B, 1)
        greedy = torch.tensor([p.temperature == 0 for p in params], device=logits.device)
        chosen = torch.where(greedy, chosen, ids.gather(-1, drawn)[:, 0])
    return [token if token >= 0 else None for token in chosen.where(finite, -1).tolist()]


def _filtered(logits: Tensor, params: Sequence[SamplingParams]) -> Tensor:
    """Each row's own temperature, top-k, top-p and min-p; what no row uses is skipped."""
    logits = temperature(logits, _column([p.temperature or 1.0 for p in params], logits))
    if any(p.top_k for p in params):
        logits = top_k(logits, _column([p.top_k for p in params], logits))
    if any(p.top_p < 1 for p in params):
        logits = top_p(logits, _column([p.top_p for p in params], logits))
    if any(p.min_p > 0 for p in params):
        logits = min_p(logits, _column([p.min_p for p in params], logits))
    return logits


def _narrow(logits: Tensor, top_ks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Logits and ids (B, N) of the tokens that top-k can leave in any row.

    The whole vocabulary where a row has no top-k, or where a tie crosses the edge; else only the
    largest k, so that what follows works on dozens of numbers and not on thousands.
    """
    B, V = logits.shape
    k = max(top_ks)
    if 0 < min(top_ks) and k < V:
        values, ids = logits.topk(k + 1)
        if bool((values[:, k] < values[:, k - 1]).all()):
            return values[:, :k], ids[:, :k]
    return logits, torch.arange(V, device=logits.device).expand(B, V)


def repetition_penalty(
    logits: Tensor, contexts: Sequence[Sequence[int]], penalties: Sequence[float]
) -> Tensor:
    """Make tokens of each row's context less likely; logits (B, V) -> (B, V).

    Keskar et al. 2019 (CTRL), with the sign minded: a positive logit is divided by the penalty, a
    negative one multiplied. How often a token occurred does not matter.
    """
    if all(penalty == 1 for penalty in penalties):
        return logits
    logits = logits.clone()
    for row, context, penalty in zip(logits, contexts, penalties, strict=True):
        ids = torch.tensor(context, dtype=torch.long, device=logits.device)
        seen = row[ids]
        row[ids] = torch.where(seen > 0, seen / penalty, seen * penalty)
    return logits


def adjusted(logits: Tensor, adjustments: Sequence[Sequence[tuple[int, float]]]) -> Tensor:
    """Add to the logits of some tokens of each row; logits (B, V) -> (B, V)."""
    if not any(adjustments):
        return logits
    logits = logits.clone()
    for row, pairs in zip(logits, adjustments, strict=True):
        for token, added in pairs:
            row[token] += added
    return logits


def temperature(logits: Tensor, t: float | Tensor) -> Tensor:
    """Sharpen (t < 1) or flatten (t > 1); logits (B, V) -> (B, V), the largest at 0.

    t is above 0, one number or (B, 1). Shifting first keeps the tiniest t from overflowing.
    """
    # As a tensor: torch divides by a number by multiplying with 1 / t, which may be infinite.
    t = torch.as_tensor(t, dtype=logits.dtype, device=logits.device)
    return (logits - logits.amax(dim=-1, keepdim=True)) / t


def top_k(logits: Tensor, k: int | Tensor) -> Tensor:
    """Keep the k largest and what equals the k-th; logits (B, V) -> (B, V).

    k is one number or (B, 1); 0 and more than V keep all.
    """
    B, V = logits.shape
    k = torch.as_tensor(k, device=logits.device).expand(B, 1)
    k = torch.where(k == 0, V, k).clamp(max=V)
    threshold = logits.topk(int(k.max())).values.gather(-1, k - 1)  # (B, 1)
    return logits.masked_fill(logits < threshold, -torch.inf)


def top_p(logits: Tensor, p: float | Tensor) -> Tensor:
    """Keep the fewest tokens whose probability reaches p (Holtzman et al. 2019, nucleus
    sampling), the one that crosses it included; logits (B, V) -> (B, V), p one number or (B, 1).
    """
    probs = logits.softmax(dim=-1)
    ranked = probs.sort(dim=-1, descending=True).values
    before = ranked.cumsum(dim=-1) - ranked  # mass of the more probable tokens; 0 for the first
    threshold = ranked.masked_fill(before >= p, 1.0).amin(dim=-1, keepdim=True)  # (B, 1)
    # Rounding may lift a cumulated mass to 1 too early: p = 1 has to keep all.
    drop = (probs < threshold) & (torch.as_tensor(p, device=logits.device) < 1)
    return logits.masked_fill(drop, -torch.inf)


def min_p(logits: Tensor, p: float | Tensor) -> Tensor:
    """Keep tokens at least p times as probable as the most probable (Nguyen et al. 2024);
    logits (B, V) -> (B, V), p one number or (B, 1)."""
    ratio = (logits - logits.amax(dim=-1, keepdim=True)).exp()
    return logits.masked_fill(ratio < p, -torch.inf)


def gumbel(seed: Tensor, position: Tensor, ids: Tensor) -> Tensor:
    """Standard Gumbel noise for each token; seed (B, 1), position (B, 1), ids (B, N) -> (B, N).

    Each number looks random and is a function of its seed, position and id alone: a generator's
    state would depend on what was drawn before; this can start anywhere, for any tokens.
    """
    bits = _splitmix64(_splitmix64(seed, position), ids)
    u = (_shifted(bits, 12).double() + 0.5) * 2.0**-52  # in (0, 1), exactly
    return -(-u.log()).log()


def _splitmix64(state: Tensor, n: Tensor) -> Tensor:
    """The n-th output of SplitMix64 (Steele, Lea and Flood 2014) from a state: 64 bits as int64,
    which wraps around as the unsigned numbers of the original do."""
    z = state + (n + 1) * (0x9E3779B97F4A7C15 - 2**64)
    z = (z ^ _shifted(z, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    z = (z ^ _shifted(z, 27)) * (0x94D049BB133111EB - 2**64)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, n: int) -> Tensor:
    """z >> n with zeros from the left, where int64 would repeat its sign."""
    return (z >> n) & (2 ** (64 - n) - 1)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    """One value a row, as (B, 1) on the device of `like`; fractions in float64."""
    dtype = torch.float64 if isinstance(values[0], float) else torch.long
    return torch.tensor(values, dtype=dtype, device=like.device)[:, None]
