"""transformers: generate() with a dynamic cache, as its documentation has it."""

from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.generation.streamers import BaseStreamer

from benchmarks.peers import TEMPERATURE


class System:
    """The model in float32 or bfloat16."""

    def __init__(self, directory: Path, form: str, work: Path, threads: int, streams: int) -> None:
        torch.set_num_threads(threads)
        dtype = getattr(torch, form)
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()
        self.model.generation_config.eos_token_id = None  # so that no passage ends early
        self.model.generation_config.pad_token_id = 0

    def generate(
        self,
        prompts: list[list[int]],
        tokens: int,
        top_k: int,
        seed: int,
        arrived: Callable[[int, int], None],
    ) -> None:
        """All prompts as one batch."""
        torch.manual_seed(seed)
        ids = torch.tensor(prompts)
        self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=top_k,
            streamer=_Arrivals(arrived),
        )


class _Arrivals(BaseStreamer):
    def __init__(self, arrived: Callable[[int, int], None]) -> None:
        self._arrived, self._prompt = arrived, True

    def put(self, value: torch.Tensor) -> None:
        """The prompts first, then a token for each of them."""
        if not self._prompt:
            for row, token in enumerate(value.tolist()):
                self._arrived(row, token)
        self._prompt = False

    def end(self) -> None:
        """Nothing is held back."""
