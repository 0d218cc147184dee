"""Server-sent events out of bytes: what each carries as data. Knows the standard library alone.

What cannot be an event, or has no end, is an error before it fills the memory.
"""

from collections.abc import Iterator

MAX_EVENT = 1_000_000  # bytes; a token with its alternatives has a thousand


class EventError(ValueError):
    """What came is no stream of events."""


class Events:
    """Takes bytes in whatever pieces they come, gives the data of the events that are whole."""

    def __init__(self) -> None:
        self._rest = bytearray()  # of a line that has not ended
        self._data: list[bytes] = []  # of an event that has not ended
        self._size = 0
        self._is_first = True

    def feed(self, piece: bytes) -> Iterator[str]:
        """The data of each event that ends in this piece. Raises EventError for text that is no
        UTF-8, and for an event without end."""
        self._rest += piece
        if b"\n" in piece or b"\r" in piece:
            *lines, rest = _lines(bytes(self._rest))
            self._rest = bytearray(rest)
            yield from self._whole(lines)
        if self._size + len(self._rest) > MAX_EVENT:
            raise EventError("an event without end")

    def _whole(self, lines: list[bytes]) -> Iterator[str]:
        for line in lines:
            if self._is_first:
                line, self._is_first = line.removeprefix(b"\xef\xbb\xbf"), False
            yield from self._take(line)

    def _take(self, line: bytes) -> Iterator[str]:
        if not line and self._data:
            data, self._data, self._size = b"\n".join(self._data), [], 0
            try:
                yield data.decode()
            except UnicodeDecodeError:
                raise EventError("text that is no UTF-8") from None
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._size += len(value) + 1
            if self._size > MAX_EVENT:
                raise EventError("an event without end")


def _lines(text: bytes) -> list[bytes]:
    """Lines, ended in any of the three ways, and what stands behind the last end.

    >>> _lines(b"a\\r\\nb\\rc\\nd\\r")
    [b'a', b'b', b'c', b'd\\r']
    """
    held = b"\r" if text.endswith(b"\r") else b""  # a \n may follow
    text = text[: len(text) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    *lines, rest = text.split(b"\n")
    return [*lines, rest + held]
