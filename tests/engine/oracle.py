"""The slow, plain way to write a passage, which every engine must equal."""

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

import torch

from storygen.engine.sequence import prompt_tail
from storygen.model import GPT, generate
from storygen.model.windows import window_start
from storygen.params import Row, SamplingParams
from storygen.sampling import sample
from storygen.text import ends_sentence
from storygen.tokenizers import CharTokenizer, StreamDecoder, Tokenizer

BREAKERS = set('\n:"“”*')


class Over(Exception):
    """The passage, and why it ends."""


class Banned(Exception):
    """The tokens before a banned phrase, the one with which it began, the text before it."""


def passage(model: GPT, tokenizer: Tokenizer, prompt: str, params: SamplingParams) -> str:
    """What the uncached network writes, alone, reading its whole window for every token."""
    return ended(model, tokenizer, prompt, params)[0]


def ended(model: GPT, tokenizer: Tokenizer, prompt: str, params: SamplingParams) -> tuple[str, str]:
    """The passage and its finish reason. After a banned phrase it is written anew from where that
    began, one more token being forbidden there."""
    ids = tokenizer.encode(prompt_tail(prompt, model.config.block_size))
    n_prompt = len(ids)
    forbidden = defaultdict[int, set[int]](set)
    returns = defaultdict[int, int](int)
    while True:
        try:
            _attempt(model, tokenizer, prompt, params, ids, n_prompt, forbidden)
        except Over as over:
            return over.args
        except Banned as banned:
            ids, token, text = banned.args
            place = len(ids)
            forbidden[place].add(token)
            returns[place] += 1
            for later in [other for other in forbidden if other > place]:
                del forbidden[later]
            if returns[place] == 50 or len(forbidden[place]) == tokenizer.vocab_size:
                return text, "stop"


def _attempt(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    params: SamplingParams,
    begun: list[int],
    n_prompt: int,
    forbidden: dict[int, set[int]],
) -> None:
    """Write on until it is Over or something Banned."""
    block_size = model.config.block_size

    def look(ids: list[int], at_eot: bool = False) -> None:
        decoder = StreamDecoder(tokenizer)
        pieces = [decoder.push(token) for token in ids[n_prompt:]]
        text = "".join(pieces)
        end, reason = ending(tokenizer, prompt, pieces, ids[n_prompt:], params, at_eot)
        at = first_banned(prompt, text[:end], params.banned, reason is not None)
        if at is not None:
            ends = [len("".join(pieces[: n + 1])) for n in range(len(pieces))]
            n = next(n for n, end in enumerate(ends) if end > at)
            before = "".join(pieces[:n])
            left = first_banned(prompt, before, params.banned, True)
            raise Banned(ids[: n_prompt + n], ids[n_prompt + n], before[:left])
        if reason:
            raise Over(text[:end], reason)

    def choose(logits: torch.Tensor, ids: list[int]) -> int:
        if len(ids) > len(begun):
            look(ids)
        start = window_start(len(ids), block_size)
        added = penalties(tokenizer, ids[start:], ids[max(start, n_prompt) :], params)
        added |= dict.fromkeys(forbidden.get(len(ids), ()), -math.inf)
        row = Row(params, len(ids), ids[start:], list(added.items()))
        [token] = sample(logits[None, : tokenizer.vocab_size], [row])
        assert token is not None
        if token == tokenizer.eot_id:
            look(ids, at_eot=True)
        return token

    left = params.max_new_tokens - (len(begun) - n_prompt)
    look([*begun, *generate(model, torch.tensor([begun]), left, choose)])


def ending(
    tokenizer: Tokenizer,
    prompt: str,
    pieces: list[str],
    ids: list[int],
    params: SamplingParams,
    at_eot: bool,
) -> tuple[int, str | None]:
    """Length of the text where it ends, and why if it does."""
    text = "".join(pieces)
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in params.stop if stop in text]
    found = [min(ends)[1]] if ends else []
    if params.end_at_sentence:
        two_thirds = math.ceil(2 * params.max_new_tokens / 3)
        first = len("".join(pieces[: two_thirds - 1]))
        found += [
            gap.start()
            for gap in re.finditer(r"(?<=\S)\s", text)
            if gap.start() >= max(first, 1)
            and ends_sentence(prompt + text, len(prompt) + gap.start())
        ]
    if found or at_eot:
        return min(found, default=len(text)), "stop"
    if params.loop_guard and looping(ids, 4 if isinstance(tokenizer, CharTokenizer) else 1):
        return len(text), "loop"
    return len(text), "length" if len(ids) == params.max_new_tokens else None


def looping(ids: list[int], scale: int) -> bool:
    """Whether the last tokens repeat a stretch of up to 32 tokens often enough."""
    if len(ids) % scale:
        return False
    for period in range(1, 32 * scale + 1):
        same = 0
        while same + period < len(ids) and ids[-1 - same] == ids[-1 - same - period]:
            same += 1
        times = 4 if period < 8 * scale else 3
        if same + period >= max(24 * scale, times * period):
            return True
    return False


def first_banned(prompt: str, text: str, phrases: Sequence[str], over: bool) -> int | None:
    """Index in text at which the first banned phrase begins, 0 if it does in the prompt. One at
    the very end is one only if the text is over or no word."""
    whole = prompt + text
    for at in range(len(whole)):
        for phrase in phrases:
            pattern, is_word = _pattern(phrase)
            found = pattern.match(whole, at)
            if found and found.end() > len(prompt):
                if over or not is_word or found.end() < len(whole):
                    return max(0, at - len(prompt))
    return None


@cache
def _pattern(phrase: str) -> tuple[re.Pattern[str], bool]:
    """What finds a phrase, and whether it ends as a word."""
    words = r"\s+".join(map(re.escape, phrase.split()))
    before = r"(?<![^\W_])" if re.match(r"[^\W_]", phrase.strip()) else ""
    after = r"(?![^\W_])" if re.search(r"[^\W_]$", phrase.strip()) else ""
    return re.compile(before + words + after, re.IGNORECASE), bool(after)


def penalties(
    tokenizer: Tokenizer, window: Sequence[int], written: Sequence[int], params: SamplingParams
) -> dict[int, float]:
    """What is added to the logit of each token of the vocabulary, 0 left out."""
    added = {}
    for token in range(tokenizer.vocab_size):
        n = sum(one == token for one in written)
        amount = -params.frequency_penalty * n - params.presence_penalty * (n > 0)
        if params.dry_multiplier and token in window:
            length = repetition(tokenizer, window, token)
            beyond = length - params.dry_allowed_length
            if beyond >= 0 and length > 0:
                amount -= params.dry_multiplier * params.dry_base ** min(beyond, 50)
        if amount:
            added[token] = amount
    return added


def repetition(tokenizer: Tokenizer, window: Sequence[int], token: int) -> int:
    """The longest end of window, free of breakers, after which token came before."""

    def breaks(one: int) -> bool:
        return any(mark in tokenizer.decode([one]) for mark in BREAKERS)

    best = 0
    for length in range(1, len(window)):
        end = list(window[-length:])
        if breaks(token) or breaks(end[0]):
            break
        if any(list(window[i : i + length + 1]) == [*end, token] for i in range(len(window))):
            best = length
    return best
