"""A window that was closed leaves nothing in memory: neither its session nor its chat, nor what
was written there. benchmarks/reliability/sessions.py measures a thousand of them."""

import asyncio
import gc
import weakref

from chainlit.chat_context import chat_contexts
from chainlit.session import ws_sessions_id, ws_sessions_sid

from storygen.chat import events
from storygen.chat.state import Studio
from tests.chat.conftest import Window

COUNT = 50


async def visit(studio: Studio) -> list[weakref.ref[object]]:
    """Open a window, have a passage written, close it as the server does in the end."""
    window = Window(studio)
    await events.begin(studio, window.chat)
    await window.type("It begins.")
    assert len(await window.texts()) == 2
    watched = [weakref.ref(window.session), weakref.ref(window.chat), weakref.ref(window.browser)]
    events.leave(studio, window.chat)
    await window.session.delete()
    return watched


async def test_closed_windows_leave_nothing_in_memory(studio: Studio) -> None:
    watched = [reference for _ in range(COUNT) for reference in await visit(studio)]
    await asyncio.sleep(0)
    gc.collect()
    assert [reference() for reference in watched if reference() is not None] == []
    assert len(studio._writings) == 0
    assert not ws_sessions_id
    assert not ws_sessions_sid
    assert not chat_contexts
    assert not studio.turns
