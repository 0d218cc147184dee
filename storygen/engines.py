"""The engine that the settings want, for whatever serves it: the page, the API."""

import math

from storygen.catalogue import Catalogue, Kept
from storygen.engine.interface import Engine
from storygen.engine.limits import Limits
from storygen.settings import Settings


def engine_of(settings: Settings, ledger: str = "quotas.json") -> Engine:
    """It is still closed. Processes that share a data directory have a ledger each."""
    if settings.engine_url:
        return _remote(settings, ledger)
    from storygen.engine import local  # takes seconds: not for --help

    return local.LocalEngine(
        Catalogue(settings.weights_dir, settings.first_model),
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        slots=settings.slots,
        queue_size=settings.queue_size,
        loaded_models=settings.loaded_models,
        native=settings.native_dir,
        limits=limits_of(settings, ledger),
    )


def _remote(settings: Settings, ledger: str) -> Engine:
    """The one that asks a server elsewhere; models of the same name here tell how to show its."""
    from storygen.engine.remote import RemoteEngine

    catalogue = Kept(Catalogue(settings.weights_dir))
    return RemoteEngine(
        settings.engine_url,
        settings.engine_key.get_secret_value(),
        context=settings.engine_context,
        slots=settings.slots,
        queue_size=settings.queue_size,
        models_at_once=settings.loaded_models,
        first=settings.first_model,
        limits=limits_of(settings, ledger),
        known=lambda name: next((m for m in catalogue.models() if m.name == name), None),
    )


def limits_of(settings: Settings, ledger: str = "quotas.json") -> Limits:
    """How much of the engine one user may have, and for how long."""
    return Limits(
        waiting_each=settings.user_queue,
        longest_wait=settings.longest_wait,
        longest_passage=settings.longest_passage,
        stuck_after=settings.stuck_after,
        tokens_per_hour=settings.tokens_per_hour,
        tokens_per_day=settings.tokens_per_day,
        ledger=settings.data_dir / ledger,
        memory=settings.memory_mb * 10**6 or math.inf,
    )
