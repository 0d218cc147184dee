"""Scheduler: who runs, who waits, whose turn it is. Queues and counters only, no torch, no lock."""

from collections import Counter
from collections.abc import Callable, Collection
from itertools import chain
from typing import Generic, Protocol, TypeVar

from storygen.errors import BusyError


class Request(Protocol):
    """Anything that occupies a slot of a model."""

    @property
    def model(self) -> str:
        """Name of the model."""
        ...

    @property
    def user(self) -> str:
        """Who asked: what is short is shared out by users, however much each asks for."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether it has something to compute by now."""
        ...


R = TypeVar("R", bound=Request)


class Scheduler(Generic[R]):
    """Each model runs up to `slots` requests, and those models run at a time that fit together.

    A request starts the moment it may: `waiting` holds only those that have to. Users take turns:
    first comes who has the fewest requests before this one, then who was served least, then who
    came first. One whose model is full may be overtaken by one for another model; but when the
    first in line needs a model for which there is no room, nobody starts until there is, or it
    might wait for ever. Where a model is full, a user who runs several requests there lets one of
    them pause for a user who runs none.
    """

    def __init__(
        self,
        slots: int,
        queue_size: int,
        loaded_models: int,
        *,
        waiting_each: int | None = None,
        fits: Callable[[Collection[str]], bool] = lambda models: True,
    ) -> None:
        """waiting_each is how many of a user's requests may wait; fits says whether models may be
        in memory together."""
        self.slots, self.queue_size, self.loaded_models = slots, queue_size, loaded_models
        self.waiting: list[R] = []  # as they came, but for those that paused, which are first
        self.running: dict[str, list[R]] = {}  # by model, the one whose turn it is first
        self._waiting_each, self._fits = waiting_each, fits
        self._served: dict[str, int] = {}  # steps, by user

    def add(self, request: R) -> None:
        """Start a request or let it wait; raises BusyError when too many do already."""
        self._welcome(request.user)
        self.waiting.append(request)
        self._start_waiting()
        if self.waiting and self.waiting[-1] is request:
            refusal = self._refusal(request)
            if refusal is not None:
                self.waiting.pop()
                raise BusyError(refusal)
            self._make_way()

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
        self._make_way()

    def turn(self, unready: Collection[str] = ()) -> tuple[str, list[R]] | None:
        """The model whose turn it is, but for those that are not ready, and its running requests
        that are; None when nothing can run."""
        model = self._next_model(unready)
        if model is None:
            return None
        requests = self.running[model] = self.running.pop(model)  # to the end of the line
        ready = [request for request in requests if request.is_ready]
        for request in ready:
            self._served[request.user] += 1
        return model, ready

    def has_turn(self, unready: Collection[str] = ()) -> bool:
        """Whether turn() has something to say."""
        return self._next_model(unready) is not None

    def line(self) -> list[R]:
        """Those that wait, in the order in which it is their turn."""
        ahead = Counter(request.user for request in chain.from_iterable(self.running.values()))
        ranked = []
        for request in self.waiting:
            ranked.append(((ahead[request.user], self._served[request.user]), request))
            ahead[request.user] += 1
        return [request for _, request in sorted(ranked, key=lambda rank: rank[0])]

    def requests(self) -> list[R]:
        """All that run or wait."""
        return [*chain.from_iterable(self.running.values()), *self.waiting]

    def _next_model(self, unready: Collection[str]) -> str | None:
        return next(
            (
                model
                for model, requests in self.running.items()
                if model not in unready and any(request.is_ready for request in requests)
            ),
            None,
        )

    def _welcome(self, user: str) -> None:
        """Whoever asks for nothing for a while saves up nothing: they begin level with the least
        served of those that are here."""
        here = {request.user for request in self.requests()}
        least = min((self._served[other] for other in here), default=0)
        self._served = {u: n for u, n in self._served.items() if here and (u in here or n > least)}
        if user not in here:
            self._served[user] = max(self._served.get(user, 0), least)

    def _refusal(self, request: R) -> str | None:
        """Why the last in line may not wait, None where it may."""
        running = len(self.running.get(request.model, []))
        others = len(self.waiting) - 1
        if others >= self.queue_size:
            return (
                f"{request.model} is busy (passages being written: {running}, waiting: {others})."
            )
        own = sum(other.user == request.user for other in self.waiting) - 1
        if self._waiting_each is not None and own >= self._waiting_each:
            return f"You have {own} passages waiting to be written: no more may wait at a time."
        return None

    def _start_waiting(self) -> None:
        while (request := self._next_to_start()) is not None:
            self.waiting.remove(request)
            self.running.setdefault(request.model, []).append(request)

    def _next_to_start(self) -> R | None:
        for request in self.line():
            running = self.running.get(request.model)
            if running is None:
                return request if self._has_room_for(request.model) else None
            if len(running) < self.slots:
                return request
        return None

    def _has_room_for(self, model: str) -> bool:
        if not self.running:
            return True
        together = [*self.running, model]
        return len(together) <= self.loaded_models and self._fits(together)

    def _make_way(self) -> None:
        """Let those who run several requests of a full model pause some for those who run none."""
        while (exchange := self._next_exchange()) is not None:
            comes, goes = exchange
            running = self.running[comes.model]
            self.waiting.remove(comes)
            running[running.index(goes)] = comes
            self.waiting.insert(0, goes)

    def _next_exchange(self) -> tuple[R, R] | None:
        """One that waits, and the one that pauses for it."""
        writing = {request.user for request in chain.from_iterable(self.running.values())}
        for request in self.line():
            running = self.running.get(request.model)
            if running is None:  # it waits for room, and so does everybody behind it
                return None
            if request.user in writing:
                continue
            user, n = Counter(r.user for r in running).most_common(1)[0]
            if n > 1:
                return request, [r for r in running if r.user == user][-1]
        return None
