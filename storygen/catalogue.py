"""The catalogue: what is in weights/, read from JSON only. No weights are opened, no torch."""

import json
import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storygen.errors import ModelNotFoundError
from storygen.params import RANGES

LOOK_EVERY = 1.0  # seconds between two looks at a folder that is kept in mind

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model before it is loaded.

    The first block comes from config.json (of its base, for an adapter), the second from
    storygen.json, which is optional.
    """

    name: str
    directory: Path
    block_size: int
    n_layer: int
    n_embd: int
    vocab_size: int

    display_name: str = ""
    genre: str = ""
    description: str = ""
    opening_lines: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()  # texts that always end a passage of this model
    prompt_template: str = ""  # how it is asked for a story of a title, with {title} in it
    suggested: dict[str, Any] = field(default_factory=dict)  # SamplingParams by name
    bits_per_byte: float | None = None  # on works held out of training
    owner: str = ""  # id of the one user who may write with it; everybody may with the others


SIZES = {
    "block_size": "n_positions",
    "n_layer": "n_layer",
    "n_embd": "n_embd",
    "vocab_size": "vocab_size",
}
EXTRAS: dict[str, type] = {
    "display_name": str,
    "genre": str,
    "description": str,
    "opening_lines": list,
    "stop": list,
    "prompt_template": str,
    "suggested": dict,
    "bits_per_byte": float,
    "owner": str,
}


class Catalogue:
    """The model directories below one folder. Looked at anew on each call: no restart needed."""

    def __init__(self, weights_dir: Path, first: str = "") -> None:
        """first is the model to list before the others."""
        self.weights_dir, self.first = weights_dir, first

    def models(self) -> list[ModelInfo]:
        """Every directory with a readable config.json, by name but for the first."""
        if not self.weights_dir.is_dir():
            return []
        found = (_read(d) for d in sorted(self.weights_dir.iterdir()) if d.is_dir())
        known = [info for info in found if info is not None]
        return sorted(known, key=lambda info: info.name != self.first)

    def get(self, name: str) -> ModelInfo:
        """The model of this name; raises ModelNotFoundError listing those there are."""
        models = {info.name: info for info in self.models()}
        if name in models:
            return models[name]
        known = ", ".join(models) or "none; train one with python -m storygen.train"
        raise ModelNotFoundError(
            f"There is no model {name[:80]!r} in {self.weights_dir}. Models there: {known}."
        )


class Kept(Catalogue):
    """A catalogue for whoever must not wait for the disk: it gives what it found last, and every
    second or so has a thread look again. A disk that does not answer holds up the news alone."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__(catalogue.weights_dir, catalogue.first)
        self._catalogue = catalogue
        self._found: list[ModelInfo] | None = None
        self._looked_at = -math.inf
        self._looking = threading.Lock()

    def models(self) -> list[ModelInfo]:
        """What was found last; the first time, what is there now."""
        if self._found is None:
            self._found, self._looked_at = self._catalogue.models(), time.monotonic()
        elif time.monotonic() - self._looked_at >= LOOK_EVERY and self._looking.acquire(False):
            threading.Thread(target=self._look, name="catalogue", daemon=True).start()
        return self._found

    def _look(self) -> None:
        try:
            self._found = self._catalogue.models()
        except OSError as error:
            logger.warning("%s cannot be read.", self.weights_dir, exc_info=error)
        finally:
            self._looked_at = time.monotonic()
            self._looking.release()


def open_to(user: str, models: Sequence[ModelInfo]) -> list[ModelInfo]:
    """The models that a user may write with: everybody's and their own."""
    return [info for info in models if info.owner in ("", user)]


def _read(directory: Path) -> ModelInfo | None:
    """ModelInfo of a directory, None where it holds no model. What is wrong with one that does
    is said when it is loaded."""
    try:
        config = _read_json(_base(directory) / "config.json")
        sizes: dict[str, Any] = {ours: int(config[theirs]) for ours, theirs in SIZES.items()}
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    return ModelInfo(name=directory.name, directory=directory, **sizes, **_extras(directory))


def _base(directory: Path) -> Path:
    """Where the network is described: the directory itself, or beside an adapter its base."""
    adapter = directory / "adapter_config.json"
    if not adapter.is_file():
        return directory
    return directory.parent / Path(_read_json(adapter)["base_model_name_or_path"]).name


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _extras(directory: Path) -> dict[str, Any]:
    """The fields of storygen.json that are there and of the right kind."""
    try:
        found = _read_json(directory / "storygen.json")
    except (OSError, ValueError, RecursionError):
        found = {}
    extras: dict[str, Any] = {"display_name": directory.name}
    for name, kind in EXTRAS.items():
        value = found.get(name) if isinstance(found, dict) else None
        if isinstance(value, kind):
            extras[name] = tuple(map(str, value)) if isinstance(value, list) else value
    suggested = extras.get("suggested", {})
    extras["suggested"] = {name: suggested[name] for name in RANGES if name in suggested}
    return extras
