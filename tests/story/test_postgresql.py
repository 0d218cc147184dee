"""What is said of PostgreSQL alone: its errors, its restarts, and programs that share it."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from storygen.errors import DatabaseError, StoryError
from storygen.story.claims import SharedClaims
from storygen.story.growing import INTERRUPTED
from storygen.story.store import StoryStore
from tests.story import postgres

ME = "me"
ROOT = Path(__file__).parents[2]
END_OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"

# A program that begins a passage, says so, and then does nothing until it is killed.
BEGINS = """
import asyncio, sys
from storygen.story.store import StoryStore
async def main(url, story_id):
    store = await StoryStore.open(url)
    told = await store.add_passage("me", story_id, "model", " Half", state="streaming")
    print(told.id, flush=True)
    await asyncio.sleep(600)
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("user", "database", "sentence"),
    [
        ("guest:wrong", "postgres", "password authentication failed.*right user and password"),
        ("nobody", "postgres", "role .nobody. does not exist.*right user and password"),
        ("storygen", "nowhere", "database .nowhere. does not exist.*Make it with createdb"),
        ("guest:right", "postgres", "permission denied.*own the database"),
    ],
)
async def test_a_database_that_cannot_be_opened_is_named_without_its_password(
    postgresql: postgres.Server, user: str, database: str, sentence: str
) -> None:
    postgresql.run("DROP ROLE IF EXISTS guest", "CREATE ROLE guest LOGIN PASSWORD 'right'")
    with pytest.raises(StoryError, match=f"(?s){sentence}") as refused:
        await StoryStore.open(postgresql.url(database, user))
    assert ":wrong" not in str(refused.value)
    assert ":right" not in str(refused.value)


async def test_a_server_that_is_not_there_is_said_to_be_out_of_reach(tmp_path: Path) -> None:
    for url in ("me@127.0.0.1:1/stories", f"me@/stories?host={tmp_path}"):
        with pytest.raises(DatabaseError, match="see whether its server runs"):
            await StoryStore.open(f"postgresql+asyncpg://{url}")


@pytest.mark.usefixtures("postgresql")
async def test_a_restarted_server_is_found_again_without_a_restart_here(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with postgres.running() as server:
        store = await StoryStore.open(server.new_database())
        story = await store.create_story(ME)
        half = await store.add_passage(ME, story.id, "model", " Half", state="streaming")
        server.stop()
        for _ in range(2):
            with pytest.raises(DatabaseError) as told:
                await store.add_passage(ME, story.id, "writer", "lost")
            assert re.fullmatch(
                r"The story database cannot be used\. Nothing .*\.", str(told.value)
            )
        with pytest.raises(DatabaseError, match="cannot be used"):
            await store.grow_passage(ME, half.id, " Half a word", state="complete")
        (noted,) = [m for m in caplog.messages if "cannot be used" in m]  # however often it fails
        assert re.fullmatch(r"The story database postgresql\S+ cannot be used \(.+\)\.", noted)
        server.start()
        (whole,) = (await store.tree(ME, story.id)).branch()
        assert (whole.text, whole.state) == (" Half a word", "complete")
        await store.add_passage(ME, story.id, "writer", "On.")
        assert len((await store.tree(ME, story.id)).branch()) == 2
        await store.close()


async def test_a_lost_session_of_claims_is_replaced(
    postgresql: postgres.Server, postgresql_url: str
) -> None:
    """Also one that ends while it is asked something: the driver says so only then."""
    store = await StoryStore.open(postgresql_url)
    story = await store.create_story(ME)
    for asked in (None, "SELECT pg_terminate_backend(pg_backend_pid())"):
        half = await store.add_passage(ME, story.id, "model", " Half", state="streaming")
        claims = store.claims
        assert isinstance(claims, SharedClaims)
        assert claims._session is not None
        if asked is None:
            postgresql.run(END_OTHERS)
        else:
            with pytest.raises(DBAPIError):
                await claims._session.exec_driver_sql(asked)
        await store.grow_passage(ME, half.id, " Half a word", state="complete")
    await store.close()


async def test_only_what_a_dead_program_left_is_settled(postgresql_url: str) -> None:
    store = await StoryStore.open(postgresql_url)
    story = await store.create_story(ME)
    alive = await store.add_passage(ME, story.id, "model", " Alive", state="streaming")
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", BEGINS, postgresql_url, story.id),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert program.stdout is not None
    dead = (await program.stdout.readline()).decode().strip()
    another = await StoryStore.open(postgresql_url)
    states = {p.id: p.state for p in await another.tree(ME, story.id)}
    assert states == {alive.id: "streaming", dead: "streaming"}
    program.send_signal(signal.SIGKILL)
    await program.wait()
    async with asyncio.timeout(60):  # until the server has noticed
        settled = (await store.tree(ME, story.id))[dead]
        while settled.state == "streaming":
            await asyncio.sleep(0.02)
            settled = (await store.tree(ME, story.id))[dead]
    assert (settled.text, settled.finish_reason) == (" Half", INTERRUPTED)
    await store.grow_passage(ME, alive.id, " Alive.", state="complete")
    await another.close()
    await store.close()
