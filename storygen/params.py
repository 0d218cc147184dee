"""SamplingParams: how the next token is chosen and when a passage ends. Knows no torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

from storygen.errors import ParamsError

MAX_SEED = 2**63 - 1

# name: (how many texts, characters of each) at most
TEXTS = {"stop": (8, 200), "banned": (64, 100)}

# name: (type, lowest, highest); the chat's sliders and the command line read the same table.
RANGES: dict[str, tuple[type, float, float]] = {
    "max_new_tokens": (int, 1, 4096),
    "temperature": (float, 0.0, 2.0),
    "top_k": (int, 0, 100_000),
    "top_p": (float, 0.0, 1.0),
    "min_p": (float, 0.0, 1.0),
    "repetition_penalty": (float, 1.0, 2.0),
    "frequency_penalty": (float, 0.0, 2.0),
    "presence_penalty": (float, 0.0, 2.0),
    "dry_multiplier": (float, 0.0, 5.0),
    "dry_base": (float, 1.0, 4.0),
    "dry_allowed_length": (int, 1, 50),
    "seed": (int, 0, MAX_SEED),
}


@dataclass(frozen=True)
class SamplingParams:
    """One request's choices, checked once when they are made.

    temperature 0 is greedy. top_k 0, top_p 1, min_p 0, repetition_penalty 1, the other penalties
    and dry_multiplier at 0 are off. seed None lets whoever starts the request draw one. stop
    strings end the passage and are not part of it; banned words and phrases never occur in it.
    end_at_sentence ends it with the first sentence after two thirds of max_new_tokens; loop_guard
    ends one that only repeats itself. docs/sampling.md has all of it.
    """

    max_new_tokens: int = 200
    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    seed: int | None = None
    stop: tuple[str, ...] = ()
    banned: tuple[str, ...] = ()
    end_at_sentence: bool = False
    loop_guard: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name in RANGES and not (field.name == "seed" and self.seed is None):
                object.__setattr__(self, field.name, checked(field.name, getattr(self, field.name)))
        if self.top_p == 0.0:
            raise ParamsError("top_p is 0: it must be above 0 and at most 1; 1 turns it off.")
        for name in TEXTS:
            object.__setattr__(self, name, checked_texts(name, getattr(self, name)))
        if (blank := next((text for text in self.banned if not text.strip()), None)) is not None:
            raise ParamsError(f"banned has {_short(blank)}: each must have a letter or a mark.")
        for name in ("end_at_sentence", "loop_guard"):
            if not isinstance(getattr(self, name), bool):
                raise ParamsError(
                    f"{name} must be true or false, not {_short(getattr(self, name))}."
                )


class Row(NamedTuple):
    """What the choice of one sequence's next token depends on, besides its logits.

    params.seed is drawn; position is the index of the new token in the whole sequence, prompt
    included; context holds the token ids that the repetition penalty looks at. adjustments are
    (token id, what is added to its logit) for some tokens, each once; minus infinity forbids one,
    and one at least is not forbidden.
    """

    params: SamplingParams
    position: int
    context: Sequence[int]
    adjustments: Sequence[tuple[int, float]] = ()


def checked(name: str, value: object) -> int | float:
    """The value of parameter `name` as its own type, or a ParamsError that names the bounds.

    >>> checked("temperature", 1)
    1.0
    """
    kind, low, high = RANGES[name]
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    endless = isinstance(number, float) and not math.isfinite(number)
    if number is None or endless or (kind is int and number != int(number)):
        noun = "a whole number" if kind is int else "a number"
        raise ParamsError(f"{name} must be {noun} from {low:g} to {high:g}, not {_short(value)}.")
    if not low <= number <= high:
        raise ParamsError(f"{name} is {_short(value)}: it must be from {low:g} to {high:g}.")
    return kind(number)


def checked_texts(name: str, value: object) -> tuple[str, ...]:
    """The texts of parameter `name` as a tuple, or a ParamsError that names the bounds."""
    most, longest = TEXTS[name]
    if not isinstance(value, tuple | list):
        raise ParamsError(f"{name} must be a list of texts, not {_short(value)}.")
    if len(value) > most:
        raise ParamsError(f"{name} has {len(value)} texts: at most {most}.")
    for text in value:
        if not isinstance(text, str) or not 0 < len(text) <= longest:
            raise ParamsError(
                f"{name} has {_short(text)}: each must be a text of 1 to {longest} characters."
            )
    return tuple(value)


def _short(value: object, limit: int = 40) -> str:
    """A value as it can stand in a message, however large it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    if isinstance(value, list | dict | set):
        return f"a {type(value).__name__}"
    text = repr(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit else text[:limit] + "..."
