"""Scheduler: who runs, who waits, whose turn it is. Queues and counters only, no torch, no lock."""

from collections import deque
from collections.abc import Collection
from itertools import chain
from typing import Generic, Protocol, TypeVar

from storygen.errors import BusyError


class Request(Protocol):
    """Anything that occupies a slot of a model."""

    @property
    def model(self) -> str:
        """Name of the model."""
        ...


R = TypeVar("R", bound=Request)


class Scheduler(Generic[R]):
    """Each model runs up to `slots` requests, and up to `loaded_models` models run at a time.

    A request starts the moment it may: `waiting` holds only those that have to. The oldest goes
    first. One whose model is full may be overtaken by one for another model; but when the oldest
    needs a model for which there is no room, nobody starts until there is, or it might wait for
    ever.
    """

    def __init__(self, slots: int, queue_size: int, loaded_models: int) -> None:
        self.slots, self.queue_size, self.loaded_models = slots, queue_size, loaded_models
        self.waiting: deque[R] = deque()
        self.running: dict[str, list[R]] = {}  # by model, the one whose turn it is first

    def add(self, request: R) -> None:
        """Start a request or let it wait; raises BusyError when too many do already."""
        self.waiting.append(request)
        self._start_waiting()
        if len(self.waiting) > self.queue_size and self.waiting[-1] is request:
            self.waiting.pop()
            raise BusyError(
                f"{request.model} is busy (passages being written: "
                f"{len(self.running.get(request.model, []))}, waiting: {len(self.waiting)}). "
                "Try again in a moment."
            )

    def remove(self, request: R) -> None:
        """Take out a request that is over, wherever it is; its slot goes to the next in line."""
        running = self.running.get(request.model, [])
        if request in running:
            running.remove(request)
            if not running:
                del self.running[request.model]
        elif request in self.waiting:
            self.waiting.remove(request)
        self._start_waiting()

    def turn(self, unready: Collection[str] = ()) -> tuple[str, list[R]] | None:
        """The model whose turn it is, but for those that are not ready, and its running requests;
        None when nothing can run."""
        model = next((model for model in self.running if model not in unready), None)
        if model is None:
            return None
        requests = self.running[model] = self.running.pop(model)  # to the end of the line
        return model, list(requests)

    def requests(self) -> list[R]:
        """All that run or wait."""
        return [*chain.from_iterable(self.running.values()), *self.waiting]

    def _start_waiting(self) -> None:
        for request in list(self.waiting):
            running = self.running.get(request.model)
            if running is None and len(self.running) == self.loaded_models:
                return
            if running is None or len(running) < self.slots:
                self.waiting.remove(request)
                self.running.setdefault(request.model, []).append(request)
