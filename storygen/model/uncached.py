"""The uncached oracle: what the engine must equal, in the plainest words.

Slow on purpose: the whole window is read again for every token. `window_start` is the one rule
that oracle and engine share for stories longer than the context.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from storygen.model.gpt import GPT
from storygen.model.windows import window_start


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
