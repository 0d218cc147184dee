"""SamplingParams: how the next token is chosen and when a passage ends. Knows no torch."""

import math
from dataclasses import dataclass, fields

from storygen.errors import ParamsError

MAX_SEED = 2**63 - 1
MAX_STOP_STRINGS = 8
MAX_STOP_CHARACTERS = 200

# name: (type, lowest, highest); the chat's sliders and the command line read the same table.
RANGES: dict[str, tuple[type, float, float]] = {
    "max_new_tokens": (int, 1, 4096),
    "temperature": (float, 0.0, 2.0),
    "top_k": (int, 0, 100_000),
    "top_p": (float, 0.0, 1.0),
    "min_p": (float, 0.0, 1.0),
    "repetition_penalty": (float, 1.0, 2.0),
    "seed": (int, 0, MAX_SEED),
}


@dataclass(frozen=True)
class SamplingParams:
    """One request's choices, checked once when they are made.

    temperature 0 is greedy. top_k 0, top_p 1, min_p 0 and repetition_penalty 1 are off.
    seed None lets whoever starts the request draw one. stop strings end the passage and are
    not part of it.
    """

    max_new_tokens: int = 200
    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name in RANGES and not (field.name == "seed" and self.seed is None):
                object.__setattr__(self, field.name, checked(field.name, getattr(self, field.name)))
        if self.top_p == 0.0:
            raise ParamsError("top_p is 0: it must be above 0 and at most 1; 1 turns it off.")
        if isinstance(self.stop, str) or not isinstance(self.stop, tuple | list):
            raise ParamsError(f"stop must be a list of texts, not {_short(self.stop)}.")
        object.__setattr__(self, "stop", tuple(self.stop))
        if len(self.stop) > MAX_STOP_STRINGS:
            raise ParamsError(f"stop has {len(self.stop)} texts: at most {MAX_STOP_STRINGS}.")
        for text in self.stop:
            if not isinstance(text, str) or not 0 < len(text) <= MAX_STOP_CHARACTERS:
                raise ParamsError(
                    f"stop has {_short(text)}: each must be a text of 1 to "
                    f"{MAX_STOP_CHARACTERS} characters."
                )


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


def _short(value: object, limit: int = 40) -> str:
    """A value as it can stand in a message, however large it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    if isinstance(value, list | dict | set):
        return f"a {type(value).__name__}"
    text = repr(value[: limit + 1] if isinstance(value, str) else value)
    return text if len(text) <= limit else text[:limit] + "..."
