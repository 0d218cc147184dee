"""A replica of the engine as a queue: who arrives waits for a slot, is read, and is written beside
the others, the slower the more there are. Knows no models and no machine; seconds in, seconds out.
"""

import heapq
import random
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Replica:
    """Slots; seconds for a token of each of n passages that are written at once; seconds to read a
    prompt, for which all of them stand still."""

    slots: int
    token: Callable[[int], float]
    read: Callable[[random.Random], float]
    tokens: Callable[[random.Random], float]


@dataclass
class Waits:
    """What the passages of a simulation met with, in seconds."""

    first_word: list[float] = field(default_factory=list)  # from asking to the first token
    in_line: list[float] = field(default_factory=list)  # of that, for a slot
    whole: list[float] = field(default_factory=list)
    busy: float = 0.0  # share of the time in which anything ran

    def first(self, share: float) -> float:
        """A percentile of the time to the first word."""
        return percentile(self.first_word, share)

    @property
    def mean_in_line(self) -> float:
        """Mean time for a slot."""
        return statistics.fmean(self.in_line)


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share of all does not exceed.

    >>> percentile([4, 1, 3, 2], 0.5)
    2
    """
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000 * len(ordered)) // 1000) - 1)]


def simulate(
    replica: Replica, arrivals_per_second: float, passages: int, seed: int = 1, warm: int = 200
) -> Waits:
    """So many passages that arrive at random; the first few are not counted.

    All that are written advance together, so work is told in tokens since the beginning: a passage
    ends when that count has gone on by its own length.
    """
    chance, waits = random.Random(seed), Waits()
    now = done = 0.0  # seconds; tokens that each of the written has been given since the beginning
    next_arrival = chance.expovariate(arrivals_per_second)
    waiting: deque[float] = deque()  # when they came
    writing: list[tuple[float, int]] = []  # tokens at which they end, number
    came: dict[int, float] = {}
    arrived = ended = 0
    idle = 0.0
    while ended < passages + warm:
        each = replica.token(len(writing)) if writing else 0.0
        end = now + (writing[0][0] - done) * each if writing else float("inf")
        if next_arrival < end:
            idle += 0.0 if writing else next_arrival - now
            done += (next_arrival - now) / each if writing else 0.0
            now = next_arrival
            waiting.append(now)
            next_arrival = now + chance.expovariate(arrivals_per_second)
        else:
            now, done = end, writing[0][0]
            number = heapq.heappop(writing)[1]
            ended += 1
            if number >= warm:
                waits.whole.append(now - came.pop(number))
        while waiting and len(writing) < replica.slots:
            asked = waiting.popleft()
            came[arrived] = asked
            wait = now - asked
            now += replica.read(chance)
            while next_arrival <= now:  # came while the prompt was read
                waiting.append(next_arrival)
                next_arrival += chance.expovariate(arrivals_per_second)
            heapq.heappush(writing, (done + replica.tokens(chance), arrived))
            if arrived >= warm:
                waits.in_line.append(wait)
                waits.first_word.append(now + replica.token(len(writing)) - asked)
            arrived += 1
    waits.busy = 1 - idle / now
    return waits
