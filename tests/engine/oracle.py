"""The slow, plain way to write a passage, which every engine must equal."""

import torch

from storygen.engine.sequence import prompt_tail
from storygen.model import GPT, generate
from storygen.model.generate import window_start
from storygen.params import SamplingParams
from storygen.sampling import Row, sample
from storygen.tokenizers import StreamDecoder, Tokenizer


def passage(model: GPT, tokenizer: Tokenizer, prompt: str, params: SamplingParams) -> str:
    """What the uncached network writes, alone, reading its whole window for every token."""
    block_size = model.config.block_size
    ids = tokenizer.encode(prompt_tail(prompt, block_size))

    def choose(logits: torch.Tensor, ids: list[int]) -> int:
        context = ids[window_start(len(ids), block_size) :]
        [token] = sample(logits[None, : tokenizer.vocab_size], [Row(params, len(ids), context)])
        assert token is not None
        return token

    new = generate(model, torch.tensor([ids]), params.max_new_tokens, choose)
    if tokenizer.eot_id in new:
        new = new[: new.index(tokenizer.eot_id)]
    decoder = StreamDecoder(tokenizer)
    text = "".join(map(decoder.push, new))
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in params.stop if stop in text]
    return text[: min(ends)[1]] if ends else text
