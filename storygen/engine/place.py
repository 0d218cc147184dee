"""Place: a request in line or at work, from when it is taken in until it is over."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from storygen.engine.jobs import Job
from storygen.engine.sequence import Sequence

Work = Sequence | Job


class News(NamedTuple):
    """Something for whoever waits at a place: a Segment, an answer or an error."""

    value: Any
    final: bool


@dataclass(eq=False)
class Place:
    """A place is had before anything is read: the work comes when the prompt is made."""

    model: str
    user: str
    work: Work | None = None
    began: float | None = None  # when its first step was taken; the worker's
    told: int | None = None  # the place in line that whoever waits knows of
    heard: bool = False  # something of it already; the worker's
    inbox: asyncio.Queue[News] = field(default_factory=asyncio.Queue)

    @property
    def is_ready(self) -> bool:
        """Whether there is something to compute."""
        return self.work is not None
