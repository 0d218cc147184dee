"""Shelf: the models in memory. The longest unused goes first when there is no room.

A model is opened in a thread of its own, so that those at hand go on meanwhile.
"""

import logging
import math
from collections.abc import Callable, Collection
from concurrent.futures import Future, wait

from storygen.engine.opener import Opener, Opening
from storygen.engine.runner import Runner

CLOSING = 5.0  # seconds for what is just being opened, at the end

log = logging.getLogger(__name__)


class Shelf:
    """Runners by model name, at most `size`, in the order of their last use. For one thread, but
    for what only tells; open_runner and opened, which follows it, are called in another."""

    def __init__(
        self,
        size: int,
        open_runner: Callable[[str], Runner],
        opened: Callable[[], None],
        fits: Callable[[Collection[str]], bool] = lambda models: True,
        patience: float = math.inf,
    ) -> None:
        """fits says whether models may be in memory together; it raises EngineError for one that
        may not be alone. A model that takes more than patience seconds to be opened has no place
        any more, until it is open after all."""
        self._size, self._fits, self._patience = size, fits, patience
        self._runners: dict[str, Runner] = {}
        self._opening: dict[str, Opening[Runner]] = {}
        self._late: dict[str, Opening[Runner]] = {}  # for which nobody waits any more
        self._opener = Opener(open_runner, opened)

    @property
    def names(self) -> list[str]:
        """The models in memory, the longest unused first."""
        return list(self._runners)

    @property
    def is_opening(self) -> bool:
        """Whether `opened` is still to be called."""
        return any(not opening.future.done() for opening in list(self._opening.values()))

    @property
    def opening_seconds(self) -> float:
        """For how long a model has been opening, of several the longest."""
        every = [*self._opening.values(), *self._late.values()]
        return max((opening.seconds for opening in every), default=0.0)

    @property
    def is_overdue(self) -> bool:
        """Whether somebody may be waiting for a model that takes too long."""
        return any(map(self._takes_too_long, list(self._opening.values())))

    @property
    def stuck(self) -> list[str]:
        """The models that take too long, by now."""
        every = [*self._opening.values(), *self._late.values()]
        return [opening.name for opening in every if self._takes_too_long(opening)]

    def take(self, name: str, busy: Collection[str]) -> Runner | None:
        """The runner of a model; None while it is opened, in the place of one that is not busy,
        or while there is no place. Raises what opening it raised, and EngineError for one that
        takes too long."""
        self._leave_overdue()
        late = self._late.get(name)
        if late is not None:
            if not late.future.done():
                raise late.too_long()
            if not self._make_room(name, busy):
                return None
            self._opening[name] = self._late.pop(name)
        opening = self._opening.get(name)
        if opening is not None and opening.future.done():
            del self._opening[name]
            self._runners[name] = opening.future.result()
        elif opening is None and name not in self._runners and self._make_room(name, busy):
            self._opening[name] = self._opener.ask(name)
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
        self._opener.close()
        begun = [o for o in self._opening.values() if o.began is not None]
        wait([opening.future for opening in begun], CLOSING)
        for opening in (*begun, *self._late.values()):
            opening.future.add_done_callback(_close)
        self._opening.clear()
        self._late.clear()
        for name in self.names:
            self.drop(name)

    def _make_room(self, wanted: str, busy: Collection[str]) -> bool:
        """Whether this one has a place, now that those were dropped that had to be."""
        for held in (self._opening, self._late):
            for name, opening in list(held.items()):
                if opening.future.done() and name not in busy:  # whoever asked for it has gone
                    del held[name]
                    if opening.future.exception() is None:
                        self._runners = {name: opening.future.result(), **self._runners}
        self._fits([wanted])
        while len(self._runners) + len(self._opening) >= self._size or not self._fits(
            [*self._runners, *self._opening, wanted]
        ):
            unused = next((model for model in self._runners if model not in busy), None)
            if unused is None:
                return False
            self.drop(unused)
        return True

    def _takes_too_long(self, opening: Opening[Runner]) -> bool:
        return opening.seconds > self._patience

    def _leave_overdue(self) -> None:
        """Let nobody wait any more for what takes too long, nor for its place."""
        for name, opening in list(self._opening.items()):
            if self._takes_too_long(opening):
                log.error("%s has been opening for %.0f seconds.", name, opening.seconds)
                self._late[name] = self._opening.pop(name)
                self._opener.leave(opening)


def _close(opened: "Future[Runner]") -> None:
    if opened.exception() is None:
        opened.result().close()
