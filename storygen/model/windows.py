"""What of a long text a model sees: numbers alone."""

from collections.abc import Iterator


def window_start(n_tokens: int, block_size: int) -> int:
    """Index of the first token the model sees when n_tokens are there.

    Nothing is cut while they fit. Then the window moves in steps of a quarter of the context, so
    that a cache is refilled once per step and not for every token.

    >>> [window_start(n, 8) for n in (7, 8, 9, 10, 11)]
    [0, 0, 2, 2, 4]
    """
    step = max(1, block_size // 4)
    over = max(0, n_tokens - block_size)
    return -(-over // step) * step


def windows(n: int, block_size: int) -> Iterator[tuple[int, int, int]]:
    """(start, first, stop) of each window over n tokens and the one before them.

    Position 0 is the token before the text, 1..n the text. A window reads positions start..stop-1
    and predicts first..stop; each token is predicted once, after at least half a window, or after
    all there is.

    >>> list(windows(7, 4))
    [(0, 1, 4), (2, 5, 6), (4, 7, 7)]
    """
    stride = max(1, block_size // 2)
    start, done = 0, 0
    while done < n:
        stop = min(start + block_size, n)
        yield start, done + 1, stop
        start, done = start + stride, stop
