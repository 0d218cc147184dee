"""Worker: the thread that alone touches models. It asks the scheduler whose turn it is, lets that
model's runner take a step, and passes on what came of it."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from storygen.engine.jobs import NoNumbersError
from storygen.engine.place import News, Place
from storygen.engine.runner import Runner, as_storygen_error
from storygen.engine.scheduler import Scheduler
from storygen.engine.sequence import Sequence as Passage
from storygen.engine.shelf import Shelf
from storygen.errors import EngineError

log = logging.getLogger(__name__)

IDLE = 0.05  # seconds until it is looked again whether a model has a place in memory
AFTER_A_FAILURE = (
    "The engine has stopped for an error and is started anew; what was written is kept. "
    "Try again in a moment."
)


class Post(Protocol):
    """Takes news to the event loop; RuntimeError where that is closed."""

    def __call__(self, news: list[tuple[Place, News]]) -> None:
        """From any thread."""
        ...


class Worker:
    """One thread with its models. Other threads may call what is above the line."""

    def __init__(
        self,
        scheduler: Scheduler[Place],
        prepare: Callable[[], Callable[[str], Runner]],
        shelf: Callable[[Callable[[str], Runner], Callable[[], None]], Shelf],
        post: Post,
        longest: float,
    ) -> None:
        """prepare is called in the thread and gives what opens models, shelf makes one of that;
        longest is how many seconds a passage may take."""
        self.failure: BaseException | None = None  # what ended it
        self.faulty: dict[str, int] = {}  # by model, how often it computed what is no number
        self._prepare, self._make_shelf, self._longest = prepare, shelf, longest
        self._pass_on = post
        self._shelf: Shelf | None = None  # the thread's own
        self._step_began: float | None = None
        # All threads use these, under the condition, which says that there is work.
        self._changed = threading.Condition()
        self._scheduler = scheduler
        self._unopened: set[str] = set()  # models that cannot run before one has been opened
        self._stopping = self._abandoned = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def enter(self, place: Place) -> None:
        """Take a place in; raises BusyError or EngineError."""
        with self._changed:
            if self._stopping:
                raise EngineError("The engine is not running. Start storygen again.")
            self._scheduler.add(place)
            self._changed.notify()

    def wake(self) -> None:
        """Somebody's work is ready."""
        with self._changed:
            self._changed.notify()

    def leave(self, place: Place) -> None:
        """Give up a place; seen before the next step."""
        with self._changed:
            self._scheduler.remove(place)
            self._changed.notify()

    def line(self) -> list[tuple[Place, int]]:
        """Everybody who waits, with their place in line, and with 0 those for whom a model is
        being opened or whose turn it is."""
        with self._changed:
            waiting = [(place, n) for n, place in enumerate(self._scheduler.line(), 1)]
            running = [
                (place, 0)
                for places in self._scheduler.running.values()
                for place in places
                if place.told is not None or place.model in self._unopened
            ]
        return [*waiting, *running]

    @property
    def has_line(self) -> bool:
        """Whether anybody waits, for a place or for a model; without the lock."""
        return bool(self._scheduler.waiting or self._unopened)

    def counts(self) -> tuple[int, int]:
        """How many are at work, and how many wait."""
        with self._changed:
            n_waiting = len(self._scheduler.waiting)
            return len(self._scheduler.requests()) - n_waiting, n_waiting

    @property
    def models(self) -> list[str]:
        """Those in memory, the longest unused first."""
        return self._shelf.names if self._shelf is not None else []

    @property
    def is_alive(self) -> bool:
        """Whether its thread is there, and takes what comes."""
        return self._thread.is_alive() and not self._stopping

    @property
    def step_seconds(self) -> float:
        """For how long it has been at its present step."""
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def opening_seconds(self) -> float:
        """For how long a model has been opening, of several the longest."""
        return self._shelf.opening_seconds if self._shelf is not None else 0.0

    @property
    def stuck(self) -> list[str]:
        """The models that take too long to be opened."""
        return self._shelf.stuck if self._shelf is not None else []

    def attend(self) -> None:
        """See to it that those are told who wait for a model that takes too long to be opened."""
        if self._shelf is not None and self._shelf.is_overdue:
            self._opened()

    def abandon(self) -> list[Place]:
        """Nobody waits for this thread any more: it cannot be ended from outside, and it ends by
        itself if what it is stuck in ever returns. Those who waited."""
        with self._changed:
            self._stopping = self._abandoned = True
            left = self._scheduler.requests()
            self._changed.notify()
        return left

    def close(self, timeout: float) -> None:
        """End; what is left is told that it is cancelled."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout)

    # ------------------------------------------------------------------------ the thread's own

    def _work(self) -> None:
        try:
            self._shelf = self._make_shelf(self._prepare(), self._opened)
            while (turn := self._next_turn()) is not None:
                self._step_began = time.monotonic()
                news = self._run(*turn)
                self._step_began = None
                self._post(news)
        except BaseException as error:  # a panic in Rust code, for one, is no Exception
            log.exception("The engine has stopped.")
            self.failure = error
        self._step_began = None
        self._stop()

    def _next_turn(self) -> tuple[str, list[Place], Collection[str]] | None:
        """A model, its running requests, and all models that are busy; None to stop."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or self._scheduler.has_turn(self._unopened)
            )
            turn = None if self._stopping else self._scheduler.turn(self._unopened)
            return turn and (*turn, set(self._scheduler.running))

    def _run(
        self, model: str, places: list[Place], busy: Collection[str]
    ) -> list[tuple[Place, News]]:
        """One step of a model; what fails as a whole fails all its requests and no others."""
        assert self._shelf is not None
        over = self._over_time(places)
        places = [place for place in places if place not in dict(over)]
        try:
            runner = self._shelf.take(model, busy)
            if runner is not None:
                return [*over, *self._step(runner, places)]
        except Exception as error:
            failed = as_storygen_error(error, model)
            return [*over, *((place, News(failed, True)) for place in places)]
        with self._changed:
            if self._shelf.is_opening:
                self._unopened.add(model)
            else:
                self._changed.wait(IDLE)
        self._post([], is_news=True)
        return over

    def _step(self, runner: Runner, places: Sequence[Place]) -> list[tuple[Place, News]]:
        now = time.monotonic()
        by_work = {place.work: place for place in places}
        for place in places:
            place.began = place.began or now
        outcomes = runner.step([place.work for place in places if place.work is not None])
        if any(isinstance(outcome.value, NoNumbersError) for outcome in outcomes):
            self.faulty[runner.name] = self.faulty.get(runner.name, 0) + 1
            log.error("%s computed something that is no number.", runner.name)
        elif outcomes and runner.name in self.faulty:
            del self.faulty[runner.name]
        return [(by_work[o.request], News(o.value, o.final)) for o in outcomes]

    def _over_time(self, places: Sequence[Place]) -> list[tuple[Place, News]]:
        """The ends of those that have been written for too long."""
        now = time.monotonic()
        return [
            (place, News(place.work.finish("time"), True))
            for place in places
            if isinstance(place.work, Passage)
            and place.began is not None
            and now - place.began > self._longest
        ]

    def _post(self, news: list[tuple[Place, News]], *, is_news: bool = False) -> None:
        """Free the slots of what is over and pass everything on to the event loop, at one go."""
        if not news and not is_news:
            return
        with self._changed:
            if self._abandoned:
                return
            for place, (_, final) in news:
                if final:
                    self._scheduler.remove(place)
        try:
            self._pass_on(news)
        except RuntimeError:  # the loop is closed: nobody is left to read
            self._stopping = True

    def _stop(self) -> None:
        """End what is left and forget the models."""
        with self._changed:
            self._stopping = True
            left = self._scheduler.requests()
        self._post([(place, News(self._end(place), True)) for place in left], is_news=True)
        if self._shelf is not None:
            self._shelf.clear()

    def _end(self, place: Place) -> object:
        """What is left to say when the engine stops."""
        if isinstance(place.work, Passage) and self.failure is None:
            return place.work.finish("cancelled")
        stopped = "The engine has stopped. Start storygen again."
        error = EngineError(stopped if self.failure is None else AFTER_A_FAILURE)
        error.__cause__ = self.failure
        return error

    def _opened(self) -> None:
        """A model was opened, or could not be: those that waited for it or its place may try."""
        with self._changed:
            self._unopened.clear()
            self._changed.notify()
