"""Patience: for how long a server elsewhere is waited for, and asked again."""

import random
import time
from dataclasses import dataclass

from storygen.engine.limits import when
from storygen.engine.upstream import LaterError, LostError
from storygen.errors import BusyError


@dataclass(frozen=True)
class Patience:
    """For how many seconds one waits for a server, and how often one looks at it."""

    answer: float = 60.0  # to a question that is no passage
    connect: float = 8.0  # to be reached for a new passage
    silence: float = 60.0  # between two tokens
    lost: float = 30.0  # to be reached again, for a passage that has begun
    look: float = 10.0  # between two looks at its models
    first: float = 3.0  # for the first look, at the start
    pause: float = 0.1  # before it is tried a second time; twice as long each time after
    longest_pause: float = 2.0


class Trial:
    """How often one passage or question was tried, and until when it goes on being tried."""

    def __init__(self, patience: Patience, longest_wait: float) -> None:
        self._patience = patience
        self._n_failed = 0
        self._since = time.monotonic()  # the last token, or the beginning
        self._longest_wait = longest_wait
        self.has_begun = False

    @property
    def until(self) -> float:
        """When silence has lasted too long."""
        return self._since + (self._patience.silence if self.has_begun else self._longest_wait)

    def got_on(self) -> None:
        """Something was written."""
        self.has_begun, self._n_failed, self._since = True, 0, time.monotonic()

    def pause_to_go_on(self) -> float:
        """Seconds to wait where a passage is only to go on, which may be often."""
        if self._n_failed < 2:
            self._n_failed += 1
            return 0.0
        return self.pause_after(LostError("The model server does not go on with this passage."))

    def pause_after(self, error: LostError | LaterError) -> float:
        """Seconds to wait after an error; raises it where patience is over."""
        self._n_failed += 1
        pause = self._pause()
        longest = self._patience.lost if self.has_begun else self._patience.connect
        if isinstance(error, LaterError):
            longest = self._patience.lost if self.has_begun else self._longest_wait
            pause = max(pause, error.seconds or 0.0)
        if time.monotonic() + pause > self._since + longest:
            if isinstance(error, LaterError) and "ry again" not in str(error):
                raise BusyError(f"{error} Try again {when(error.seconds or 0.0)}.") from error
            raise error
        return pause

    def _pause(self) -> float:
        longest = min(
            self._patience.pause * 2 ** min(self._n_failed, 20), self._patience.longest_pause
        )
        return longest * random.uniform(0.5, 1.0)  # those that were lost together come back apart
