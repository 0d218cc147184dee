"""Starting Ray: what it must be told before it is imported, and whether it can be."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from pydantic import ValidationError

from storygen.engine.interface import Engine
from storygen.errors import SettingsError
from storygen.settings import Settings

LOCAL = "local"  # address of a Ray that is started here, for this machine alone


def load(address: str = LOCAL) -> ModuleType:
    """storygen.serve.ray, with a Ray that reports to nobody and, where it is started here, listens
    to this machine alone and to programs that know its secret. Raises SettingsError where there is
    no Ray."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address == LOCAL:
        # By its name for other systems; it is what makes every address 127.0.0.1.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        from storygen.serve import ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise SettingsError(
            "Ray is not installed. Install it with: pip install -r requirements-ray.txt"
        ) from None
    return ray


@contextmanager
def engine_on(address: str, settings: Settings, **options: float | str) -> Iterator[Engine]:
    """The models as one engine on the Ray of an address, while this lasts; options are those of
    storygen.serve.ray. Raises SettingsError for what cannot be."""
    ray = load(address)
    try:
        chosen = ray.Options(**options)
    except ValidationError as error:
        first = error.errors()[0]
        name = "".join(f"{part} " for part in first["loc"])
        raise SettingsError(f"{name}{first['input']!r} cannot be: {first['msg']}.") from None
    with ray.started(settings, chosen, address) as engine:
        yield engine
