"""The uncached oracle: what the engine must equal, in the plainest words.

Slow on purpose: the whole window is read again for every token. `window_start` is the one rule
that oracle and engine share for stories longer than the context.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from storygen.model.gpt import GPT


def window_start(n_tokens: int, block_size: int) -> int:
    """Index of the first token the model sees when n_tokens are there.

    Nothing is cut while they fit. Then the window moves in steps of a quarter of the context, so
    that a cache is refilled once per step and not for every token.

    >>> [window_start(n, 8) for n in (7, 8, 9, 10, 11)]
    [0, 0, 2, 2, 4]
    """
    step = max(1, block_size // 4)
    over = max(0, n_tokens - block_size)
    return -(-over // step) * step


@torch.inference_mode()
def generate(
    model: GPT, idx: Tensor, max_new_tokens: int, choose: Callable[[Tensor, list[int]], int]
) -> list[int]:
    """The tokens that follow one sequence idx (1, T).

    choose maps the logits (vocab_size,) of the last position, and all ids so far, to the next id.
    """
    ids: list[int] = idx[0].tolist()
    n_prompt = len(ids)
    for _ in range(max_new_tokens):
        start = window_start(len(ids), model.config.block_size)
        logits = model(torch.tensor([ids[start:]], device=idx.device))  # (1, T, V)
        ids.append(choose(logits[0, -1], ids))
    return ids[n_prompt:]
