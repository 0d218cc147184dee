"""Serve the real app.py, with an engine that answers at once and says what it was asked; or that
engine alone, for a page that asks it from elsewhere.

Run as: python -m tests.protocol.serve PORT [engine [--ray]]
"""

import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

from storygen.catalogue import EXTRAS
from storygen.engine import local
from storygen.engine.fake import FakeEngine
from storygen.engine.interface import Details, Prompt, Segment, made
from storygen.params import SamplingParams

ROOT = Path(__file__).resolve().parents[2]
DELAY = 0.01  # seconds a token


class Echo(FakeEngine):
    """Writes as many words as it may. The end of the prompt decides what they are: the last
    nonce-... in it, the content of a file for `recite:FILE`, or an error for `explode`."""

    async def stream(
        self,
        model: str,
        prompt: Prompt,
        params: SamplingParams,
        *,
        user: str = "",
        details: Details | None = None,
    ) -> AsyncGenerator[Segment, None]:
        """The words, one a token; without any to repeat, the model's name and the seed. A mark
        counts a token."""
        n, written = 0, len(details.after) if details else 0
        async for segment in self._whole(model, await made(prompt), params):
            n += segment.token_count
            if n > written or segment.finish_reason:
                yield replace(segment, mark="x" * segment.token_count if details else "")

    async def _whole(
        self, model: str, prompt: str, params: SamplingParams
    ) -> AsyncGenerator[Segment, None]:
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
    """Put the engine in the place of the local one, then serve."""
    local.LocalEngine = lambda *_, **__: Echo()  # type: ignore[assignment,misc]  # in its place
    if "--ray" in sys.argv:  # it has replicas of the models that there are
        from tests.protocol.weights import ANY_TEXT, make_weights  # seconds: for Ray alone

        models = {info.name: info for info in Echo().models()}
        weights = make_weights(Path(tempfile.mkdtemp()), *models, tokenizer=ANY_TEXT)
        for name, info in models.items():
            card = {extra: getattr(info, extra) for extra in EXTRAS}
            (weights / name / "storygen.json").write_text(json.dumps(card), encoding="utf-8")
        os.environ["STORYGEN_WEIGHTS_DIR"] = str(weights)
    start()


def start() -> None:
    """Do what `chainlit run app.py` does, or for an engine `python -m storygen serve`."""
    port, *what = sys.argv[1:]
    if what[:1] == ["engine"]:
        from storygen import cli

        sys.argv[1:] = ["serve", "--port", port, *what[1:]]
        cli.main()
        return
    from chainlit.cli import cli as chainlit

    arguments: list[Any] = ["run", str(ROOT / "app.py"), "--headless", "--port", port]
    chainlit(arguments)


if __name__ == "__main__":
    from tests.protocol import serve  # by its name, as a replica's process finds it

    serve.main()
