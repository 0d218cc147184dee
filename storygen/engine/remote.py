"""RemoteEngine: models behind a server elsewhere: ours, vLLM, llama.cpp's or another that speaks
OpenAI's completions.

What is short (passages at a time) is shared out here, user by user, since the server sees one
client. A passage survives a lost connection: it goes on where it was.
"""

import asyncio
import hashlib
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

from storygen.catalogue import ModelInfo
from storygen.engine.beginnings import TextSearch
from storygen.engine.dialects import (
    MOST_LIKELY,
    NAMES,
    Kind,
    Reader,
    asker,
    count_in,
    estimated_tokens,
    kind_of,
    likely,
    models_in,
    scores_in,
    token_count,
    words_in,
)
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
from storygen.engine.line import Line, Ticket
from storygen.engine.patience import Patience, Trial
from storygen.engine.retold import BrokenOffError, Continued, Marked, Retold
from storygen.engine.sequence import check_prompt, with_seed
from storygen.engine.upstream import (
    LaterError,
    LostError,
    RefusedError,
    Upstream,
    error_in,
)
from storygen.errors import (
    EngineError,
    ModelNotFoundError,
    PromptError,
    QuotaError,
    StorygenError,
)
from storygen.params import SamplingParams

log = logging.getLogger(__name__)

MOST_COUNTS = 4096  # texts whose tokens are remembered
MOST_BEGINNINGS, TOGETHER = 32, 4  # of words that another server is asked to go on with
LIKELY = 100  # tokens after each


class RemoteEngine:
    """The models of a server; see interface.Engine."""

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        context: int = 0,
        slots: int = 8,
        queue_size: int = 32,
        models_at_once: int = 3,
        first: str = "",
        limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
        patience: Patience = Patience(),  # noqa: B008 - it cannot be changed
        known: Callable[[str], ModelInfo | None] = lambda name: None,
    ) -> None:
        """context is what a model reads where the server does not say; slots is how many passages
        are asked for at a time of each of so many models; first is the model to list before the
        others; known tells how models look."""
        self._first = first
        self._url, self._key, self._context, self._known = url, key, context, known
        self._limits, self._patience = limits, patience
        self._connections = slots * models_at_once + 16  # and for what is no passage
        self._line = Line(slots, queue_size, models_at_once, limits)
        self._quotas = Quotas(limits.tokens_per_hour, limits.tokens_per_day, kept_in=limits.ledger)
        self._kind: Kind = "openai"
        self._models: dict[str, ModelInfo] = {}
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._trouble = "The model server was not asked yet."
        self._upstream: Upstream | None = None
        self._look = asyncio.Event()  # at the server, now
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look for the server; where it is not there yet, it is looked for until it is."""
        if self._upstream is None:
            self._upstream = Upstream(self._url, self._key, self._connections)
            await self._refresh(self._patience.first)
            self._watch = asyncio.create_task(self._watching())

    async def close(self) -> None:
        """Cancel what runs. Safe to call twice."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait({self._watch})
        if self._upstream is not None:
            upstream, self._upstream = self._upstream, None
            await upstream.close()
            await self._quotas.keep()

    def models(self) -> list[ModelInfo]:
        """The models it had when it was last looked at."""
        return sorted(self._models.values(), key=lambda info: info.name != self._first)

    def health(self) -> Health:
        """What is known of it here."""
        running = sum(map(len, self._line.running.values()))
        return Health(
            running=running,
            waiting=len(self._line.waiting),
            models=tuple(self._models),
            is_alive=self._upstream is not None,
            trouble=self._trouble,
        )

    async def count_tokens(self, model: str, text: str) -> int:
        """Number of tokens, as the server says; where it cannot, an estimate that is no less."""
        self._info(model)
        name = hashlib.sha256(f"{model}\0{text}".encode("utf-8", "replace")).digest()
        if name not in self._counts:
            self._counts[name] = await self._count(model, text)
            if len(self._counts) > MOST_COUNTS:
                self._counts.popitem(last=False)
        self._counts.move_to_end(name)
        return self._counts[name]

    async def stream(
        self,
        model: str,
        prompt: Prompt,
        params: SamplingParams,
        *,
        user: str = "",
        details: Details | None = None,
    ) -> AsyncGenerator[Segment, None]:
        """Continue prompt; closing the generator ends the request, and so its slot there."""
        self._info(model)
        if isinstance(prompt, str):
            check_prompt(prompt)
        if details is not None and self._kind != "storygen":
            raise self._cannot("say what a passage consists of")
        params = with_seed(params, details)
        with self._quotas.promised(user, params.max_new_tokens) as spend:
            async with aclosing(self._line.placed(model, user)) as places:
                async for place in places:
                    if isinstance(place, Segment):
                        yield place
                        continue
                    passage = self._passage(model, await made(prompt), params, details, user)
                    async with aclosing(self._written(passage, model)) as segments:
                        async for segment in segments:
                            spend(segment.token_count)
                            self._line.served(place)
                            yield segment

    async def score(
        self, model: str, text: str, *, user: str = "", top: int = 0
    ) -> list[TokenScore]:
        """Log-probability of each token of text, where the server tells it."""
        asked: dict[str, Any] = {"model": model, "text": text, "top": top}
        if self._kind == "storygen":
            return scores_in(await self._answer(model, user, "/v1/score", asked | asker(user)))
        if self._kind != "vllm":
            raise self._cannot("tell how probable a text is that is there")
        asked = {"model": model, "prompt": text, "max_tokens": 1, "echo": True}
        asked["logprobs"] = max(1, top)
        found = likely(_first_choice(await self._answer(model, user, "/v1/completions", asked)))
        return [replace(score, top=score.top[:top]) for score in found[:-1]]

    async def next_tokens(
        self, model: str, prompt: Prompt, n: int, *, user: str = ""
    ) -> list[TokenScore]:
        """The n most probable next tokens, or as many as the server tells."""
        asked: dict[str, Any] = {"model": model, "prompt": prompt, "n": n}
        if self._kind == "storygen":
            asked |= asker(user)
            return scores_in(await self._answer(model, user, "/v1/next_tokens", asked))
        wanted = min(n, MOST_LIKELY[self._kind])
        asked = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
        asked |= {"logprobs": wanted, "stream": False}
        choice = _first_choice(await self._answer(model, user, "/v1/completions", asked))
        if not choice.get("logprobs"):
            raise self._cannot("tell how probable the next words are")
        return list(likely(choice)[0].top)[:n] if likely(choice) else []

    async def next_words(
        self, model: str, prompt: Prompt, n: int, *, user: str = ""
    ) -> list[WordScore]:
        """The n most probable next words; from another server than ours about those, found by the
        tokens that it tells."""
        if self._kind == "storygen":
            asked = {"model": model, "prompt": prompt, "n": n} | asker(user)
            return words_in(await self._answer(model, user, "/v1/next_words", asked))
        text, search = await made(prompt), TextSearch(n, MOST_BEGINNINGS)
        while paths := search.next(TOGETHER):
            asking = (
                self.next_tokens(model, text + path.start, LIKELY, user=user) for path in paths
            )
            for path, tokens in zip(paths, await asyncio.gather(*asking), strict=True):
                search.expand(path, tokens)
        return search.best()

    def _cannot(self, what: str) -> EngineError:
        return EngineError(
            f"{NAMES[self._kind].capitalize()} cannot {what}: storygen's own can "
            "(python -m storygen serve)."
        )

    def _info(self, model: str) -> ModelInfo:
        """What is known of a model; raises ModelNotFoundError."""
        if self._upstream is None:
            raise EngineError("The engine is not running. Start storygen again.")
        if model not in self._models:
            if self._trouble:
                raise EngineError(self._trouble)
            known = ", ".join(self._models) or "none"
            raise ModelNotFoundError(
                f"There is no model {model[:80]!r} at the model server. Models there: {known}."
            )
        return self._models[model]

    def _server(self) -> Upstream:
        if self._upstream is None:
            raise EngineError("The engine is not running. Start storygen again.")
        return self._upstream

    # What is asked, and asked again.

    def _passage(
        self,
        model: str,
        prompt: str,
        params: SamplingParams,
        details: Details | None,
        user: str,
    ) -> Retold:
        check_prompt(prompt)
        info = self._info(model)
        if self._kind == "storygen":
            return Marked(info, prompt, params, details, user)
        return Continued(self._kind, info, prompt, params)

    async def _written(self, passage: Retold, model: str) -> AsyncGenerator[Segment, None]:
        """A passage, whatever becomes of the connections it takes."""
        began = time.monotonic()
        trial = Trial(self._patience, self._limits.longest_wait)
        ends = began + self._limits.longest_passage
        is_over = False
        while not is_over:
            if passage.left <= 0:
                yield passage.finish("length")
                break
            try:
                body = await self._body(passage)
                async with aclosing(self._pieces(passage, body, trial, ends)) as segments:
                    async for segment in segments:
                        is_over = segment.finish_reason is not None
                        yield segment
                if not is_over:
                    raise LostError("The model server ended a passage that was not over.")
            except RefusedError as error:
                if not (error.is_about_context and await self._reads_less(passage)):
                    raise _as_told(error) from None
            except BrokenOffError:
                await asyncio.sleep(trial.pause_to_go_on())
            except (LostError, LaterError) as error:
                self._look.set()
                pause = trial.pause_after(error)
                if isinstance(error, LaterError) and not trial.has_begun:
                    yield Segment("", 0, place=1)
                await asyncio.sleep(pause)
        self._line.learn_pace(model, time.monotonic() - began)

    async def _reads_less(self, passage: Retold) -> bool:
        """Whether a model reads less than was thought: llama.cpp says how much once it has loaded
        it, which may be for this passage."""
        if not isinstance(passage, Continued):
            return False
        await self._refresh(self._patience.answer)
        known, passage.info = passage.info, self._info(passage.info.name)
        return passage.info.block_size < known.block_size

    async def _body(self, passage: Retold) -> dict[str, Any]:
        """What to ask for; where prompt and passage are more than the model can read, the beginning
        goes, so that half of its context is left."""
        if isinstance(passage, Marked):
            return passage.body()
        assert isinstance(passage, Continued)
        model, context = passage.info.name, passage.info.block_size
        read = await self.count_tokens(model, passage.story)
        if read + min(passage.left, context // 2) > context:
            while read > context - context // 2 and passage.cut(0.9 * (context // 2) / read):
                read = await self.count_tokens(model, passage.story)
        return passage.body(max(context - read, 1))

    async def _pieces(
        self, passage: Retold, body: dict[str, Any], trial: Trial, ends: float
    ) -> AsyncGenerator[Segment, None]:
        """What comes of one request. Raises LostError when it is silent for too long."""
        reader = Reader()
        async with aclosing(self._server().events("/v1/completions", body)) as events:
            while True:
                try:
                    async with asyncio.timeout(min(trial.until, ends) - time.monotonic()):
                        event = await anext(events, None)
                except TimeoutError:
                    if time.monotonic() >= ends:
                        yield passage.finish("time")
                        return
                    raise LostError("The model server has sent nothing for too long.") from None
                if event is None:
                    return
                if (error := error_in(event)) is not None:
                    raise _mid_stream(*error)
                for segment in passage.take(reader.read(event)):
                    if segment.token_count or segment.finish_reason:
                        trial.got_on()
                    yield segment
                    if segment.finish_reason is not None:
                        return

    async def _count(self, model: str, text: str) -> int:
        for path, asked in token_count(self._kind, model, text):
            try:
                return count_in(await self._asked(path, asked))
            except RefusedError as error:
                if not error.is_unknown_route:
                    raise _as_told(error) from None
        return estimated_tokens(text)

    async def _answer(
        self, model: str, user: str, path: str, asked: dict[str, Any]
    ) -> dict[str, Any]:
        """The answer to a question that takes a place, as a passage does."""
        self._info(model)
        async with aclosing(self._line.placed(model, user)) as places:
            async for place in places:
                if isinstance(place, Ticket):
                    if "prompt" in asked:
                        asked["prompt"] = await made(asked["prompt"])
                        check_prompt(asked["prompt"])
                    try:
                        return await self._asked(path, asked)
                    except RefusedError as error:
                        raise _as_told(error) from None
        raise AssertionError("a place is had, or an error raised")

    async def _asked(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        """A question, asked until it is answered or patience is over."""
        trial = Trial(self._patience, self._patience.answer)
        while True:
            try:
                async with asyncio.timeout(self._patience.answer):
                    return await self._server().ask("POST", path, asked)
            except TimeoutError:
                raise EngineError(
                    f"The model server did not answer within {self._patience.answer:.0f} seconds."
                ) from None
            except (LostError, LaterError) as error:
                self._look.set()
                await asyncio.sleep(trial.pause_after(error))

    # What there is.

    async def _watching(self) -> None:
        """Look at the server now and then, and sooner while something is wrong."""
        while True:
            pause = self._patience.look if not self._trouble else self._patience.longest_pause
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._look.wait()
            await asyncio.sleep(self._patience.pause)
            self._look.clear()
            await self._refresh(self._patience.answer)

    async def _refresh(self, patience: float) -> None:
        """Ask which models there are; what goes wrong is remembered, and logged once."""
        before = self._trouble
        try:
            async with asyncio.timeout(patience):
                answer = await self._server().ask("GET", "/v1/models")
            infos = models_in(answer, self._context, self._known)
            self._kind = kind_of(answer)
            self._models, self._trouble = {info.name: info for info in infos}, ""
        except TimeoutError:
            self._trouble = f"The model server did not answer within {patience:.0f} seconds."
        except EngineError as error:
            self._trouble = str(error)
        if self._trouble and self._trouble != before:
            log.warning("%s (%s)", self._trouble, self._url)
        elif before and not self._trouble:
            log.info("The model server at %s has %d models.", self._url, len(self._models))


def _mid_stream(told: str, kind: str, code: str) -> StorygenError:
    """An error that came in place of a piece."""
    if code == "quota":
        return QuotaError(told)
    if kind == "rate_limit_error":
        return LaterError(told or "The model server is busy.", None)
    if kind == "service_unavailable_error":
        return LostError(told or "The model server could not go on.")
    if code == "prompt":
        return PromptError(told)
    return EngineError(f"The model server failed: {told or 'it does not say why'}")


def _as_told(error: RefusedError) -> StorygenError:
    """A refusal as the error it was there."""
    if error.code == "quota":
        return QuotaError(error.told)
    if error.code == "model_not_found":
        return ModelNotFoundError(error.told)
    if error.code == "prompt":
        return PromptError(error.told)
    return error


def _first_choice(answer: dict[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        raise EngineError("The model server answered without a choice.")
    return choices[0]
