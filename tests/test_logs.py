"""Logs: a line for each event, a number that finds it again, and not a word that anybody wrote."""

import asyncio
import errno
import json
import logging
import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from storygen import logs
from storygen.errors import StoryError
from storygen.settings import ROOT

CANARY = "the-heir-is-the-gardener"


def record(message: str, *args: object, name: str = "storygen.x", error: object = None, **fields):
    made = logging.LogRecord(name, logging.INFO, "/somewhere/lib/file.py", 7, message, args, None)
    made.exc_info = (type(error), error, error.__traceback__) if error else None
    made.fields = fields
    return made


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """The error with a place, as if it had happened."""
    try:
        raise error from cause or error.__cause__
    except BaseException as caught:
        return caught


@given(st.text(), st.sampled_from(["text", "json"]))
def test_whatever_is_logged_stays_in_its_own_line(text, form):
    line = logs.Lines(form).format(record("%s", text, field=text))
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_a_forged_line_is_seen_to_be_none():
    line = logs.Lines("text").format(record("from %s", "x\r\n2026-01-01 ERROR storygen forged"))
    assert r"from x\r\n2026-01-01 ERROR" in line


def test_a_json_line_has_its_fields():
    with logs.numbered() as number:
        entry = json.loads(logs.Lines("json").format(record("Written", tokens=12, reason="stop")))
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "INFO",
        "logger": "storygen.x",
        "message": "Written",
        "number": number,
        "tokens": 12,
        "reason": "stop",
    }


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError(CANARY), "ValueError"),
        (KeyError(CANARY), "KeyError"),
        (StoryError(CANARY), "StoryError"),
        (OSError(errno.ENOSPC, "No space left", f"/home/{CANARY}.docx"), "OSError ENOSPC"),
        (sa.exc.IntegrityError(f"INSERT {CANARY}", (CANARY,), Exception(CANARY)), "IntegrityError"),
        (UnicodeDecodeError("utf-8", CANARY.encode(), 0, 1, CANARY), "UnicodeDecodeError"),
        (raised(RuntimeError(CANARY), cause=ValueError(CANARY)), "ValueError"),
        (ExceptionGroup(CANARY, [ValueError(CANARY)]), "ExceptionGroup"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_an_error_is_told_by_its_kind_and_its_place(form, error, told):
    error.add_note(CANARY)
    line = logs.Lines(form).format(record("Error", error=raised(error)))
    assert CANARY not in line
    assert told.replace(" ", "_" if form == "text" else " ") in line
    assert "test_logs.py" in line


def test_a_database_error_keeps_its_code():
    connection = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.Error) as caught:
        connection.execute(f"SELECT '{CANARY}' FROM nowhere")
    connection.close()
    assert logs.kind_of(caught.value) == "OperationalError SQLITE_ERROR"


@pytest.mark.parametrize("name", ["chainlit", "uvicorn.access", "sqlalchemy.engine", "py.warnings"])
def test_the_words_of_libraries_are_withheld(name):
    line = logs.Lines("text").format(record(f"{CANARY} %s", CANARY, name=name))
    assert CANARY not in line
    assert "(said at somewhere/lib/file.py:7)" in line


def test_a_record_that_cannot_be_formatted_says_where_it_stands():
    line = logs.Lines("text").format(record("%d of %d", CANARY))
    assert line.endswith("(said at somewhere/lib/file.py:7)")


async def test_tasks_carry_the_number_of_what_began_them():
    async def inside() -> str:
        return logs.number()

    with logs.numbered() as first:
        assert await asyncio.create_task(inside()) == first == logs.number()
    with logs.numbered() as second:
        assert second != first


LOUD = f"""
import asyncio, logging, sqlite3, sys, threading, warnings
from storygen import logs
logging.basicConfig(level=logging.DEBUG)
foreign = logging.getLogger("uvicorn.error")
foreign.addHandler(logging.StreamHandler())
foreign.propagate = False
foreign.setLevel(logging.DEBUG)
logs.install("json", "debug")
canary = "{CANARY}"
foreign.debug(canary)
foreign.error("%s failed", canary, exc_info=ValueError(canary))
logging.getLogger("storygen.x").error("%d", canary)
warnings.warn(canary)
thread = threading.Thread(target=lambda: {{}}[canary], name=canary)
thread.start(); thread.join()

class Doomed:
    def __del__(self):
        raise ValueError(canary)

Doomed()

async def forgotten():
    async def fail(text):
        raise OSError(28, canary, canary)
    task = asyncio.create_task(fail(canary), name=canary)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task

asyncio.run(forgotten(), debug=True)
raise RuntimeError(canary)
"""


def test_no_path_of_an_error_leads_around_it():
    done = subprocess.run(
        [sys.executable, "-c", LOUD], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert CANARY not in done.stderr + done.stdout
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    kinds = [entry["error"][0] for entry in lines if "error" in entry]
    assert kinds == ["ValueError", "KeyError", "ValueError", "OSError ENOSPC", "RuntimeError"]
