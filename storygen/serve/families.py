"""Which models share a network: a base and its adapters are served together, all others alone."""

import json
from collections.abc import Collection
from pathlib import Path

from storygen.catalogue import Catalogue, ModelInfo


def families(models: Collection[ModelInfo]) -> dict[str, tuple[str, ...]]:
    """The names of the models by the name of their base, in the order of the models."""
    found: dict[str, tuple[str, ...]] = {}
    for info in models:
        base = base_name(info.directory)
        found[base] = (*found.get(base, ()), info.name)
    return found


def base_name(directory: Path) -> str:
    """The base of an adapter; of any other model its own name."""
    try:
        adapter = json.loads((directory / "adapter_config.json").read_text(encoding="utf-8"))
        return Path(adapter["base_model_name_or_path"]).name
    except (OSError, ValueError, KeyError, TypeError):
        return directory.name


class Part(Catalogue):
    """Some of the models of a weights directory, as if there were no others."""

    def __init__(self, weights_dir: Path, names: Collection[str], first: str = "") -> None:
        super().__init__(weights_dir, first)
        self._names = frozenset(names)

    def models(self) -> list[ModelInfo]:
        """Those of them that are there."""
        return [info for info in super().models() if info.name in self._names]
