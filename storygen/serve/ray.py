"""The models as Ray Serve deployments, and the API before them; docs/ray.md has how it is started.

serve run storygen.serve.ray:app replicas=2
"""

import io
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from typing import Any, cast

import ray
from pydantic import BaseModel, Field, model_validator
from ray import serve
from ray.exceptions import RayActorError, TaskCancelledError, WorkerCrashedError
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from storygen.catalogue import Catalogue
from storygen.decode.choose import arithmetic, cuda_capability
from storygen.engine.interface import Details
from storygen.engine.local import LocalEngine
from storygen.engines import limits_of
from storygen.params import SamplingParams
from storygen.serve.app import application
from storygen.serve.command import keys_on
from storygen.serve.families import Part, families
from storygen.serve.ray_engine import RayEngine
from storygen.serve.ray_router import StoryRouter
from storygen.serve.ray_start import LOCAL
from storygen.serve.replica import Question, Replica, Story
from storygen.settings import Settings, load_settings

LOST = (RayActorError, WorkerCrashedError, TaskCancelledError, DeploymentUnavailableError)
QUIET = {"log_level": "WARNING", "enable_access_log": False}
MODELS_TOLD_EVERY, LOOK_EVERY = 1.0, 1.0  # seconds
UPSCALE_AFTER, DOWNSCALE_AFTER = 10.0, 300.0  # seconds; to open a model takes some
ONE_LOOP = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}  # the engine has a thread anyway
OBJECT_STORE = 100 * 2**20  # bytes: nothing large is sent
LEDGER = "quotas-serve.json"
logger = logging.getLogger(__name__)


class Options(BaseModel, extra="forbid"):
    """What one deployment chooses; each is an argument of `serve run` as name=value."""

    replicas: int = Field(default=1, ge=1, description="Replicas of each model at first.")
    max_replicas: int = Field(default=0, ge=0, description="Most of them under load; 0: as many.")
    cpus: float = Field(default=1.0, gt=0, description="Cores a replica takes, and its threads.")
    gpus: float = Field(default=0.0, ge=0, description="GPUs a replica takes, or a part of one.")
    models: str = Field(default="", description="Names, separated by commas; empty: all.")

    @model_validator(mode="after")
    def _grows(self) -> "Options":
        if 0 < self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas is less than replicas, which is {self.replicas}")
        return self


class Replicas:
    """The replicas of one deployment as RayEngine asks them."""

    def __init__(self, handle: DeploymentHandle) -> None:
        # By gRPC: through Ray's object store a message costs twice as much.
        self._answers = handle.options(_by_reference=False)
        self._streams = self._answers.options(stream=True)

    def stream(self, story: Story, params: SamplingParams, details: Details) -> Any:
        """What Replica.stream says."""
        return self._streams.stream.remote(story, params, details)

    async def ask(self, story: Story, question: Question, rest: dict[str, Any]) -> Any:
        """What Replica.ask says."""
        return await self._answers.ask.remote(story, question, rest)


@serve.deployment(name="api", max_ongoing_requests=10_000, ray_actor_options={"num_cpus": 0})
@serve.ingress()
class Api:
    """The API for other programs, as `python -m storygen serve` has it."""

    async def __init__(  # type: ignore[misc]  # Ray Serve waits for it
        self, settings: Settings, **handles: DeploymentHandle
    ) -> None:
        """handles by base."""
        self._engine = engine_over(settings, handles)
        self._token = settings.metrics_token.get_secret_value()
        self._database, self._keys = await keys_on(settings, _host())
        await self._engine.start()

    def __serve_build_asgi_app__(self) -> Any:
        """What answers; Ray Serve asks for it."""
        return application(self._engine, keys=self._keys, metrics_token=self._token)


def app(options: Options) -> serve.Application:
    """The API and the models behind it, as the settings want them."""
    settings = load_settings()
    return Api.bind(settings, **deployments(settings, options))  # type: ignore[attr-defined]  # a deployment has it


def deployments(settings: Settings, options: Options) -> dict[str, serve.Application]:
    """A deployment for each model, with its adapters, by the model's name."""
    catalogue = Catalogue(settings.weights_dir, settings.first_model)
    wanted = [name.strip() for name in options.models.split(",") if name.strip()]
    found = families([catalogue.get(name) for name in wanted] or catalogue.models())
    return {base: _deployment(settings, options, base, names) for base, names in found.items()}


def _deployment(
    settings: Settings, options: Options, base: str, names: tuple[str, ...]
) -> serve.Application:
    make = partial(
        LocalEngine,
        Part(settings.weights_dir, names, settings.first_model),
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads or math.ceil(options.cpus),
        slots=settings.slots,
        queue_size=settings.queue_size,
        loaded_models=settings.loaded_models,
        native=settings.native_dir,
        limits=replace(limits_of(settings), tokens_per_hour=0, tokens_per_day=0, ledger=None),
    )
    capacity = settings.slots + settings.queue_size
    return cast(
        serve.Application,
        serve.deployment(Replica)
        .options(
            name=base,
            **_number(settings, options),
            max_ongoing_requests=capacity,
            max_queued_requests=capacity * max(options.replicas, options.max_replicas),
            request_router_config=RequestRouterConfig(
                request_router_class=StoryRouter,
                request_router_kwargs={"shared": len(names) > 1},
                request_routing_stats_period_s=MODELS_TOLD_EVERY,
            ),
            ray_actor_options={
                "num_cpus": options.cpus,
                "num_gpus": options.gpus,
                "runtime_env": {"env_vars": ONE_LOOP},
            },
            logging_config=QUIET,
        )
        .bind(make, base if base in names else names[0]),
    )


def _number(settings: Settings, options: Options) -> dict[str, Any]:
    """How many replicas: as many as keep each at most as busy as it has slots."""
    if options.max_replicas <= options.replicas:
        return {"num_replicas": options.replicas}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=options.replicas,
            max_replicas=options.max_replicas,
            target_ongoing_requests=settings.slots,
            upscale_delay_s=UPSCALE_AFTER,
            downscale_delay_s=DOWNSCALE_AFTER,
        )
    }


def engine_over(settings: Settings, handles: dict[str, DeploymentHandle]) -> RayEngine:
    """The replicas as one engine; handles by base."""
    catalogue = Catalogue(settings.weights_dir, settings.first_model)
    replicas = {base: Replicas(handle) for base, handle in handles.items()}
    return RayEngine(
        catalogue,
        {
            name: replicas[base]
            for base, names in families(catalogue.models()).items()
            for name in names
            if base in replicas
        },
        lost=LOST,
        full=(BackPressureError,),
        limits=limits_of(settings, LEDGER),
    )


def _host() -> str:
    """Where Ray Serve listens."""
    from ray.serve.context import _get_global_client

    return _get_global_client().http_config.host or ""


@contextmanager
def started(settings: Settings, options: Options, address: str = LOCAL) -> Iterator[RayEngine]:
    """The models as one engine, on a Ray cluster or on one that is started here. What another front
    has brought to a cluster is used as it is, and stays there in the end: others may be asking it.
    It blocks until all replicas are ready."""
    built = deployments(settings, options)
    needed = options.cpus * max(options.replicas, options.max_replicas) * len(built)
    if address == LOCAL:  # compiled once, and not by each replica at the same time
        arithmetic(settings.device, settings.dtype, cuda_capability(), settings.native_dir)
    with connected(address, math.ceil(needed)):
        serve.start(proxy_location="Disabled")
        yield engine_over(settings, {base: _run(base, model) for base, model in built.items()})


def _run(base: str, model: serve.Application) -> DeploymentHandle:
    name = f"storygen-{base}"
    while (there := serve.status().applications.get(name)) and there.status == "DEPLOYING":
        time.sleep(LOOK_EVERY)
    if there and there.status == "RUNNING":
        logger.info("%s runs on this cluster already, and is asked as it is.", base)
        return serve.get_app_handle(name)
    return serve.run(model, name=name, route_prefix=None)


@contextmanager
def connected(address: str = LOCAL, cpus: int = 1) -> Iterator[None]:
    """A cluster, or one started here with as many cores, which on one machine is a manner of
    speaking: models that nobody asks take no time. What was started here is ended again."""
    here: dict[str, Any] = {}
    if address == LOCAL:
        here = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    ray.init(address, logging_level=logging.WARNING, log_to_driver=False, **here)
    try:
        yield
    finally:
        with redirect_stdout(_Noted()):
            if address == LOCAL:
                serve.shutdown()
            ray.shutdown()


class _Noted(io.TextIOBase):
    """For the log, what Ray prints while it ends: that what ends on purpose has failed."""

    def write(self, text: str) -> int:
        """Note a line."""
        if text.strip():
            logger.debug("Ray said: %s", text.strip())
        return len(text)
