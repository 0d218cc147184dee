"""Slots: which tokens each slot of a decoder remembers, and who has it."""

from collections.abc import Sequence
from itertools import takewhile

from storygen.decode.interface import Decoder, Token


class Slots:
    """The memory of a decoder, kept after a passage is over: continue, retry and undo, versions of
    one prompt and other stories that begin alike read again only what differs."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._known: list[list[int]] = [[] for _ in range(decoder.n_slots)]
        self._free = list(range(decoder.n_slots))  # the longest unused first

    @property
    def n_free(self) -> int:
        """How many can be taken."""
        return len(self._free)

    def known(self, ids: Sequence[int]) -> int:
        """How many of ids, from the first on, one of the slots knows."""
        return max(_common(known, ids) for known in self._known)

    def take(self, ids: Sequence[int]) -> int:
        """A free slot for a story that begins with ids: its own, of which it remembers more than
        is of no use now, or else the longest unused. What others know can be copied."""
        best = max(self._free, key=lambda slot: _common(self._known[slot], ids))
        if 2 * _common(self._known[best], ids) <= len(self._known[best]):
            best = self._free[0]
        self._free.remove(best)
        return best

    def give_back(self, slot: int) -> None:
        """Free a slot, which goes on remembering."""
        self._free.append(slot)

    def recall(self, slot: int, ids: Sequence[int]) -> int:
        """How many of ids the slot knows, from the first on; what another knows is copied. Never
        all of them: the last one's logits are wanted. Anything else it knew is forgotten."""
        best = max(range(len(self._known)), key=lambda other: _common(self._known[other], ids))
        n, own = (_common(self._known[of], ids) for of in (best, slot))
        if n > own:
            self._decoder.copy(best, slot, n)
        self._known[slot] = list(ids[: max(n, own)])
        return min(max(n, own), len(ids) - 1)

    def rows(self, slot: int, ids: Sequence[int], start: int, stop: int) -> list[Token]:
        """The tokens start..stop-1 of a story as rows that its slot is about to read."""
        return [Token(slot, position, ids[position]) for position in range(start, stop)]

    def learned(self, rows: Sequence[Token]) -> None:
        """These rows were computed."""
        for slot, position, token in rows:
            self._known[slot][position:] = [token]

    def forget(self, slot: int) -> None:
        """What a slot holds is not to be used again."""
        self._known[slot] = []


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning of two lists."""
    if not one or not other or one[0] != other[0]:
        return 0
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
