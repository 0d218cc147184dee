"""storygen: the engine's runner over the native decoder, and over PyTorch as without a compiler."""

from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.peers import TEMPERATURE, Missing
from storygen.checkpoints.packed import packed_file
from storygen.decode.build import native_library
from storygen.decode.choose import arithmetic
from storygen.engine.opening import open_model, quantize
from storygen.engine.runner import Runner
from storygen.engine.sequence import Sequence
from storygen.errors import EngineError
from storygen.params import SamplingParams


def prepare(directory: Path, form: str, work: Path) -> None:
    """Compile the native decoder, and keep the weights rounded, as `quantize` does."""
    if not form.startswith("torch"):
        try:
            native_library(work)
        except EngineError as error:
            raise Missing(str(error)) from None
        if not packed_file(directory, form).is_file():
            quantize(directory, form)


class System:
    """The engine's runner, which LocalEngine gives a turn for each token."""

    def __init__(self, directory: Path, form: str, work: Path, threads: int, streams: int) -> None:
        native = not form.startswith("torch")
        kind = form if native else {"torch": "fp32", "torch-int8": "int8"}[form]
        by = arithmetic("cpu", kind, None, work if native else None)
        decoder, _ = open_model(by, directory, streams, threads)
        self.runner = Runner("", decoder, Numbers(decoder.config.vocab_size))

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
            params = SamplingParams(tokens, TEMPERATURE, top_k, seed=seed + row, loop_guard=False)
            rows[Sequence("", " ".join(map(str, prompt)), params)] = row
        waiting = dict(rows)
        while waiting:
            before = {sequence: len(sequence.ids) for sequence in waiting}
            over = {outcome.request for outcome in self.runner.step(list(waiting)) if outcome.final}
            for sequence, row in waiting.items():
                # The first step brings the prompt as well; what is new is what comes after it.
                for token in sequence.ids[max(before[sequence], len(prompts[row])) :]:
                    arrived(row, token)
            waiting = {s: row for s, row in waiting.items() if s not in over}


class Numbers:
    """A vocabulary whose words are the ids themselves, and in which no token ends a story."""

    eot_id: int | None = None
    plain = False
    tokens_per_word = 1

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str) -> list[int]:
        """The ids of "17 4 256"."""
        return [int(word) for word in text.split()]

    def decode(self, ids: Iterable[int]) -> str:
        """The inverse."""
        return "".join(f" {token}" for token in ids)

    def token_bytes(self, token: int) -> bytes:
        """A word."""
        return b" %d" % token
