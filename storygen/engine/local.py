"""LocalEngine: models in this process, behind one worker thread.

What is short (slots, time, memory) is given out by place: a place is had first, and only then is
anything read. The worker takes the steps; here is what the event loop does.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any

from storygen import checkpoints
from storygen.catalogue import Catalogue, Kept, ModelInfo
from storygen.decode.choose import (
    Arithmetic,
    arithmetic,
    choose,
    cuda_bytes,
    cuda_capability,
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
from storygen.engine.jobs import Job, next_tokens_job, score_job
from storygen.engine.limits import Limits, Quotas, when
from storygen.engine.mail import Mail
from storygen.engine.memory import OF_CARD, card_bytes, model_bytes
from storygen.engine.opener import Opener, Opening
from storygen.engine.opening import Loader, ngrams_of, open_model
from storygen.engine.place import News, Place, Work
from storygen.engine.runner import Runner, as_storygen_error
from storygen.engine.scheduler import Scheduler
from storygen.engine.sequence import Sequence, check_prompt, with_seed
from storygen.engine.shelf import Shelf
from storygen.engine.speculation import Speculation
from storygen.engine.words import next_words_job
from storygen.engine.worker import Worker
from storygen.errors import BusyError, EngineError
from storygen.metrics import QUEUE_WAIT
from storygen.params import SamplingParams
from storygen.tokenizers import Tokenizer

log = logging.getLogger(__name__)

WATCH_EVERY = 0.5  # seconds
MOST_RESTARTS = 5  # within RESTARTS_WITHIN seconds: what fails so often does not come right
RESTARTS_WITHIN = 600
MEGA = 10**6
CLOSE_WITHIN = 10  # seconds for the step that is being taken


class LocalEngine:
    """Continuous batching over the models of a catalogue; see interface.Engine."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int = 0,
        slots: int = 8,
        queue_size: int = 32,
        loaded_models: int = 3,
        native: Path | None = None,
        limits: Limits = Limits(),  # noqa: B008 - it cannot be changed
        load: Loader | None = None,
        speculate: bool = True,
    ) -> None:
        """threads 0 takes what is there; native is a folder for the compiled decoder, None does
        without one; load makes a network of a model directory in its own way; speculate lets models
        check guesses where that is sooner, and changes no passage."""
        self._catalogue, self._load, self._threads = Kept(catalogue), load, threads
        self._wanted = (device, dtype, cuda_capability(), native)
        place, self._form = choose(*self._wanted[:3])  # raises EngineError now
        self._on_card = place == "cuda"
        self._card = OF_CARD * cuda_bytes() if self._on_card else math.inf
        self._by: Arithmetic | None = None  # found out by the first worker
        self._slots, self._queue_size, self._loaded_models = slots, queue_size, loaded_models
        self._limits, self._speculate = limits, speculate
        self._quotas = Quotas(limits.tokens_per_hour, limits.tokens_per_day, kept_in=limits.ledger)
        self._tokenizers: dict[str, Tokenizer] = {}  # outlive their models: counting is frequent
        self._reading: dict[str, Opening[Tokenizer]] = {}
        self._reader = Opener(self._read_tokenizer, lambda: None)
        self._bytes: dict[str, int] = {}  # of models that were asked for
        self._pace: dict[str, float] = {}  # seconds of a passage lately, by model
        self._restarts: list[float] = []  # when
        self._someone_waits = False  # when it was last looked
        self._worker: Worker | None = None
        self._watch: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop  # of start(), which all calls share
        self._mail: Mail

    async def start(self) -> None:
        """Start the worker thread; models are loaded when they are first used."""
        await asyncio.to_thread(self._catalogue.models)
        if self._worker is None:
            self._loop = asyncio.get_running_loop()
            self._mail = Mail(self._loop, self._deliver)
            self._worker = self._new_worker()
            self._watch = asyncio.create_task(self._watching())

    async def close(self) -> None:
        """Cancel what runs, free everything. Safe to call twice."""
        if self._watch is not None:
            self._watch.cancel()
        if self._worker is not None:
            await asyncio.to_thread(self._worker.close, CLOSE_WITHIN)
        await self._quotas.keep()

    def models(self) -> list[ModelInfo]:
        """The models in the weights directory, a second ago or two."""
        return self._catalogue.models()

    def health(self) -> Health:
        """How it goes."""
        if self._worker is None:
            return Health()
        running, waiting = self._worker.counts()
        return Health(
            running=running,
            waiting=waiting,
            models=(models := tuple(self._worker.models)),
            model_bytes=sum(self._bytes.get(model, 0) for model in models),
            restarts=len(self._restarts),
            step_seconds=self._worker.step_seconds,
            faulty=tuple(self._worker.faulty),
            opening_seconds=self._worker.opening_seconds,
            stuck=tuple(self._worker.stuck),
            is_alive=self._worker.is_alive,
        )

    async def count_tokens(self, model: str, text: str) -> int:
        """Number of tokens the model reads text as."""
        return len(await self._encode(model, text))

    async def stream(
        self,
        model: str,
        prompt: Prompt,
        params: SamplingParams,
        *,
        user: str = "",
        details: Details | None = None,
    ) -> AsyncGenerator[Segment, None]:
        """Continue prompt; closing the generator frees the slot before it returns."""
        info = self._known(model)
        if isinstance(prompt, str):
            check_prompt(prompt)
        params = with_seed(params, details)

        def sequence(text: str) -> Sequence:
            return Sequence(model, text, params, info.stop, details)

        with self._quotas.promised(user, params.max_new_tokens) as spend:
            async with aclosing(self._news(model, user, prompt, sequence)) as news:
                async for segment in news:
                    spend(segment.token_count)
                    yield segment

    async def score(
        self, model: str, text: str, *, user: str = "", top: int = 0
    ) -> list[TokenScore]:
        """Log-probability of each token of text; worked on a window at a time."""
        ids = await self._encode(model, text)
        return await self._answer(model, user, text, lambda _: score_job(model, ids, top))

    async def next_tokens(
        self, model: str, prompt: Prompt, n: int, *, user: str = ""
    ) -> list[TokenScore]:
        """The n most probable next tokens, most probable first."""
        return await self._asked(model, user, prompt, partial(next_tokens_job, model, n=n))

    async def next_words(
        self, model: str, prompt: Prompt, n: int, *, user: str = ""
    ) -> list[WordScore]:
        """The n most probable next words, most probable first."""
        return await self._asked(model, user, prompt, partial(next_words_job, model, n=n))

    async def _asked(self, model: str, user: str, prompt: Prompt, job: Callable[[str], Job]) -> Any:
        self._known(model)
        if isinstance(prompt, str):
            check_prompt(prompt)
        return await self._answer(model, user, prompt, job)

    def _known(self, model: str) -> ModelInfo:
        """What is known of a model; raises ModelNotFoundError."""
        info = self._catalogue.get(model)
        size = card_bytes if self._on_card else model_bytes
        self._bytes[model] = size(info, self._form, self._slots)
        return info

    async def _encode(self, model: str, text: str) -> list[int]:
        """Tokens of a whole text, made where they delay neither the page nor the worker."""
        self._known(model)
        self._alive()
        if model not in self._tokenizers:
            self._tokenizers[model] = await self._tokenizer(model)
        return await asyncio.to_thread(self._tokenizers[model].encode, text)

    async def _tokenizer(self, model: str) -> Tokenizer:
        """One that is read now. Raises EngineError where that takes too long."""
        if model not in self._reading:
            self._reading[model] = self._reader.ask(model)
        opening, patience = self._reading[model], self._limits.stuck_after
        if opening.seconds > patience:
            raise opening.too_long()
        read = asyncio.wrap_future(opening.future)
        done, _ = await asyncio.wait([read], timeout=None if patience == math.inf else patience)
        if not done:
            self._reader.leave(opening)
            raise opening.too_long()
        self._reading.pop(model, None)
        return read.result()

    async def _answer(
        self, model: str, user: str, prompt: Prompt, job: Callable[[str], Job]
    ) -> Any:
        async with aclosing(self._news(model, user, prompt, job)) as news:
            async for value in news:
                if not isinstance(value, Segment):  # that is the place in line
                    return value

    async def _news(
        self, model: str, user: str, prompt: Prompt, work: Callable[[str], Work]
    ) -> AsyncGenerator[Any, None]:
        """What comes of a request, in order; raises its error. Leaving early cancels it.

        The place comes first: who is refused was not read, and cost nothing."""
        place = Place(model, user, work(prompt) if isinstance(prompt, str) else None)
        worker = self._enter(place)
        making = None if place.work else asyncio.create_task(self._make(place, prompt, work))
        asked = time.monotonic()
        patience = asked + self._limits.longest_wait
        try:
            self._tell_places()
            final = False
            while not final:
                value, final = await self._next(place, patience)
                if isinstance(value, Exception):
                    raise value
                yield value
        finally:
            worker.leave(place)
            if making is not None:
                making.cancel()
            if isinstance(place.work, Sequence) and place.began is not None:
                self._learn_pace(model, time.monotonic() - place.began)
                QUEUE_WAIT.observe(place.began - asked)
            self._tell_places()

    def _enter(self, place: Place) -> Worker:
        worker = self._alive()
        try:
            worker.enter(place)
        except BusyError as error:
            raise BusyError(f"{error} Try again {self._when(place.model)}.") from None
        return worker

    async def _make(self, place: Place, prompt: Prompt, work: Callable[[str], Work]) -> None:
        """Make the prompt, now that there is a place for it."""
        try:
            text = await made(prompt)
            check_prompt(text)
            place.work = work(text)
            self._alive().wake()
        except Exception as error:
            place.inbox.put_nowait(News(error, True))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a panic in Rust code, for one, is no Exception
            place.inbox.put_nowait(News(as_storygen_error(error, place.model), True))

    async def _next(self, place: Place, patience: float) -> News:
        """The next news at a place; raises BusyError when the first step does not come."""
        while place.began is None and place.inbox.empty():
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(patience - time.monotonic(), 60))):
                    return await place.inbox.get()
            if place.began is None and time.monotonic() >= patience:
                raise BusyError(
                    f"{place.model} was busy for {self._limits.longest_wait:.0f} seconds, so "
                    f"nothing was written. Try again {self._when(place.model)}."
                )
        return await place.inbox.get()

    def _alive(self) -> Worker:
        if self._worker is None:
            raise EngineError("The engine is not running. Start storygen again.")
        return self._worker

    def _learn_pace(self, model: str, seconds: float) -> None:
        self._pace[model] = (self._pace.get(model, seconds) + seconds) / 2

    def _when(self, model: str) -> str:
        """When there will be a place, as far as one knows from the last passages."""
        assert self._worker is not None
        _, waiting = self._worker.counts()
        return when(self._pace.get(model, 0.0) * (1 + waiting) / self._slots)

    def _tell_places(self) -> None:
        """Tell those whose place in line has changed. After most steps nobody waits."""
        if self._worker is None or not (self._someone_waits or self._worker.has_line):
            return
        line = self._worker.line()
        self._someone_waits = any(n for _, n in line)  # whoever comes to the front is told, too
        for place, n in line:
            if place.told != n:
                place.told = n
                place.inbox.put_nowait(News(Segment("", 0, place=n), False))

    def _deliver(self, news: list[tuple[Place, News]]) -> None:
        for place, told in news:
            place.inbox.put_nowait(told)
        self._tell_places()
        if self._worker is not None and self._worker.failure is not None:
            self._restart()

    async def _watching(self) -> None:
        """Look whether the worker is stuck, or what opens models, neither of which says so, and
        for new models."""
        while True:
            await asyncio.sleep(WATCH_EVERY)
            self._catalogue.models()
            if self._worker is None:
                continue
            if self._worker.step_seconds > self._limits.stuck_after:
                self._give_up()
            else:
                self._worker.attend()

    def _give_up(self) -> None:
        """Leave a worker that is stuck to itself, with the models it holds, and start another."""
        assert self._worker is not None
        seconds = self._worker.step_seconds
        log.error("A step takes more than %.0f seconds: the engine is started anew.", seconds)
        stuck = EngineError(
            f"The engine was stuck for {seconds:.0f} seconds and is started anew; what was written "
            "is kept. Try again in a moment."
        )
        for place in self._worker.abandon():
            place.inbox.put_nowait(News(stuck, True))
        self._restart()

    def _restart(self) -> None:
        """Another worker in the place of one that has ended, unless that happens too often."""
        now = time.monotonic()
        self._restarts.append(now)
        recent = [at for at in self._restarts if now - at < RESTARTS_WITHIN]
        if len(recent) <= MOST_RESTARTS:
            self._worker = self._new_worker()
        else:
            log.error("The engine has failed %d times and is not started anew.", len(recent))
            self._worker = None

    def _new_worker(self) -> Worker:
        return Worker(
            Scheduler[Place](
                self._slots,
                self._queue_size,
                self._loaded_models,
                waiting_each=self._limits.waiting_each,
                fits=self._fits,
            ),
            self._prepare,
            self._new_shelf,
            self._mail.post,
            self._limits.longest_passage,
        )

    def _new_shelf(self, open_runner: Callable[[str], Runner], opened: Callable[[], None]) -> Shelf:
        patience = self._limits.stuck_after
        return Shelf(self._loaded_models, open_runner, opened, self._fits, patience)

    def _fits(self, models: Collection[str]) -> bool:
        """Whether models may be in memory together; raises EngineError for one that never may."""
        needed = sum(self._bytes[model] for model in models)
        allowed = min(self._limits.memory, self._card)
        if needed > allowed and len(models) == 1:
            by = "the card has room for" if allowed == self._card else "STORYGEN_MEMORY_MB allows"
            raise EngineError(
                f"{next(iter(models))} needs {needed / MEGA:,.0f} MB of memory and "
                f"{by} {allowed / MEGA:,.0f}. Allow more, or take "
                "fewer slots, another number format or a smaller model."
            )
        return needed <= allowed

    # From here on: the worker thread, and those that open models.

    def _prepare(self) -> Callable[[str], Runner]:
        """What opens a model."""
        self._by = self._by or arithmetic(*self._wanted)
        return partial(self._open, self._by)

    def _read_tokenizer(self, model: str) -> Tokenizer:
        return checkpoints.load_tokenizer(self._catalogue.get(model).directory)

    def _open(self, by: Arithmetic, model: str) -> Runner:
        directory = self._catalogue.get(model).directory
        decoder, tokenizer = open_model(by, directory, self._slots, self._threads, self._load)
        self._tokenizers[model] = tokenizer
        speculation = None
        if self._speculate and decoder.rows_are_independent:
            speculation = Speculation(ngrams_of(directory, tokenizer), tokenizer)
        return Runner(model, decoder, tokenizer, speculation)
