"""Ann, whose story nobody is to see or change, and a cookie for everybody else who might."""

import asyncio
import json
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt

from storygen.accounts.users import Users
from storygen.story.database import Database
from tests.protocol.conftest import PATIENCE, Server, serve
from tests.security.access import Expected, Ids

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


@dataclass
class Town:
    """A server with a victim's story on it, and a cookie for each kind of visitor."""

    server: Server
    victim: Ids
    headers: dict[str, dict[str, str]]
    http: httpx.Client

    def ask(self, who: str, route: str, ids: Ids, expected: Expected) -> httpx.Response:
        """Ask a route about somebody's story."""
        method, _, path = route.partition(" ")
        values = {"story": ids.story, "passage": ids.passage}
        path = re.sub(r"{(\w+)}", lambda m: values[m[1]], expected.path or path)
        more: dict[str, Any] = {"json": expected.json(ids)} if expected.json else {}
        if expected.content is not None:
            more["content"] = expected.content
        method = "GET" if method == "MOUNT" else method
        return self.request(method, path, headers=self.headers[who], **more)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask the server, without the cookies of an answer before."""
        self.http.cookies.clear()
        return self.http.request(method, path, **more)

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


def settled(data: Path, command: list[str]) -> Town:
    """A town on a server that this command starts."""
    asyncio.run(add_users(data, "ann", "ben"))
    server = serve(data, command, STORYGEN_AUTH="password")
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
    http = httpx.Client(base_url=server.url, timeout=PATIENCE)
    headers["other origin"] = {"Cookie": owner, "Origin": "http://evil.example"}
    forged = jwt.encode({"identifier": "ann", "metadata": {}}, "x" * 48, algorithm="HS256")
    headers["forged"] = {"Cookie": f"access_token={forged}; storygen_sign_in={'A' * 43}"}
    headers["forged"] |= {"Authorization": f"Bearer {forged}"}
    running = Town(server, Ids(story["id"], tree["head"], str(uuid4())), headers, http)
    alone = jwt.encode({"identifier": running.owner}, "", algorithm="none")
    headers["signed by oneself"] = {"Cookie": f"access_token={alone}"}
    return running
