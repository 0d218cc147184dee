"""Serve the real app.py as tests/protocol does, with models whose names are attacks, and write down
what it serves: every route and socket event of the running application, every verb of the
workspace beside the chat, every button and every command.

Run as: python -m tests.security.serve PORT
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute, Mount

from storygen.catalogue import ModelInfo
from storygen.engine import local
from storygen.engine.fake import FakeEngine
from tests.protocol.serve import ROOT, Echo
from tests.security.payloads import PAYLOADS

SURFACE = "surface.json"  # in the data directory


class Watched(Echo):
    """When it starts, all routes and events are there."""

    def __init__(self) -> None:
        plain = FakeEngine().models()
        super().__init__(models=[*plain, *(hostile(plain[0], text) for text in PAYLOADS)])

    async def start(self) -> None:
        """Write down what is served."""
        from chainlit.config import config
        from chainlit.server import app, sio

        from storygen.chat import buttons, workspace

        events = {space: sorted(handlers) for space, handlers in sio.handlers.items()}
        surface = {
            "routes": sorted(routes(app.router.routes)),
            "events": events,
            "verbs": sorted(workspace.VERBS),
            "buttons": sorted(config.code.action_callbacks),
            "commands": sorted(command["id"] for command in buttons.commands()),
        }
        path = Path(os.environ["STORYGEN_DATA_DIR"]) / SURFACE
        path.write_text(json.dumps(surface), encoding="utf-8")
        await super().start()


def hostile(model: ModelInfo, text: str) -> ModelInfo:
    """A model whose card says this text wherever it can."""
    name = text.encode("ascii", "ignore").decode().translate({ord(c): "_" for c in "/\\\0\n\t"})
    return replace(
        model,
        name=name[:80],
        display_name=text,
        genre=text,
        description=text,
        opening_lines=(text,),
    )


def routes(served: Sequence[BaseRoute], prefix: str = "") -> set[str]:
    """Method and path of each route, those of mounted applications too."""
    found: set[str] = set()
    for route in served:
        path = prefix + str(getattr(route, "path", type(route).__name__))
        if isinstance(route, Mount):
            inner = routes(route.routes or [], path)
            found |= inner or {f"MOUNT {path}"}
        else:
            methods = getattr(route, "methods", None) or {type(route).__name__}
            found |= {f"{method} {path}" for method in methods}
    return found


def main() -> None:
    """Put the engine in the place of the local one, then do what `chainlit run app.py` does."""
    local.LocalEngine = lambda *_, **__: Watched()  # type: ignore[assignment,misc]  # in its place
    from chainlit.cli import cli

    arguments: list[Any] = ["run", str(ROOT / "app.py"), "--headless", "--port", sys.argv[1]]
    cli(arguments)


if __name__ == "__main__":
    main()
