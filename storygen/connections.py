"""Connections of the servers: they end where the other side takes nothing any more, and where it
does not say what it wants. uvicorn waits for both for ever, and each has one of the files that a
process may have open."""

import asyncio
import socket

from uvicorn.protocols.http.h11_impl import H11Protocol

UNREAD = 60  # seconds that something may wait to be read; lost networks come back by then
UNASKED = 30  # seconds until what is asked for is said


class Connection(H11Protocol):
    """uvicorn's own, with these two ends."""

    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Somebody has come."""
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # of Linux, which counts for whatever comes over it
            opened = transport.get_extra_info("socket")
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNREAD)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """A request, or a part of one."""
        super().data_received(data)
        is_asked = self.cycle is not None and not self.cycle.response_complete
        if is_asked or self.transport.get_protocol() is not self:  # a socket from here on
            self._no_more()
        elif self._due is None:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._no_more()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._due = self.loop.call_later(UNASKED, self.transport.abort)

    def _no_more(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
