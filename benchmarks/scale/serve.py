"""The real page, or the real API alone, with an engine that costs next to nothing: prose at an
even pace.

Run as: python -m benchmarks.scale.serve page|api PORT
"""

import asyncio
import random
import sys
from collections.abc import AsyncGenerator
from typing import Any

from storygen.engine import local
from storygen.engine.fake import FakeEngine
from storygen.engine.interface import Details, Prompt, Segment, made
from storygen.params import SamplingParams
from storygen.serve import command
from storygen.settings import ROOT, load_settings

PACE = 0.01  # seconds a token
CHARACTERS = 4  # of a token, as our vocabulary has them
MARK = "4095."
WORDS = "the lamp went out and she ran home through rain while Ann kept watch over an old house"


class Prose(FakeEngine):
    """Writes as many tokens as it may, words in a new order each time."""

    async def stream(
        self,
        model: str,
        prompt: Prompt,
        params: SamplingParams,
        *,
        user: str = "",
        details: Details | None = None,
    ) -> AsyncGenerator[Segment, None]:
        """The words, a token at a time, with a mark of the usual length where one is asked for."""
        mark = MARK if details else ""
        await made(prompt)
        choose = random.Random(params.seed)
        length = CHARACTERS * params.max_new_tokens
        words = choose.choices(WORDS.split(), k=length)
        text = " ".join(["", *words])[:length]
        for start in range(0, length, CHARACTERS):
            await asyncio.sleep(PACE)
            yield Segment(text[start : start + CHARACTERS], 1, mark=mark)
        yield Segment("", 0, "length")


def main() -> None:
    """Serve the API; or put the engine in the place of the local one, and serve the page."""
    what, port = sys.argv[1:]
    if what == "api":
        command.run(load_settings(), Prose(), "127.0.0.1", int(port))
        return
    local.LocalEngine = lambda *_, **__: Prose()  # type: ignore[assignment,misc]  # in its place
    from chainlit.cli import cli

    arguments: list[Any] = ["run", str(ROOT / "app.py"), "--headless", "--port", port]
    cli(arguments)


if __name__ == "__main__":
    main()
