"""How probable a text is: the log-probability of each token, in sliding windows."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from storygen.model.gpt import GPT
from storygen.model.windows import windows


def score_windows(model: GPT, ids: Sequence[int], eot_id: int | None) -> Iterator[Tensor]:
    """Natural log-probabilities of ids, a piece (n,) per window, in order.

    The first token follows eot_id. A vocabulary without one has nothing to put there: its first
    token counts as one of vocab_size equally likely ones.
    """
    if eot_id is None:
        if ids:
            yield torch.tensor([-math.log(model.config.vocab_size)])
        before, text = list(ids[:1]), ids[1:]
    else:
        before, text = [eot_id], ids
    tokens = torch.tensor([*before, *text], dtype=torch.long, device=model.wte.weight.device)
    for start, first, stop in windows(len(text), model.config.block_size):
        yield _predicted(model, tokens[start : stop + 1], first - start).cpu()


def token_logprobs(model: GPT, ids: Sequence[int], eot_id: int | None) -> Tensor:
    """Natural log-probability (N,) of each of N token ids; see score_windows."""
    return torch.cat([torch.empty(0), *score_windows(model, ids, eot_id)])


@torch.inference_mode()
def _predicted(model: GPT, tokens: Tensor, first: int) -> Tensor:
    """Log-probabilities (T - first,) of tokens[first:] of one window of tokens (T,)."""
    hidden = model.hidden(tokens[None, :-1])[0, first - 1 :]  # (T - first, C)
    logprobs = model.lm_head(hidden).float().log_softmax(dim=-1)  # (T - first, V)
    return logprobs.gather(-1, tokens[first:, None])[:, 0]
