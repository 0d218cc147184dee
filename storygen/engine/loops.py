"""The loop guard: whether the end of a passage only repeats itself. Knows token ids alone."""

from collections.abc import Sequence

LONGEST = 32  # tokens that are repeated, at most
STRETCH = 24  # tokens that repeat each other, at least
SHORT = 8  # from as many tokens on, three times are enough; below it takes four


def loops(ids: Sequence[int], start: int = 0, scale: int = 1) -> bool:
    """Whether ids, from start on, end in up to 32 tokens again and again: so often that it is no
    refrain. scale is how many tokens a vocabulary needs where BPE needs one.

    >>> loops([5, 6, 7] * 8), loops([5, 6, 7] * 7)
    (True, False)
    """
    if len(ids) - start < STRETCH * scale:
        return False
    last, before = ids[-1], ids[max(start, len(ids) - 1 - LONGEST * scale) : -1]
    if last not in before:  # nearly always, and found out in half a microsecond
        return False
    return any(
        token == last and _repeats(ids, start, period, scale)
        for period, token in enumerate(reversed(before), start=1)
    )


def _repeats(ids: Sequence[int], start: int, period: int, scale: int) -> bool:
    """Whether the end of ids has this period for long enough."""
    n = max(STRETCH * scale, (4 if period < SHORT * scale else 3) * period)
    return n <= len(ids) - start and ids[-n:-period] == ids[period - n :]
