"""What repeating costs: frequency, presence and DRY, as amounts added to the logits of tokens.

Pure functions of token ids. docs/sampling.md tells what each is good for.
"""

from collections import Counter
from collections.abc import Sequence, Set

from storygen.params import SamplingParams
from storygen.tokenizers import Tokenizer

BREAKERS = '\n:"“”*'  # of texts that are meant to repeat: lines, names of speakers, rules
STEEPEST = 50  # tokens beyond the allowed length from which on the penalty grows no more


def penalised(params: SamplingParams) -> bool:
    """Whether any of them is on."""
    return bool(params.frequency_penalty or params.presence_penalty or params.dry_multiplier)


def penalties(
    params: SamplingParams, window: Sequence[int], n_written: int, breakers: Set[int]
) -> dict[int, float]:
    """What is added to the logits of tokens after a window, whose last n_written tokens are the
    model's."""
    added: dict[int, float] = {}
    if params.frequency_penalty or params.presence_penalty:
        written = window[len(window) - n_written :]
        added = counted(written, params.frequency_penalty, params.presence_penalty)
    if params.dry_multiplier:
        shape = params.dry_multiplier, params.dry_base, params.dry_allowed_length
        for token, amount in dry(window, breakers, *shape).items():
            added[token] = added.get(token, 0.0) + amount
    return added


def counted(written: Sequence[int], frequency: float, presence: float) -> dict[int, float]:
    """OpenAI's penalties: frequency for each time a token was written, presence once.

    >>> counted([7, 7, 3], 0.5, 0.25)
    {7: -1.25, 3: -0.75}
    """
    return {token: -frequency * n - presence for token, n in Counter(written).items()}


def dry(
    window: Sequence[int], breakers: Set[int], multiplier: float, base: float, allowed_length: int
) -> dict[int, float]:
    """Don't repeat yourself (p-e-w, text-generation-webui pull request 5677): a token that would
    make a repetition longer loses multiplier * base^(its length so far - allowed_length).

    A repetition is a stretch of the window that its end equals. Of several that a token goes on
    from, the longest counts; shorter than allowed_length is free; none reaches across a breaker.

    >>> dry([1, 2, 3, 1, 2], set(), 0.5, 2.0, 2)
    {3: -0.5}
    """
    longest: dict[int, int] = {}
    for at in range(len(window) - 1):
        if window[at] == window[-1] and window[at + 1] not in breakers:
            length = _repeated(window, at, breakers, allowed_length + STEEPEST)
            longest[window[at + 1]] = max(length, longest.get(window[at + 1], 0))
    return {
        token: -multiplier * base ** (length - allowed_length)
        for token, length in longest.items()
        if length >= allowed_length
    }


def breaker_tokens(tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens that a repetition does not reach across."""
    marks = [mark.encode() for mark in BREAKERS]
    spelt = ((token, tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size))
    return frozenset(token for token, text in spelt if any(mark in text for mark in marks))


def _repeated(window: Sequence[int], at: int, breakers: Set[int], most: int) -> int:
    """How many tokens up to `at` equal the last ones of the window, breakers apart."""
    last = len(window) - 1
    for length in range(min(at + 1, most)):
        token = window[last - length]
        if token in breakers or window[at - length] != token:
            return length
    return min(at + 1, most)
