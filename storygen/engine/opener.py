"""Opener: reads models one at a time, in threads that nobody has to wait for.

A read from a disk that does not answer never returns, and no thread can be ended from outside.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from storygen.errors import EngineError

T = TypeVar("T")


class Opening(Generic[T]):
    """A model that is read, or waits for those before it."""

    def __init__(self, name: str) -> None:
        self.name, self.future = name, Future[T]()
        self.asked = time.monotonic()
        self.began: float | None = None

    @property
    def seconds(self) -> float:
        """For how long it has been read by now; 0 while it waits, and when it is done."""
        if self.began is None or self.future.done():
            return 0.0
        return time.monotonic() - self.began

    def too_long(self) -> EngineError:
        """What is said to those who wait for one that may never be done."""
        return EngineError(
            f"{self.name} has been opening for {time.monotonic() - self.asked:.0f} seconds, so "
            "nothing was written: the disk it lies on may be slow, or away. Choose another model, "
            "or try again later."
        )


class Opener(Generic[T]):
    """Gives each its turn in the order in which they were asked for. All methods are for any
    thread."""

    def __init__(self, read: Callable[[str], T], done: Callable[[], None]) -> None:
        """read is called in a thread of the opener's, and done after each, whatever came of it."""
        self._read, self._done = read, done
        self._lock = threading.Lock()
        self._line: deque[Opening[T]] = deque()
        self._present: Opening[T] | None = None

    def ask(self, name: str) -> Opening[T]:
        """Have a model read when it is its turn."""
        opening = Opening[T](name)
        with self._lock:
            self._line.append(opening)
            if self._present is None:
                self._go_on()
        return opening

    def leave(self, opening: Opening[T]) -> None:
        """Let nobody wait behind this one any more; it may still be done one day."""
        with self._lock:
            if self._present is opening:
                self._go_on()

    def close(self) -> None:
        """Read nothing more of what waits."""
        with self._lock:
            self._line.clear()

    def _go_on(self) -> None:
        self._present = self._line.popleft() if self._line else None
        if self._present is not None:
            self._present.began = time.monotonic()
            threading.Thread(
                target=self._open, args=(self._present,), name="opener", daemon=True
            ).start()

    def _open(self, opening: Opening[T]) -> None:
        try:
            opening.future.set_result(self._read(opening.name))
        except BaseException as error:  # a panic in Rust code, for one, is no Exception
            opening.future.set_exception(error)
        self.leave(opening)
        self._done()
