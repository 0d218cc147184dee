"""Every route and socket event of the running application times every kind of visitor: nothing of
another writer is read or written, nor is it told whether it exists.

The list is the application's own. What is not in access.py fails here before it is asked.
"""

import asyncio
import contextlib
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from socketio.exceptions import ConnectionError as Refused

from storygen.accounts.users import Users
from storygen.story.database import Database
from tests.protocol.conftest import PATIENCE, Client, Server, serve
from tests.security.access import EVENTS, NONE, ROUTES, Expected, Ids
from tests.security.conftest import WATCHED
from tests.security.serve import SURFACE

CANARY = "canary"  # in every word of the victim's
PASSWORD = "a long enough password"
ARCHIVE = {
    "storygen": 1,
    "title": "canary-title",
    "settings": {"steering": {"memory": "canary-memory", "note": "canary-note"}},
    "head": 2,
    "passages": [
        {"number": 1, "role": "writer", "text": "canary-one", "at": "2026-01-01T00:00:00+00:00"},
        {"number": 2, "parent": 1, "role": "model", "text": " canary-two", "name": "canary-name"}
        | {"at": "2026-01-01T00:00:00+00:00", "rating": 1, "model": "mystery"},
    ],
}
STRANGERS = ["anonymous", "signed out", "expired", "forged", "signed by oneself", "other origin"]


@dataclass
class Town:
    """A server with a victim's story on it, and a cookie for each kind of visitor."""

    server: Server
    victim: Ids
    headers: dict[str, dict[str, str]]

    def ask(self, who: str, route: str, ids: Ids, expected: Expected) -> httpx.Response:
        """Ask a route about somebody's story."""
        method, _, path = route.partition(" ")
        values = {"story": ids.story, "passage": ids.passage}
        path = re.sub(r"{(\w+)}", lambda m: values[m[1]], expected.path or path)
        more: dict[str, Any] = {"json": expected.json(ids)} if expected.json else {}
        if expected.content is not None:
            more["content"] = expected.content
        method = "GET" if method == "MOUNT" else method
        return httpx.request(
            method, self.server.url + path, headers=self.headers[who], timeout=PATIENCE, **more
        )

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that is stored of the victim, and how many rows there are of whom."""
        queries = {
            "stories": "select * from stories where owner = ? order by id",
            "passages": "select * from passages where owner = ? order by id",
            "marks": "select * from marks where owner = ? order by 1",
        }
        with closing(sqlite3.connect(self.server.data / "stories.db")) as database:
            return {
                name: database.execute(query, [self.owner]).fetchall()
                for name, query in queries.items()
            }

    @property
    def owner(self) -> str:
        """The victim's id."""
        with closing(sqlite3.connect(self.server.data / "stories.db")) as database:
            query = "select owner from stories where id = ?"
            return str(database.execute(query, [self.victim.story]).fetchone()[0])


def signed_in(server: Server, name: str) -> str:
    """The cookie of a browser in which somebody has just signed in."""
    form = {"name": name, "password": PASSWORD}
    answer = httpx.post(f"{server.url}/login", data=form, timeout=PATIENCE)
    assert answer.status_code == 303, answer.text
    return "; ".join(f"{name}={value}" for name, value in answer.cookies.items())


async def add_users(data: Path, *names: str) -> None:
    database = await Database.open(f"sqlite+aiosqlite:///{data / 'stories.db'}")
    for name in names:
        await Users(database).add(name, PASSWORD)
    await database.close()


def expire(data: Path) -> None:
    """Make every sign-in there is older than any may become."""
    long_ago = (datetime.now(UTC) - timedelta(days=400)).strftime("%Y-%m-%d %H:%M:%S.%f")
    with closing(sqlite3.connect(data / "stories.db")) as database:
        database.execute("update sign_ins set created_at = ?, seen_at = ?", [long_ago, long_ago])
        database.commit()


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """Ann, whose story is not to be seen, and everybody else."""
    data = tmp_path_factory.mktemp("town")
    asyncio.run(add_users(data, "ann", "ben"))
    server = serve(data, WATCHED, STORYGEN_AUTH="password")
    expired = signed_in(server, "ann")
    expire(data)
    owner, other, gone = (signed_in(server, name) for name in ("ann", "ben", "ann"))
    left = httpx.post(f"{server.url}/logout", headers={"Cookie": gone}, timeout=PATIENCE)
    assert left.status_code == 200
    story = httpx.post(
        f"{server.url}/api/import?name=a.json",
        headers={"Cookie": owner},
        content=json.dumps(ARCHIVE).encode(),
        timeout=PATIENCE,
    ).json()
    tree = httpx.get(
        f"{server.url}/api/stories/{story['id']}/tree", headers={"Cookie": owner}
    ).json()
    cookies = {"owner": owner, "other": other, "signed out": gone, "expired": expired}
    headers = {who: {"Cookie": cookie} for who, cookie in cookies.items()}
    headers["anonymous"] = {}
    headers["other origin"] = {"Cookie": owner, "Origin": "http://evil.example"}
    forged = jwt.encode({"identifier": "ann", "metadata": {}}, "x" * 48, algorithm="HS256")
    headers["forged"] = {"Cookie": f"access_token={forged}; storygen_sign_in={'A' * 43}"}
    headers["forged"] |= {"Authorization": f"Bearer {forged}"}
    running = Town(server, Ids(story["id"], tree["head"], str(uuid4())), headers)
    alone = jwt.encode({"identifier": running.owner}, "", algorithm="none")
    headers["signed by oneself"] = {"Cookie": f"access_token={alone}"}
    yield running
    server.stop()


def test_every_route_and_event_is_expected_and_no_other(town: Town) -> None:
    surface = json.loads((town.server.data / SURFACE).read_text(encoding="utf-8"))
    served = {route for route in surface["routes"] if not route.startswith("HEAD ")}
    assert served == ROUTES.keys()
    assert surface["events"].keys() == {"/"}
    assert set(surface["events"]["/"]) == EVENTS.keys()


def test_the_owner_sees_the_canaries(town: Town) -> None:
    """Without which the tests below would say nothing."""
    for route, expected in ROUTES.items():
        if expected.shows:
            answer = town.ask("owner", route, town.victim, expected)
            assert answer.status_code == 200, route
            assert CANARY in answer.text, route


@pytest.mark.parametrize("who", STRANGERS)
def test_who_is_not_signed_in_gets_nothing(town: Town, who: str) -> None:
    before = town.rows()
    for route, expected in ROUTES.items():
        answer = town.ask(who, route, town.victim, expected)
        assert CANARY not in answer.text, route
        assert answer.status_code < 500, (route, answer.text)
        if expected.kind != "open" or who == "other origin":
            assert answer.status_code in {401, 403}, (route, answer.status_code, answer.text[:200])
            missing = town.ask(who, route, NONE, expected)
            assert (answer.status_code, answer.text) == (missing.status_code, missing.text), route
    assert town.rows() == before


def test_another_writer_gets_nothing_and_is_not_told_that_it_is_there(town: Town) -> None:
    before = town.rows()
    for route, expected in ROUTES.items():
        if route == "POST /logout":
            continue
        answer = town.ask("other", route, town.victim, expected)
        missing = town.ask("other", route, NONE, expected)
        assert CANARY not in answer.text, route
        assert answer.status_code < 500, (route, answer.text)
        assert answer.status_code == missing.status_code, route
        if expected.json is not None or "{" in expected.path:
            told = answer.text.replace(town.victim.story, "ID").replace(town.victim.passage, "ID")
            assert told == missing.text.replace(NONE.story, "ID").replace(NONE.passage, "ID"), route
        if expected.kind == "admin":
            assert answer.status_code == 403, route
    assert town.rows() == before


@asynccontextmanager
async def connected(town: Town, who: str, session_id: str = "") -> AsyncIterator[Client]:
    """A socket that asks for the victim's story; raises Refused where it is not let in."""
    client = Client(town.server, town.headers[who].get("Cookie", ""), town.victim.story)
    client.session_id = session_id or client.session_id
    others = {k: v for k, v in town.headers[who].items() if k != "Cookie"}
    try:
        await client.connect(**others)
        yield client
    finally:
        await client.socket.disconnect()
        if client.socket.eio.http:
            await client.socket.eio.http.close()


@pytest.mark.parametrize("who", STRANGERS)
async def test_a_socket_of_who_is_not_signed_in_is_refused(town: Town, who: str) -> None:
    with pytest.raises(Refused):
        async with connected(town, who):
            pass


async def test_no_event_of_another_writer_reaches_the_story(town: Town) -> None:
    """On a socket that asks for the victim's story, and on one with a story of its own."""
    before = town.rows()
    for event, payloads in EVENTS.items():
        if not payloads(town.victim):
            continue
        async with connected(town, "other") as client:
            for payload in payloads(town.victim):
                await client.socket.emit(event, payload)
            if event != "clear_session":  # after which nothing is answered
                await client.set(max_new_tokens=1)
                await client.send("Mine.")
                await client.until(lambda c=client: any("Mine." in text for text in c.outputs))
        seen = [[data for _, _, data in client.events], client.settings, client.toasts]
        assert CANARY not in json.dumps([*seen, *client.messages.values()]), event
    assert town.rows() == before


async def test_another_writer_cannot_take_over_a_window(town: Town) -> None:
    async with connected(town, "owner") as mine:
        await mine.until(lambda: CANARY in json.dumps(list(mine.messages.values())))
        events = list[Any]()
        with contextlib.suppress(Refused, TimeoutError):
            async with asyncio.timeout(5), connected(town, "other", mine.session_id) as thief:
                events = thief.events
                await asyncio.sleep(60)
        assert CANARY not in json.dumps([data for _, _, data in events])
        assert mine.socket.connected
