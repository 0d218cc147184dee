"""LocalEngine: models in this process, behind one worker thread.

The worker alone touches torch. It asks the scheduler whose turn it is, lets that model's runner
take a step, and hands what came of it to the event loop, which passes it on to the streams.
"""

import asyncio
import logging
import secrets
import threading
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from storygen import checkpoints
from storygen.catalogue import Catalogue, ModelInfo
from storygen.decode.choose import Arithmetic, arithmetic, choose, cuda_capability
from storygen.engine.interface import Segment, TokenScore, WordScore
from storygen.engine.jobs import Job, next_tokens_job, score_job, tokenizer_job
from storygen.engine.opening import Loader, open_model
from storygen.engine.runner import Outcome, Runner, as_storygen_error
from storygen.engine.scheduler import Scheduler
from storygen.engine.sequence import Sequence, check_prompt
from storygen.engine.shelf import Shelf
from storygen.engine.words import next_words_job
from storygen.errors import EngineError
from storygen.params import MAX_SEED, SamplingParams
from storygen.tokenizers import Tokenizer

log = logging.getLogger(__name__)

Request = Sequence | Job


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
        load: Loader = checkpoints.load,
    ) -> None:
        """threads 0 takes what is there; native is a folder for the compiled decoder, None does
        without one; load reads a model directory."""
        self._catalogue, self._load, self._threads = catalogue, load, threads
        self._wanted = (device, dtype, cuda_capability(), native)
        choose(*self._wanted[:3])  # raises EngineError now
        self._by: Arithmetic  # the worker's own, as the shelf
        self._inboxes: dict[Request, asyncio.Queue[Outcome]] = {}
        self._tokenizers: dict[str, Tokenizer] = {}  # outlive their models: counting is frequent
        self._worker: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop  # of start(), which all calls share
        self._shelf = Shelf(loaded_models, self._open, self._opened)  # the worker's own
        # All threads use these three, under the condition, which says that there is work.
        self._scheduler = Scheduler[Request](slots, queue_size, loaded_models)
        self._unopened: set[str] = set()  # models that cannot run before one has been opened
        self._stopping = False
        self._changed = threading.Condition()

    async def start(self) -> None:
        """Start the worker thread; models are loaded when they are first used."""
        if self._worker is None:
            self._loop = asyncio.get_running_loop()
            self._worker = threading.Thread(target=self._work, name="engine", daemon=True)
            self._worker.start()

    async def close(self) -> None:
        """Cancel what runs, free everything. Safe to call twice."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._worker is not None:
            await asyncio.to_thread(self._worker.join)

    def models(self) -> list[ModelInfo]:
        """The models in the weights directory now."""
        return self._catalogue.models()

    async def count_tokens(self, model: str, text: str) -> int:
        """Number of tokens the model reads text as."""
        return len(await self._encode(model, text))

    async def stream(
        self, model: str, prompt: str, params: SamplingParams
    ) -> AsyncGenerator[Segment, None]:
        """Continue prompt; closing the generator frees the slot before it returns."""
        info = self._catalogue.get(model)
        check_prompt(prompt)
        if params.seed is None:
            params = replace(params, seed=secrets.randbelow(MAX_SEED + 1))
        sequence = Sequence(model, prompt, params, info.stop)
        async with aclosing(self._outcomes(sequence)) as outcomes:
            async for segment in outcomes:
                yield segment

    async def score(self, model: str, text: str) -> list[TokenScore]:
        """Log-probability of each token of text; worked on a window at a time."""
        ids = await self._encode(model, text)
        return await self._ask(score_job(model, ids))

    async def next_tokens(self, model: str, prompt: str, n: int) -> list[TokenScore]:
        """The n most probable next tokens, most probable first."""
        self._catalogue.get(model)
        check_prompt(prompt)
        return await self._ask(next_tokens_job(model, prompt, n))

    async def next_words(self, model: str, prompt: str, n: int) -> list[WordScore]:
        """The n most probable next words, most probable first."""
        self._catalogue.get(model)
        check_prompt(prompt)
        return await self._ask(next_words_job(model, prompt, n))

    async def _encode(self, model: str, text: str) -> list[int]:
        """Tokens of a whole text, made where they delay neither the page nor the worker."""
        self._catalogue.get(model)
        tokenizer = self._tokenizers.get(model) or await self._ask(tokenizer_job(model))
        return await asyncio.to_thread(tokenizer.encode, text)

    async def _ask(self, job: Job) -> Any:
        async with aclosing(self._outcomes(job)) as outcomes:
            return await anext(outcomes)

    async def _outcomes(self, request: Request) -> AsyncGenerator[Any, None]:
        """What comes of a request, in order; raises its error. Leaving early cancels it."""
        inbox = self._submit(request)
        try:
            final = False
            while not final:
                _, value, final = await inbox.get()
                if isinstance(value, Exception):
                    raise value
                yield value
        finally:
            self._withdraw(request)

    def _submit(self, request: Request) -> "asyncio.Queue[Outcome]":
        with self._changed:
            if self._worker is None or self._stopping:
                raise EngineError("The engine is not running. Start storygen again.")
            self._scheduler.add(request)
            self._changed.notify()
        inbox = self._inboxes[request] = asyncio.Queue()
        return inbox

    def _withdraw(self, request: Request) -> None:
        """Give up a request's place; the worker sees it before its next step."""
        del self._inboxes[request]
        with self._changed:
            self._scheduler.remove(request)

    def _deliver(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            inbox = self._inboxes.get(outcome.request)
            if inbox is not None:  # else its reader has gone
                inbox.put_nowait(outcome)

    # From here on: the worker thread.

    def _work(self) -> None:
        # PyTorch's threads wait for each other by spinning: where the page, a browser or a training
        # takes one of the cores for a moment, using all of them costs a step 50 times its time.
        self._threads_of_torch = self._threads or max(1, torch.get_num_threads() - 1)
        torch.set_num_threads(self._threads_of_torch)
        failure = None
        try:
            self._by = arithmetic(*self._wanted)
            with torch.inference_mode():
                while (turn := self._next_turn()) is not None:
                    self._post(self._run(*turn))
        except BaseException as error:  # a panic in Rust code, for one, is no Exception
            log.exception("The engine has stopped.")
            failure = error
        self._stop(failure)

    def _next_turn(self) -> tuple[str, list[Request], Collection[str]] | None:
        """A model, its running requests, and all models that are busy; None to stop."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or self._scheduler.running.keys() - self._unopened
            )
            turn = None if self._stopping else self._scheduler.turn(self._unopened)
            return turn and (*turn, set(self._scheduler.running))

    def _run(self, model: str, requests: list[Request], busy: Collection[str]) -> list[Outcome]:
        """One step of a model; what fails as a whole fails all its requests and no others."""
        try:
            runner = self._shelf.take(model, busy)
            if runner is not None:
                return runner.step(requests)
        except Exception as error:
            return [Outcome(r, as_storygen_error(error, model), final=True) for r in requests]
        with self._changed:
            if self._shelf.is_opening:
                self._unopened.add(model)
        return []

    def _post(self, outcomes: list[Outcome]) -> None:
        """Free the slots of what is over and pass everything on to the event loop, at one go."""
        if not outcomes:
            return
        with self._changed:
            for outcome in outcomes:
                if outcome.final:
                    self._scheduler.remove(outcome.request)
        try:
            self._loop.call_soon_threadsafe(self._deliver, outcomes)
        except RuntimeError:  # the loop is closed: nobody is left to read
            self._stopping = True

    def _stop(self, failure: BaseException | None) -> None:
        """End what is left and forget the models."""
        with self._changed:
            self._stopping = True
            left = self._scheduler.requests()
        self._post([Outcome(request, _end(request, failure), final=True) for request in left])
        self._shelf.clear()

    # From here on: the thread that opens models.

    def _open(self, model: str) -> Runner:
        torch.set_num_threads(self._threads_of_torch)
        directory = self._catalogue.get(model).directory
        with torch.inference_mode():
            decoder, tokenizer = open_model(
                self._by, directory, self._scheduler.slots, self._threads, self._load
            )
        self._tokenizers[model] = tokenizer
        return Runner(model, decoder, tokenizer)

    def _opened(self) -> None:
        """A model was opened, or could not be: those that waited for it or its place may try."""
        with self._changed:
            self._unopened.clear()
            self._changed.notify()


def _end(request: Request, failure: BaseException | None) -> Segment | EngineError:
    """What is left to say when the engine stops."""
    if isinstance(request, Sequence) and failure is None:
        return request.finish("cancelled")
    error = EngineError("The engine has stopped. Start storygen again.")
    error.__cause__ = failure
    return error
