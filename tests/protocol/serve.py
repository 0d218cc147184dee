"""Serve the real app.py, with an engine that answers at once and says what it was asked.

Run as: python -m tests.protocol.serve PORT
"""

import asyncio
import re
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from storygen.engine import local
from storygen.engine.fake import FakeEngine
from storygen.engine.interface import Prompt, Segment, made
from storygen.params import SamplingParams

ROOT = Path(__file__).resolve().parents[2]
DELAY = 0.01  # seconds a token


class Echo(FakeEngine):
    """Writes as many words as it may. The end of the prompt decides what they are: the last
    nonce-... in it, the content of a file for `recite:FILE`, or an error for `explode`."""

    async def stream(
        self, model: str, prompt: Prompt, params: SamplingParams, *, user: str = ""
    ) -> AsyncGenerator[Segment, None]:
        """The words, one a token; without any to repeat, the model's name and the seed."""
        prompt = await made(prompt)
        if prompt.endswith("explode"):
            raise RuntimeError("a secret path: /home/writer/key")
        if recited := re.search(r"recite:(\S+)$", prompt):
            text = _read(recited[1])
            for start in range(0, len(text), 7):
                yield Segment(text[start : start + 7], 1)
            yield Segment("", 0, "stop")
            return
        nonces = re.findall(r"nonce-\w+", prompt)
        word = nonces[-1] if nonces else f"{model}-{params.seed}"
        for _ in range(params.max_new_tokens):
            await asyncio.sleep(DELAY)
            yield Segment(f" {word}", 1)
        yield Segment("", 0, "length")


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def main() -> None:
    """Put the engine in the place of the local one, then do what `chainlit run app.py` does."""
    local.LocalEngine = lambda *_, **__: Echo()  # type: ignore[assignment,misc]  # in its place
    from chainlit.cli import cli

    port = sys.argv[1]
    arguments: list[Any] = ["run", str(ROOT / "app.py"), "--headless", "--port", port]
    cli(arguments)


if __name__ == "__main__":
    main()
