"""kill -9 at any moment: what was acknowledged is there, in order, and the database is whole."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import sqlalchemy as sa

from storygen.story.store import StoryStore

ROUNDS = 15
WRITER = Path(__file__).with_name("write_until_killed.py")
ROOT = Path(__file__).parents[2]


@contextmanager
def writer(url: str, story_id: str) -> Iterator[tuple[IO[str], IO[str]]]:
    """The standard input and output of a program that writes, see there."""
    with subprocess.Popen(
        [sys.executable, WRITER, url, story_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        yield program.stdin, program.stdout


def killed_after(lines: int, stdin: IO[str], stdout: IO[str]) -> list[list[str]]:
    """What a child acknowledged before it was killed, some moments after so many lines."""
    print(file=stdin, flush=True)
    child = int(stdout.readline().split()[1])
    assert stdout.readline() == "open\n"
    said = [stdout.readline().split() for _ in range(lines)]
    for _ in range(random.randrange(200_000)):  # some milliseconds: anywhere in what it does next
        pass
    os.kill(child, signal.SIGKILL)
    while (line := stdout.readline()) != "killed\n":
        said.append(line.split())
    return said


def integrity(path: str) -> str:
    with closing(sqlite3.connect(path)) as database:
        return str(database.execute("PRAGMA integrity_check").fetchone()[0])


async def test_nothing_acknowledged_is_lost_to_a_kill(url: str) -> None:
    store = await StoryStore.open(url)
    story = await store.create_story("me")
    await store.close()
    said: list[list[str]] = []
    file = sa.make_url(url).database if url.startswith("sqlite") else None
    with writer(url, story.id) as (stdin, stdout):
        for _ in range(ROUNDS):
            said += killed_after(random.randrange(25), stdin, stdout)
            assert file is None or integrity(file) == "ok"
        stdin.close()
    store = await StoryStore.open(url)
    branch = (await store.tree("me", story.id)).branch()
    await store.close()

    found = {passage.id: passage for passage in branch}
    acknowledged = {id: (role, "".join(text)) for role, id, *text in said}  # the last of each
    assert [id for id in found if id in acknowledged] == list(acknowledged)
    for id, (role, text) in acknowledged.items():
        # The kill may have come between a commit and its acknowledgement, but for one step only.
        grown = f"{text}{text.count('.')}." if role == "model" else text
        assert found[id].role == role
        assert found[id].text in (text, grown)
    assert {passage.state for passage in branch} == {"complete"}
    assert sum(passage.finish_reason == "interrupted" for passage in branch) <= ROUNDS
