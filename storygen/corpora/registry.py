"""What we trained on: every work with its source, licence and the hash of our text of it.

The facts are in registry.tsv beside this file, one line for each file of a genre's folder.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from storygen.errors import TrainError

REGISTRY = Path(__file__).with_name("registry.tsv")


@dataclass(frozen=True)
class Entry:
    """One work. `repository` is where it comes from on GitHub and `path` the file there (none for
    a whole repository); sha256 is that of our text, which a new cleaning may not reproduce."""

    genre: str
    file: str
    title: str
    author: str
    repository: str
    path: str
    licence: str
    characters: int
    words: int
    sha256: str


@cache
def entries() -> Sequence[Entry]:
    """All registered works."""
    with REGISTRY.open(encoding="utf-8", newline="") as file:
        rows: Iterable[dict[str, Any]] = csv.DictReader(file, delimiter="\t")
        return tuple(
            Entry(**row | {key: int(row[key]) for key in ("characters", "words")}) for row in rows
        )


def genres() -> list[str]:
    """Names of the registered genres, in the registry's order."""
    return list(dict.fromkeys(entry.genre for entry in entries()))


def works_of(genre: str) -> list[Entry]:
    """The works of a genre; raises TrainError, with the names there are, when it is none."""
    found = [entry for entry in entries() if entry.genre == genre]
    if not found:
        raise TrainError(f"{genre!r} is no registered genre. There are: {', '.join(genres())}.")
    return found
