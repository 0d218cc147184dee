"""FakeEngine: plays scripts instead of models, for tests of what stands above an engine."""

import asyncio
import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from storygen.catalogue import ModelInfo
from storygen.engine.interface import (
    Details,
    FinishReason,
    Health,
    Prompt,
    Segment,
    TokenScore,
    WordScore,
    made,
)
from storygen.engine.sequence import check_prompt
from storygen.errors import EngineError, ModelNotFoundError
from storygen.params import SamplingParams

HALF = -0.6931471805599453  # natural logarithm
MARK = "m."  # of each segment

# What a stream does, one after another: a text is a segment, an error is raised.
Script = Sequence[str | Exception]


@dataclass
class FakeRequest:
    """One stream that was asked for, and how far it came: finish_reason stays None until it is
    over and is `cancelled` when the reader left early."""

    model: str
    prompt: str
    params: SamplingParams
    user: str = ""
    details: Details | None = None
    segments: list[Segment] = field(default_factory=list)
    finish_reason: FinishReason | None = None


class FakeEngine:
    """An Engine whose n-th stream plays the n-th script, and the last script from then on.

    A token is a word. delay is a pause in seconds before each segment; requests is what was asked.
    """

    def __init__(
        self,
        *scripts: Script,
        delay: float = 0.0,
        finish_reason: FinishReason = "stop",
        models: Sequence[ModelInfo] | None = None,
    ) -> None:
        self.scripts = scripts or ((" It", " was", " a", " dark", " night."),)
        self.delay, self.finish_reason = delay, finish_reason
        self.requests: list[FakeRequest] = []
        self._models = list(models) if models is not None else [_info("mystery"), _info("fantasy")]
        self._is_running = False

    @property
    def n_running(self) -> int:
        """Streams that are neither finished nor closed."""
        return sum(request.finish_reason is None for request in self.requests)

    async def start(self) -> None:
        """Get ready to serve."""
        self._is_running = True

    async def close(self) -> None:
        """Serve no more."""
        self._is_running = False

    def models(self) -> list[ModelInfo]:
        """The models given, or two."""
        return list(self._models)

    def health(self) -> Health:
        """How many streams there are."""
        return Health(running=self.n_running, is_alive=self._is_running)

    async def count_tokens(self, model: str, text: str) -> int:
        """Number of words."""
        self._check(model)
        return len(text.split())

    async def stream(
        self,
        model: str,
        prompt: Prompt,
        params: SamplingParams,
        *,
        user: str = "",
        details: Details | None = None,
    ) -> AsyncGenerator[Segment, None]:
        """Play the next script, from after the segments of the marks."""
        self._check(model)
        prompt = await made(prompt)
        check_prompt(prompt)
        script = self.scripts[min(len(self.requests), len(self.scripts) - 1)]
        request = FakeRequest(model, prompt, params, user, details)
        self.requests.append(request)
        reason: FinishReason = "cancelled"
        try:
            script = script[details.after.count(MARK) if details else 0 :]
            async for segment in self._play(script, details):
                request.segments.append(segment)
                yield segment
            reason = self.finish_reason
            yield Segment("", 0, reason)
        except Exception:
            reason = "error"
            raise
        finally:
            request.finish_reason = reason

    async def score(
        self, model: str, text: str, *, user: str = "", top: int = 0
    ) -> list[TokenScore]:
        """Every word is as probable as one in two."""
        self._check(model)
        return _scores(text, top)

    async def next_tokens(
        self, model: str, prompt: Prompt, n: int, *, user: str = ""
    ) -> list[TokenScore]:
        """The words of the last script, each as probable as one in two."""
        self._check(model)
        check_prompt(await made(prompt))
        words = [piece for piece in self.scripts[-1] if isinstance(piece, str)]
        return [TokenScore(word, HALF) for word in words[:n]]

    async def next_words(
        self, model: str, prompt: Prompt, n: int, *, user: str = ""
    ) -> list[WordScore]:
        """The words of the last script: half, a quarter, an eighth as probable."""
        self._check(model)
        check_prompt(await made(prompt))
        words = [piece for piece in self.scripts[-1] if isinstance(piece, str)]
        return [WordScore(word, 0.5 ** (i + 1)) for i, word in enumerate(words[:n])]

    async def _play(self, script: Script, details: Details | None) -> AsyncGenerator[Segment, None]:
        for piece in script:
            await asyncio.sleep(self.delay)
            if isinstance(piece, Exception):
                raise piece
            segment = Segment(piece, len(piece.split()))
            if details is not None:
                n = details.logprobs
                tokens = () if n is None else tuple(_scores(piece, n))
                segment = replace(segment, mark=MARK, tokens=tokens)
            yield segment

    def _check(self, model: str) -> None:
        if not self._is_running:
            raise EngineError("The engine is not running. Start storygen again.")
        if model not in [info.name for info in self._models]:
            raise ModelNotFoundError(f"There is no model {model!r}.")


def _scores(text: str, top: int) -> list[TokenScore]:
    """Words with the space before them; any other word is less probable."""
    others = [TokenScore(f" other{n}", HALF * (n + 1)) for n in range(1, top)]
    words = re.findall(r"\s*\S+\s*$|\s*\S+", text)
    return [TokenScore(w, HALF, (TokenScore(w, HALF), *others)[:top]) for w in words]


def _info(name: str) -> ModelInfo:
    return ModelInfo(
        name=name,
        directory=Path(name),
        block_size=128,
        n_layer=2,
        n_embd=32,
        vocab_size=256,
        display_name=name.capitalize(),
        genre=name,
        opening_lines=(f"A {name} begins here.",),
    )
