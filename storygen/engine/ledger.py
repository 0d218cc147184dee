"""What users were written lately, kept in a file, so that a restart is no new hour."""

import json
import logging
import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

Spent = dict[str, deque[tuple[int, int]]]  # by user, minutes and the tokens in them

log = logging.getLogger(__name__)


class Ledger:
    """The file. What is wrong with it is not worth an error, nor to be waited for by a writer."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing = threading.Lock()

    def read(self) -> Spent:
        """What was kept; nothing where there is no such file, or none that can be understood."""
        try:
            kept = json.loads(self._path.read_bytes())
            return {str(user): deque(sorted((int(m), int(n)) for m, n in of)) for user, of in kept}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
            log.warning("What users were written before cannot be read.", exc_info=error)
            return {}

    def write(self, text: str) -> None:
        """Keep it, and return when it is kept."""
        with self._writing:
            _replace(self._path, text)

    def write_aside(self, text: str) -> bool:
        """Have a thread keep it; False while one still keeps what was before."""
        if not self._writing.acquire(blocking=False):
            return False
        write = self._write_and_release
        threading.Thread(target=write, args=(text,), name="quotas", daemon=True).start()
        return True

    def _write_and_release(self, text: str) -> None:
        try:
            _replace(self._path, text)
        finally:
            self._writing.release()


def text_of(spent: Spent) -> str:
    """What is kept of it."""
    return json.dumps([[user, list(minutes)] for user, minutes in spent.items()])


def _replace(path: Path, text: str) -> None:
    """Put a file, readable by its owner alone, in the place of the one there."""
    new = path.with_name(f"{path.name}.new-{os.getpid()}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        new.replace(path)
    except OSError as error:
        log.warning("What users were written cannot be kept.", exc_info=error)
        with suppress(OSError):
            new.unlink()
