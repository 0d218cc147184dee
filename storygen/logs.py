"""Logs: what happened, when, and under which number, in lines that quote nobody.

Stories, prompts, titles, names of files, passwords and cookies are in no log, at no level. Our own
messages are written so. Those of libraries are told by where they stand in the source, and
exceptions by their kind and place, since both may quote whatever they were given.
"""

import errno
import json
import logging
import re
import secrets
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

OURS = "storygen"
MOST_FRAMES = 12  # of a traceback, the innermost
LONGEST = 500  # characters of a message

Form = Literal["text", "json"]
_number: ContextVar[str] = ContextVar("number", default="")


@contextmanager
def numbered() -> Iterator[str]:
    """Give what is done inside a number: its log lines carry it, those of tasks begun there too."""
    token = _number.set(secrets.token_hex(3))
    try:
        yield _number.get()
    finally:
        _number.reset(token)


def number() -> str:
    """The number of what is being done here; a new one for what has none yet."""
    if not _number.get():
        _number.set(secrets.token_hex(3))
    return _number.get()


class Lines(logging.Formatter):
    """A record as one line, readable or JSON."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """The line. Whatever is not printable is escaped, so that nobody can forge another."""
        entry = entry_of(record)
        if self._form == "json":
            return json.dumps(entry)
        time, level, logger = (entry.pop(name) for name in ("time", "level", "logger"))
        line = f"{time} {level:7} {logger} {entry.pop('message')}"
        if given := entry.pop("number", ""):
            line = f"{line} [{given}]"
        return "".join([line, *(f" {name}={_plain(value)}" for name, value in entry.items())])


def entry_of(record: logging.LogRecord) -> dict[str, Any]:
    """What is told of a record."""
    moment = datetime.fromtimestamp(record.created, UTC)
    entry: dict[str, Any] = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname,
        "logger": _printable(record.name),
        "message": _message(record),
    }
    if _number.get():
        entry["number"] = _number.get()
    entry |= getattr(record, "fields", {})
    if record.exc_info and record.exc_info[1] is not None:
        entry |= described(record.exc_info[1])
    return entry


def described(error: BaseException) -> dict[str, Any]:
    """The kinds of an error and of those behind it, and where it came from, in place of its words:
    those may quote a story."""
    kinds: list[str] = []
    places = traceback.extract_tb(error.__traceback__)[-MOST_FRAMES:]
    behind: BaseException | None = error
    while behind is not None and len(kinds) < 5:
        kinds.append(kind_of(behind))
        behind = behind.__cause__ or behind.__context__
    at = [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in places]
    return {"error": kinds, "at": at}


def kind_of(error: BaseException) -> str:
    """An error's class, with the code that says more: ENOSPC, SQLITE_FULL, 53100."""
    codes = [errno.errorcode.get(getattr(error, "errno", None) or 0)]
    codes += [getattr(error, name, None) for name in ("sqlite_errorname", "sqlstate")]
    told = [code for code in codes if isinstance(code, str) and re.fullmatch(r"\w{2,40}", code)]
    return " ".join([type(error).__name__, *told])


def install(form: Form, level: str) -> None:
    """Write every log of this process to standard error in this form, ours from a level on.

    Call it again when libraries have brought handlers of their own, as uvicorn does.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(form))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for logger in [*logging.root.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True
    logging.getLogger(OURS).setLevel(level.upper())
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # it would print the arguments of a record it cannot format
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def _uncaught(
    kind: type[BaseException], error: BaseException | None, place: TracebackType | None
) -> None:
    """An error that nobody caught, told as all others."""
    if not issubclass(kind, KeyboardInterrupt):
        found = error or kind()
        logging.getLogger(OURS).error("Uncaught error", exc_info=(kind, found, place))


def _message(record: logging.LogRecord) -> str:
    if record.name.split(".")[0] != OURS:
        return f"(said at {_short(record.pathname)}:{record.lineno})"
    try:
        return _printable(record.getMessage())[:LONGEST]
    except (TypeError, ValueError):
        return f"(said at {_short(record.pathname)}:{record.lineno})"


def _short(path: str) -> str:
    """The last names of a source file's path."""
    return _printable("/".join(Path(path).parts[-3:]))


def _plain(value: object) -> str:
    return _printable("<".join(value) if isinstance(value, list) else str(value)).replace(" ", "_")


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
