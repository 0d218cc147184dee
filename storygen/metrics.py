"""What is measured while storygen runs, for Prometheus to collect.

No label holds a name of a user, a story or a model: each has a few values, all known here.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from storygen.errors import StorygenError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SPEEDS = (1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)  # memory, processor time, open files, when it was started

FIRST_TOKEN = Histogram(
    "storygen_first_token_seconds",
    "From asking for a passage to its first words.",
    buckets=LONG,
    registry=REGISTRY,
)
SPEED = Histogram(
    "storygen_tokens_per_second",
    "Speed of a passage after its first token, as its reader sees it.",
    buckets=SPEEDS,
    registry=REGISTRY,
)
TOKENS = Counter("storygen_tokens", "Tokens written.", registry=REGISTRY)
PASSAGES = Counter(
    "storygen_passages", "Passages written, by how they ended.", ["reason"], registry=REGISTRY
)
QUEUE_WAIT = Histogram(
    "storygen_queue_wait_seconds",
    "From asking for a passage to its first step.",
    buckets=LONG,
    registry=REGISTRY,
)
ERRORS = Counter("storygen_errors", "Errors told to writers.", ["kind"], registry=REGISTRY)
HTTP = Histogram(
    "storygen_http_seconds",
    "Time of an HTTP answer.",
    ["route", "method", "status"],
    buckets=SHORT,
    registry=REGISTRY,
)
DATABASE_WRITE = Histogram(
    "storygen_database_write_seconds",
    "Time of a transaction that writes, waiting for its turn included.",
    buckets=SHORT,
    registry=REGISTRY,
)
WINDOWS = Gauge(
    "storygen_windows", "Windows that are open, or may come back within minutes.", registry=REGISTRY
)
READY = Gauge("storygen_ready", "Whether passages can be written: 1 or 0.", registry=REGISTRY)


class PassageTimer:
    """Times one passage where it is read: an addition a segment, the metrics once at its end."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._first = 0.0
        self.tokens = 0

    def took(self, tokens: int) -> None:
        """A segment came, with so many tokens."""
        if not self._first and tokens:
            self._first = time.perf_counter()
            self._early = tokens
        self.tokens += tokens

    def ended(self, reason: str) -> None:
        """It is over, for a reason that is one of the engine's few."""
        PASSAGES.labels(reason).inc()
        TOKENS.inc(self.tokens)
        if self._first:
            FIRST_TOKEN.observe(self._first - self._began)
            later, seconds = self.tokens - self._early, time.perf_counter() - self._first
            if later > 0 and seconds > 0:
                SPEED.observe(later / seconds)


@dataclass(frozen=True)
class Load:
    """What an engine is doing at this moment."""

    running: int  # passages and questions that have a slot
    waiting: int  # that wait for one
    slots: int  # of each model
    models: int  # in memory
    model_bytes: int  # their weights and slots, when these are full
    restarts: int  # of its worker, since the start
    step_seconds: float  # for which it has been at one step
    opening_seconds: float = 0.0  # for which a model has been opening
    stuck_models: int = 0  # for which that is too long


class _LoadCollector(Collector):
    """The load of an engine, if there is one, asked for when it is collected."""

    load: Callable[[], Load] | None = None

    def collect(self) -> Iterable[GaugeMetricFamily]:
        if self.load is None:
            return
        load = self.load()
        for name, meaning, value in (
            ("running", "Passages and questions that have a slot.", load.running),
            ("queue_length", "Passages and questions that wait for a slot.", load.waiting),
            ("slots", "Slots of each model.", load.slots),
            ("loaded_models", "Models in memory.", load.models),
            ("loaded_model_bytes", "What their weights and slots may take.", load.model_bytes),
            ("engine_restarts", "How often its worker was started anew.", load.restarts),
            ("step_seconds", "For how long it has been at one step.", load.step_seconds),
            ("opening_seconds", "For how long a model has been opening.", load.opening_seconds),
            ("stuck_models", "Models that take too long to be opened.", load.stuck_models),
        ):
            yield GaugeMetricFamily(f"storygen_{name}", meaning, value)


_ENGINE = _LoadCollector()
REGISTRY.register(_ENGINE)


def watch(load: Callable[[], Load]) -> None:
    """Collect what an engine does; it is asked from whatever thread collects."""
    _ENGINE.load = load


def error_told(error: BaseException) -> None:
    """Count an error by its kind."""
    ours = isinstance(error, StorygenError)
    ERRORS.labels(type(error).__name__ if ours else "unexpected").inc()


def answered(route: str, method: str, status: int, seconds: float) -> None:
    """An HTTP request was answered. route is a template of ours, never what somebody typed."""
    known = method if method in METHODS else "other"
    HTTP.labels(route, known, f"{status // 100}xx").observe(seconds)


@contextmanager
def timed(histogram: Histogram) -> Iterator[None]:
    """Observe how long the block takes, however it ends."""
    began = time.perf_counter()
    try:
        yield
    finally:
        histogram.observe(time.perf_counter() - began)


def exposition() -> bytes:
    """Everything, in Prometheus' text format."""
    disable_created_metrics()  # a series more for each, for which nobody asks
    return generate_latest(REGISTRY)
