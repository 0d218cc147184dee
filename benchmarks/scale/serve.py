"""The real page with an engine that costs next to nothing: prose at an even pace.

Run as: python -m benchmarks.scale.serve PORT
"""

import asyncio
import random
import sys
from collections.abc import AsyncGenerator
from typing import Any

from storygen.engine import local
from storygen.engine.fake import FakeEngine
from storygen.engine.interface import Prompt, Segment, made
from storygen.params import SamplingParams
from storygen.settings import ROOT

PACE = 0.01  # seconds a token
CHARACTERS = 4  # of a token, as our vocabulary has them
WORDS = "the lamp went out and she ran home through rain while Ann kept watch over an old house"


class Prose(FakeEngine):
    """Writes as many tokens as it may, words in a new order each time."""

    async def stream(
        self, model: str, prompt: Prompt, params: SamplingParams, *, user: str = "", **_: Any
    ) -> AsyncGenerator[Segment, None]:
        """The words, a token at a time."""
        await made(prompt)
        choose = random.Random(params.seed)
        length = CHARACTERS * params.max_new_tokens
        words = choose.choices(WORDS.split(), k=length)
        text = " ".join(["", *words])[:length]
        for start in range(0, length, CHARACTERS):
            await asyncio.sleep(PACE)
            yield Segment(text[start : start + CHARACTERS], 1)
        yield Segment("", 0, "length")


def main() -> None:
    """Put the engine in the place of the local one, then do what `chainlit run app.py` does."""
    local.LocalEngine = lambda *_, **__: Prose()  # type: ignore[assignment,misc]  # in its place
    from chainlit.cli import cli

    arguments: list[Any] = ["run", str(ROOT / "app.py"), "--headless", "--port", sys.argv[1]]
    cli(arguments)


if __name__ == "__main__":
    main()
