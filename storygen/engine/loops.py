"""The loop guard: whether the end of a passage only repeats itself. Knows token ids alone."""

LONGEST = 32  # tokens that are repeated, at most
STRETCH = 24  # tokens that repeat each other, at least
SHORT = 8  # from as many tokens on, three times are enough; below it takes four


def loops(ids: list[int], start: int = 0, scale: int = 1) -> bool:
    """Whether ids, from start on, end in up to 32 tokens again and again: so often that it is no
    refrain. scale is how many tokens a vocabulary needs where BPE needs one; between these, it is
    not looked.

    >>> loops([5, 6, 7] * 8), loops([5, 6, 7] * 7)
    (True, False)
    """
    n_tokens = len(ids) - start
    if n_tokens < STRETCH * scale or n_tokens % scale:
        return False
    last, before = ids[-1], ids[max(start, len(ids) - 1 - LONGEST * scale) : -1]
    at = -1
    for _ in range(before.count(last)):  # few: this is asked for every token
        at = before.index(last, at + 1)
        if before[at - 1] == ids[-2] and _repeats(ids, start, len(before) - at, scale):
            return True
    return False


def _repeats(ids: list[int], start: int, period: int, scale: int) -> bool:
    """Whether the end of ids has this period for long enough."""
    n = max(STRETCH * scale, (4 if period < SHORT * scale else 3) * period)
    return n <= len(ids) - start and ids[-n:-period] == ids[period - n :]
