"""storygen: `torch` is what the engine does today, the other forms are the native decoder's."""

from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.peers import TEMPERATURE, Missing
from storygen.checkpoints import load
from storygen.engine.runner import Runner
from storygen.engine.sequence import Sequence
from storygen.params import SamplingParams


class System:
    """The engine's runner, which LocalEngine gives a turn for each token."""

    def __init__(self, directory: Path, form: str, work: Path, threads: int, streams: int) -> None:
        torch.set_num_threads(threads)
        self.runner = torch_runner(directory, streams) if form == "torch" else native(form)

    @torch.inference_mode()
    def generate(
        self,
        prompts: list[list[int]],
        tokens: int,
        top_k: int,
        seed: int,
        arrived: Callable[[int, int], None],
    ) -> None:
        """A request for each prompt, all of them at once."""
        rows = {}
        for row, prompt in enumerate(prompts):
            params = SamplingParams(tokens, TEMPERATURE, top_k, seed=seed + row)
            rows[Sequence("", " ".join(map(str, prompt)), params)] = row
        waiting = dict(rows)
        while waiting:
            before = {sequence: len(sequence.ids) for sequence in waiting}
            over = {outcome.request for outcome in self.runner.step(list(waiting)) if outcome.final}
            for sequence, row in waiting.items():
                # The first step reads the prompt as well: what is new then is what comes after it.
                if len(sequence.ids) > (before[sequence] or len(prompts[row])):
                    arrived(row, sequence.ids[-1])
            waiting = {s: row for s, row in waiting.items() if s not in over}


class Numbers:
    """A vocabulary whose words are the ids themselves, and in which no token ends a story."""

    eot_id, plain = None, False

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str) -> list[int]:
        """The ids of "17 4 256"."""
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int]) -> str:
        """The inverse."""
        return "".join(f" {token}" for token in ids)

    def token_bytes(self, token: int) -> bytes:
        """A word."""
        return b" %d" % token


def torch_runner(directory: Path, streams: int) -> Runner:
    """The runner of LocalEngine, in fp32 as it is on a CPU."""
    model, _ = load(directory)
    return Runner("", model, Numbers(model.config.vocab_size), streams)


def native(form: str) -> Runner:
    """The runner with the native decoder, its weights as fp32, bf16, int8 or int4."""
    raise Missing(f"storygen has no native {form} decoder yet.")
