"""Line: who may ask a server elsewhere now, and who waits. It sees one client, where many ask."""

import asyncio
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from storygen.engine.interface import Segment
from storygen.engine.limits import Limits, when
from storygen.engine.scheduler import Scheduler
from storygen.errors import BusyError


@dataclass(eq=False)
class Ticket:
    """A request in line or at work here."""

    model: str
    user: str
    is_ready: bool = True
    told: int | None = None  # the place in line that whoever waits knows of
    places: asyncio.Queue[int] = field(default_factory=asyncio.Queue)


class Line(Scheduler[Ticket]):
    """Who may ask now, and who waits. What is being written elsewhere cannot pause."""

    def __init__(self, slots: int, queue_size: int, models_at_once: int, limits: Limits) -> None:
        super().__init__(slots, queue_size, models_at_once, waiting_each=limits.waiting_each)
        self._longest_wait = limits.longest_wait
        self._pace: dict[str, float] = {}  # seconds of a passage lately, by model

    def served(self, ticket: Ticket) -> None:
        """Somebody was written a token."""
        self._served[ticket.user] = self._served.get(ticket.user, 0) + 1

    def learn_pace(self, model: str, seconds: float) -> None:
        """A passage took so long."""
        self._pace[model] = (self._pace.get(model, seconds) + seconds) / 2

    async def placed(self, model: str, user: str) -> AsyncGenerator[Segment | Ticket, None]:
        """Places in line, then the ticket; leaving gives it back."""
        ticket = Ticket(model, user)
        try:
            self.add(ticket)
        except BusyError as error:
            raise BusyError(f"{error} Try again {self._when(model)}.") from None
        patience = time.monotonic() + self._longest_wait
        try:
            self._tell_places()
            while (place := await self._next_place(ticket, patience)) > 0:
                yield Segment("", 0, place=place)
            yield ticket
        finally:
            self.remove(ticket)
            self._tell_places()

    def _make_way(self) -> None:
        """Nobody pauses."""

    async def _next_place(self, ticket: Ticket, patience: float) -> int:
        try:
            async with asyncio.timeout(max(0.0, min(patience - time.monotonic(), 10**6))):
                return await ticket.places.get()
        except TimeoutError:
            raise BusyError(
                f"{ticket.model} was busy for {self._longest_wait:.0f} seconds, so "
                f"nothing was written. Try again {self._when(ticket.model)}."
            ) from None

    def _tell_places(self) -> None:
        """Tell those whose place in line has changed; 0 is a turn."""
        at_work = [(0, ticket) for tickets in self.running.values() for ticket in tickets]
        for place, ticket in [*at_work, *enumerate(self.line(), 1)]:
            if ticket.told != place:
                ticket.told = place
                ticket.places.put_nowait(place)

    def _when(self, model: str) -> str:
        waiting = len(self.waiting)
        return when(self._pace.get(model, 0.0) * (1 + waiting) / self.slots)
