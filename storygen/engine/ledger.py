"""What users were written lately, kept in a file, so that a restart is no new hour."""

import json
import logging
import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

Spent = dict[str, deque[tuple[int, int]]]  # by user, minutes and the tokens in them

log = logging.getLogger(__name__)


def read(path: Path) -> Spent:
    """What was kept; nothing where there is no such file, or none that can be understood."""
    try:
        kept = json.loads(path.read_bytes())
        return {str(user): deque(sorted((int(m), int(n)) for m, n in of)) for user, of in kept}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        log.warning("What users were written before cannot be read.", exc_info=error)
        return {}


def write(path: Path, spent: Mapping[str, deque[tuple[int, int]]]) -> None:
    """Keep it, readable by its owner alone. It is not worth an error, nor a wait for the disk."""
    new = path.with_name(f"{path.name}.new-{os.getpid()}")
    text = json.dumps([[user, list(minutes)] for user, minutes in spent.items()])
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        new.replace(path)
    except OSError as error:
        log.warning("What users were written cannot be kept.", exc_info=error)
        with suppress(OSError):
            new.unlink()
