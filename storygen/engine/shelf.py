"""Shelf: the models in memory. The longest unused goes first when there is no room.

A model is opened in a thread of its own, so that those at hand go on meanwhile.
"""

from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor

from storygen.engine.runner import Runner


class Shelf:
    """Runners by model name, at most `size`, in the order of their last use. For one thread;
    open_runner and opened, which follows it, are called in another."""

    def __init__(
        self,
        size: int,
        open_runner: Callable[[str], Runner],
        opened: Callable[[], None],
        fits: Callable[[Collection[str]], bool] = lambda models: True,
    ) -> None:
        """fits says whether models may be in memory together; it raises EngineError for one that
        may not be alone."""
        self._size, self._open, self._opened, self._fits = size, open_runner, opened, fits
        self._runners: dict[str, Runner] = {}
        self._opening: dict[str, Future[Runner]] = {}
        self._opener = ThreadPoolExecutor(1, "opener")

    @property
    def names(self) -> list[str]:
        """The models in memory, the longest unused first."""
        return list(self._runners)

    @property
    def is_opening(self) -> bool:
        """Whether `opened` is still to be called."""
        return any(not future.done() for future in self._opening.values())

    def take(self, name: str, busy: Collection[str]) -> Runner | None:
        """The runner of a model; None while it is opened, in the place of one that is not busy,
        or while there is no place. Raises what opening it raised."""
        future = self._opening.get(name)
        if future is not None and future.done():
            del self._opening[name]
            self._runners[name] = future.result()
        elif future is None and name not in self._runners and self._make_room(name, busy):
            self._opening[name] = future = self._opener.submit(self._open, name)
            future.add_done_callback(lambda _: self._opened())
        runner = self._runners.pop(name, None)
        if runner is not None:
            self._runners[name] = runner  # last: just used
        return runner

    def drop(self, name: str) -> None:
        """Give a model's memory back."""
        runner = self._runners.pop(name, None)
        if runner is not None:
            runner.close()

    def clear(self) -> None:
        """Give all memory back, of what is just being opened too, and open nothing any more."""
        self._opener.shutdown(cancel_futures=True)
        for name, future in self._opening.items():
            if not future.cancelled() and future.exception() is None:
                self._runners[name] = future.result()
        self._opening.clear()
        for name in self.names:
            self.drop(name)

    def _make_room(self, wanted: str, busy: Collection[str]) -> bool:
        """Whether this one has a place, now that those were dropped that had to be."""
        for name, future in list(self._opening.items()):
            if future.done() and name not in busy:  # whoever asked for it has gone
                del self._opening[name]
                if future.exception() is None:
                    self._runners = {name: future.result(), **self._runners}
        self._fits([wanted])
        while len(self._runners) + len(self._opening) >= self._size or not self._fits(
            [*self._runners, *self._opening, wanted]
        ):
            unused = next((model for model in self._runners if model not in busy), None)
            if unused is None:
                return False
            self.drop(unused)
        return True
