"""RayEngine: an Engine whose models are written by replicas elsewhere in a Ray cluster."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Protocol

from storygen import checkpoints
from storygen.catalogue import Catalogue, Kept, ModelInfo
from storygen.engine.interface import (
    Details,
    Health,
    Prompt,
    Segment,
    TokenScore,
    WordScore,
    made,
)
from storygen.engine.limits import Limits, Quotas
from storygen.engine.sequence import check_prompt, with_seed
from storygen.errors import BusyError, EngineError, ModelNotFoundError, StorygenError
from storygen.params import SamplingParams
from storygen.serve.elsewhere import LostError, going_on
from storygen.serve.replica import Question, Story
from storygen.tokenizers import Tokenizer

MOST_ASKED = 3  # times the same is asked of replicas that are lost before they answer


class Reply(Protocol):
    """What comes back from a replica, piece by piece."""

    def __aiter__(self) -> AsyncIterator[Segment | StorygenError]: ...

    def cancel(self) -> None:
        """Nobody reads it any more."""
        ...


class Handle(Protocol):
    """The replicas of a model, as Ray Serve's DeploymentHandle is to us."""

    def stream(self, story: Story, params: SamplingParams, details: Details) -> Reply:
        """What Replica.stream says."""
        ...

    def ask(self, story: Story, question: Question, rest: dict[str, Any]) -> Awaitable[Any]:
        """What Replica.ask says."""
        ...


class RayEngine:
    """Quotas are counted here, slots and places in line by each replica."""

    def __init__(
        self,
        catalogue: Catalogue,
        handles: Mapping[str, Handle],
        *,
        lost: tuple[type[BaseException], ...],
        full: tuple[type[BaseException], ...] = (),
        limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
    ) -> None:
        """handles by model; lost and full is what a handle raises when a replica is gone, or when
        none takes any more."""
        self._catalogue, self._handles = Kept(catalogue), handles
        self._lost, self._full, self._limits = lost, full, limits
        self._quotas = Quotas(limits.tokens_per_hour, limits.tokens_per_day, kept_in=limits.ledger)
        self._tokenizers: dict[str, Tokenizer] = {}
        self._reading = asyncio.Lock()  # one tokenizer at a time
        self._running = self._waiting = 0
        self._is_open = False

    async def start(self) -> None:
        """The replicas are started by whoever deployed them."""
        self._is_open = True

    async def close(self) -> None:
        """Take nothing more. The replicas go on, for others."""
        self._is_open = False
        await self._quotas.keep()

    def models(self) -> list[ModelInfo]:
        """The models that there are replicas for."""
        return [info for info in self._catalogue.models() if info.name in self._handles]

    def health(self) -> Health:
        """What is written and waited for by way of this engine."""
        return Health(
            running=self._running,
            waiting=self._waiting,
            models=tuple(self._handles),
            is_alive=self._is_open,
        )

    async def count_tokens(self, model: str, text: str) -> int:
        """Number of tokens the model reads text as; counted here."""
        info = self._known(model)
        async with self._reading:
            if model not in self._tokenizers:
                read = checkpoints.load_tokenizer
                self._tokenizers[model] = await asyncio.to_thread(read, info.directory)
        return len(await asyncio.to_thread(self._tokenizers[model].encode, text))

    async def stream(
        self,
        model: str,
        prompt: Prompt,
        params: SamplingParams,
        *,
        user: str = "",
        details: Details | None = None,
    ) -> AsyncGenerator[Segment, None]:
        """Continue prompt, at whichever replica there is; closing it frees the slot there."""
        self._known(model)
        params = with_seed(params, details)
        with self._quotas.promised(user, params.max_new_tokens) as spend:
            text = await made(prompt)
            check_prompt(text)
            begin = partial(self._written, Story(model, text, user), params)
            async with aclosing(going_on(begin, details)) as segments:
                async for segment in segments:
                    spend(segment.token_count)
                    yield segment

    async def score(
        self, model: str, text: str, *, user: str = "", top: int = 0
    ) -> list[TokenScore]:
        """Log-probability of each token of text."""
        return await self._asked(Story(model, text, user), "score", {"top": top})

    async def next_tokens(
        self, model: str, prompt: Prompt, n: int, *, user: str = ""
    ) -> list[TokenScore]:
        """The n most probable next tokens, most probable first."""
        story = Story(model, await self._checked(model, prompt), user)
        return await self._asked(story, "next_tokens", {"n": n})

    async def next_words(
        self, model: str, prompt: Prompt, n: int, *, user: str = ""
    ) -> list[WordScore]:
        """The n most probable next words, most probable first."""
        story = Story(model, await self._checked(model, prompt), user)
        return await self._asked(story, "next_words", {"n": n})

    async def _checked(self, model: str, prompt: Prompt) -> str:
        self._known(model)
        text = await made(prompt)
        check_prompt(text)
        return text

    def _known(self, model: str) -> ModelInfo:
        if not self._is_open:
            raise EngineError("The engine is not running. Start storygen again.")
        info = self._catalogue.get(model)
        if model not in self._handles:
            raise ModelNotFoundError(
                f"{model} came after the replicas were started. Deploy them again."
            )
        return info

    async def _written(
        self, story: Story, params: SamplingParams, details: Details
    ) -> AsyncGenerator[Segment, None]:
        """What one replica writes of a passage; LostError where that is not all."""
        self._known(story.model)  # it may be closed by now
        reply = self._handles[story.model].stream(story, params, details)
        pieces = aiter(reply)
        self._waiting += 1
        try:
            piece = await self._first(story.model, pieces)
        except self._lost as error:
            raise LostError(str(error)) from error
        except self._full:
            raise _busy(story.model) from None
        except BaseException:
            reply.cancel()
            raise
        finally:
            self._waiting -= 1
        self._running += 1
        try:
            while piece is not None:
                if isinstance(piece, StorygenError):
                    raise piece
                yield piece
                if piece.finish_reason is not None:
                    return
                piece = await anext(pieces, None)
        except self._lost as error:
            raise LostError(str(error)) from error
        finally:
            self._running -= 1
            reply.cancel()
        raise LostError("A replica ended in the middle of a passage.")

    async def _first(
        self, model: str, pieces: AsyncIterator[Segment | StorygenError]
    ) -> Segment | StorygenError | None:
        longest = self._limits.longest_wait
        try:
            async with asyncio.timeout(None if math.isinf(longest) else longest + 1):
                return await anext(pieces, None)
        except TimeoutError:
            raise BusyError(
                f"No replica of {model} was ready for {longest:.0f} seconds, so nothing was "
                "written. Try again soon."
            ) from None

    async def _asked(self, story: Story, question: Question, rest: dict[str, Any]) -> Any:
        """What a replica answers; another one is asked where one is lost."""
        self._known(story.model)
        losses = 0
        while True:
            try:
                answer = await self._handles[story.model].ask(story, question, rest)
            except self._full:
                raise _busy(story.model) from None
            except self._lost:
                losses += 1
                if losses < MOST_ASKED:
                    continue
                raise EngineError(
                    f"{losses} replicas of {story.model} were lost. Try again in a moment."
                ) from None
            if isinstance(answer, StorygenError):
                raise answer
            return answer


def _busy(model: str) -> BusyError:
    return BusyError(f"Every replica of {model} is full. Try again in a moment.")
