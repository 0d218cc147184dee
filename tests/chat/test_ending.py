"""The end of the server, seen from inside: nothing is begun, and who waits is told first."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from chainlit.action import Action

from storygen.chat import ending, events
from storygen.chat.ending import RESTARTED, SAVED, Ending
from storygen.chat.state import Chat, Studio
from storygen.connections import Connection
from storygen.story import leash
from tests.chat.conftest import Window


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """What the handler that was there before is told; the signal handlers stay as they were."""
    monkeypatch.setattr(leash, "stopping", threading.Event())
    monkeypatch.setattr(ending, "SECONDS", 3600.0)
    monkeypatch.setattr(ending, "LEAVING", 0.0)
    told: list[int] = []
    kept = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    for number in kept:
        signal.signal(number, lambda number, frame: told.append(number))
    yield told
    for number, handler in kept.items():
        signal.signal(number, handler)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a signal handler sets no event
            await asyncio.sleep(0)


async def test_windows_are_told_before_the_server_is(
    window: Window, studio: Studio, asked: list[int]
) -> None:
    assert window.chat in studio.windows()
    Ending(studio).listen()
    signal.raise_signal(signal.SIGTERM)
    assert studio.is_ending
    assert leash.stopping.is_set()
    assert asked == []
    await until(lambda: asked)
    assert asked == [signal.SIGTERM]
    assert window.browser.toasts == [f"{RESTARTED} {SAVED}"]


def test_chainlits_server_waits_neither_for_ever_nor_for_long() -> None:
    config = uvicorn.Config(lambda: None)
    ending._bound(uvicorn.Server(config))
    assert config.http_protocol_class is Connection
    assert config.timeout_graceful_shutdown == ending.ANSWERING


async def test_nothing_is_begun_at_the_end(window: Window, studio: Studio) -> None:
    await window.type("Begin.")
    before = await window.texts()
    begun: list[Any] = []

    async def handler(chat: Chat, payload: Any) -> None:
        begun.append(payload)

    studio.is_ending = True
    await events._handled(studio, handler)(window.session.socket_id, {"message": "on"})
    assert begun == []
    assert any("is being restarted" in said for said in window.browser.outputs), window.browser
    head = {"head": await window.head()}
    await events.press(studio, window.chat, Action(name="continue", payload=head))
    assert any("is being restarted" in toast for toast in window.browser.toasts)
    assert await window.texts() == before


async def test_an_error_at_an_event_is_a_number_that_the_log_has(
    window: Window, studio: Studio, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(chat: Chat, payload: Any) -> None:
        raise RuntimeError("the heir is the gardener")

    await events._handled(studio, handler)(window.session.socket_id, {})
    (said,) = [output for output in window.browser.outputs if "in the log" in output]
    assert "gardener" not in said
    assert len(caplog.records) == 1
