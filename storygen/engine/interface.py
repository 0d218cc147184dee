"""Engine: all that the chat may know of text generation. No tensor and no token id crosses it."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from storygen.catalogue import ModelInfo
from storygen.params import SamplingParams

FinishReason = Literal["stop", "length", "time", "cancelled", "loop", "error"]

# A text, or what makes it once the request has a place: who is refused has cost nothing.
Prompt = str | Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class TokenScore:
    """One token of a text and its natural log-probability under the model.

    It is the model's own: at temperature 1, before any filter or penalty. top are the most probable
    tokens in its place, most probable first, where they were asked for; it may be one of them.
    """

    text: str
    logprob: float
    top: tuple["TokenScore", ...] = ()


@dataclass(frozen=True)
class Details:
    """What may be asked of a passage besides its text.

    logprobs is how many of the most probable tokens are named beside each one written; None gives
    no tokens. after are the marks of a passage's segments so far, joined: it goes on exactly
    there, with the text that would have come next. It takes the seed that the passage had.
    """

    logprobs: int | None = None
    after: str = ""


@dataclass(frozen=True)
class Segment:
    """A piece of a passage as it is written; whole characters only.

    token_count is the number of tokens behind this piece (0 in a last segment that only carries
    the finish reason). finish_reason is set on the last segment of a stream and on no other. A
    segment with a place has no text: the request is the place-th in line, or 0 when its turn has
    come and its model is being opened; it may have to wait again later.

    Where details were asked for, mark says where the passage is after this piece (nothing on the
    last one), and tokens are those that token_count counts. Their texts joined are the passage's,
    but where a stop string has cut it off within what they say.
    """

    text: str
    token_count: int
    finish_reason: FinishReason | None = None
    place: int | None = None
    mark: str = ""
    tokens: tuple[TokenScore, ...] = ()


@dataclass(frozen=True)
class WordScore:
    """A whole word that may come next, with its leading space, and its probability.

    A run of marks such as `,` or `."` counts as a word of its own.
    """

    text: str
    probability: float


@dataclass(frozen=True)
class Health:
    """How an engine is: how many run and wait, the models in memory and the bytes they may come to
    take, how often its worker was started anew, for how long that has been at one step, which
    models compute no numbers, for how long one has been opening, and which take too long for that,
    so that nobody waits for them. trouble says in a sentence why nothing can be written now."""

    running: int = 0
    waiting: int = 0
    models: tuple[str, ...] = ()
    model_bytes: int = 0
    restarts: int = 0
    step_seconds: float = 0.0
    faulty: tuple[str, ...] = ()
    opening_seconds: float = 0.0
    stuck: tuple[str, ...] = ()
    is_alive: bool = False
    trouble: str = ""


async def made(prompt: Prompt) -> str:
    """A prompt's text."""
    return prompt if isinstance(prompt, str) else await prompt()


class Engine(Protocol):
    """Generates, counts and scores text with the models it knows by name.

    Every method that takes a model raises ModelNotFoundError for an unknown name, CheckpointError
    when its files cannot be used, and EngineError when the engine has stopped. `user` is who
    asks, by whom what is short is shared out and counted.
    """

    async def start(self) -> None:
        """Get ready to serve; models are loaded when they are first used."""
        ...

    async def close(self) -> None:
        """Cancel what runs, free everything. Safe to call twice."""
        ...

    def models(self) -> list[ModelInfo]:
        """What can be asked for now, in the order to offer it."""
        ...

    def health(self) -> Health:
        """How it is now; never waits."""
        ...

    async def count_tokens(self, model: str, text: str) -> int:
        """Number of tokens the model reads text as."""
        ...

    def stream(
        self,
        model: str,
        prompt: Prompt,
        params: SamplingParams,
        *,
        user: str = "",
        details: Details | None = None,
    ) -> AsyncGenerator[Segment, None]:
        """Continue prompt. Closing the generator cancels the request and frees its slot.

        Raises PromptError for a prompt or marks that cannot be read, BusyError when the queue is
        full or the wait too long, QuotaError when the user's tokens are used up, and EngineError
        when generation fails. params.seed None draws a seed.
        """
        ...

    async def score(
        self, model: str, text: str, *, user: str = "", top: int = 0
    ) -> list[TokenScore]:
        """Log-probability of each token, each predicted once with at least half a window before
        it, the first after the end-of-text token; and as many of the most probable in its place."""
        ...

    async def next_tokens(
        self, model: str, prompt: Prompt, n: int, *, user: str = ""
    ) -> list[TokenScore]:
        """The n most probable next tokens, most probable first."""
        ...

    async def next_words(
        self, model: str, prompt: Prompt, n: int, *, user: str = ""
    ) -> list[WordScore]:
        """The n most probable next words, most probable first."""
        ...
