"""Ann, whose story nobody is to see or change, and what everybody else comes with who might: at
each of the three doors."""

import asyncio
import io
import json
import re
import sqlite3
import zipfile
from contextlib import closing
from dataclasses import dataclass, field
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
HERE, PROXY = "127.0.0.1", "127.0.0.2"  # a browser's address, and that of a proxy
NAMED = "Remote-User"  # the proxy's header
COOKIE = "storygen_sign_in"
EVIL = "evil.example"
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


@dataclass(frozen=True)
class Guise:
    """What a visitor comes with."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    address: str = HERE

    def also(self, **headers: str) -> "Guise":
        """The same with more headers."""
        return Guise([*self.headers, *headers.items()], self.address)

    @property
    def cookie(self) -> str:
        return dict(self.headers).get("Cookie", "")


class Town:
    """A server with a victim's story on it, and whoever may come to its door."""

    def __init__(self, door: str, server: Server, guises: dict[str, Guise]) -> None:
        """door as STORYGEN_AUTH names it."""
        self.door, self.server, self.guises = door, server, guises
        self._http = {
            address: httpx.Client(
                base_url=server.url,
                timeout=PATIENCE,
                transport=httpx.HTTPTransport(local_address=address),
            )
            for address in {guise.address for guise in guises.values()}
        }
        story = self.request(
            "owner", "POST", "/api/import?name=a.json", content=json.dumps(ARCHIVE).encode()
        ).json()["id"]
        tree = self.request("owner", "GET", f"/api/stories/{story}/tree").json()
        self.victim = Ids(story, tree["head"], str(uuid4()))
        with closing(sqlite3.connect(server.data / "stories.db")) as database:
            query = "select owner from stories where id = ?"
            self.owner = str(database.execute(query, [story]).fetchone()[0])

    def ask(self, who: str, route: str, ids: Ids, expected: Expected) -> httpx.Response:
        """Ask a route about somebody's story."""
        method, _, path = route.partition(" ")
        values = {"story": ids.story, "passage": ids.passage}
        path = re.sub(r"{(\w+)}", lambda m: values[m[1]], expected.path or path)
        more: dict[str, Any] = {"json": expected.json(ids)} if expected.json else {}
        if expected.content is not None:
            more["content"] = expected.content
        return self.request(who, "GET" if method == "MOUNT" else method, path, **more)

    def request(self, who: str, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask the server as somebody, without the cookies of an answer before."""
        guise = self.guises[who]
        http = self._http[guise.address]
        http.cookies.clear()
        headers = [*guise.headers, *more.pop("headers", {}).items()]
        return http.request(method, path, headers=headers, **more)

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

    def close(self) -> None:
        """Let go of the connections."""
        for http in self._http.values():
            http.close()


def told(answer: httpx.Response) -> str:
    """All the text of an answer, also of what is packed in it."""
    if answer.headers.get("content-type", "") != "application/zip":
        return answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        parts = [packed.read(name).decode(errors="replace") for name in packed.namelist()]
        return "\n".join([*packed.namelist(), *parts])


def cookie(value: str) -> Guise:
    """A browser with a cookie."""
    return Guise([("Cookie", value)])


def signed_in(server: Server, name: str) -> Guise:
    """A browser in which somebody has just signed in."""
    form = {"name": name, "password": PASSWORD}
    answer = httpx.post(f"{server.url}/login", data=form, timeout=PATIENCE)
    assert answer.status_code == 303, answer.text
    return cookie("; ".join(f"{name}={value}" for name, value in answer.cookies.items()))


async def add_users(data: Path, *names: str, password: str | None = PASSWORD) -> None:
    """Accounts, of which root administers and dan may not come in."""
    database = await Database.open(f"sqlite+aiosqlite:///{data / 'stories.db'}")
    for name in names:
        await Users(database).add(name, password, is_admin=name == "root")
    if "dan" in names:
        await Users(database).disable("dan")
    await database.close()


def expire(data: Path) -> None:
    """Make every sign-in there is older than any may become."""
    long_ago = (datetime.now(UTC) - timedelta(days=400)).strftime("%Y-%m-%d %H:%M:%S.%f")
    with closing(sqlite3.connect(data / "stories.db")) as database:
        database.execute("update sign_ins set created_at = ?, seen_at = ?", [long_ago, long_ago])
        database.commit()


def forged(identifier: str, key: str = "x" * 48, algorithm: str = "HS256") -> Guise:
    """A browser whose proofs somebody made up."""
    token = jwt.encode({"identifier": identifier, "metadata": {}}, key, algorithm=algorithm)
    made_up = f"access_token={token}; {COOKIE}={'A' * 43}"
    return cookie(made_up).also(Authorization=f"Bearer {token}")


def with_passwords(data: Path, command: list[str]) -> Town:
    """A page where one signs in."""
    asyncio.run(add_users(data, "ann", "ben", "root"))
    server = serve(data, command, STORYGEN_AUTH="password")
    expired = signed_in(server, "ann")
    expire(data)
    owner, gone = signed_in(server, "ann"), signed_in(server, "ann")
    left = httpx.post(f"{server.url}/logout", headers=gone.headers, timeout=PATIENCE)
    assert left.status_code == 200
    town = Town(
        "password",
        server,
        {
            "owner": owner,
            "other": signed_in(server, "ben"),
            "administrator": signed_in(server, "root"),
            "anonymous": Guise(),
            "signed out": gone,
            "expired": expired,
            "forged": forged("ann"),
            "other origin": owner.also(Origin=f"http://{EVIL}"),
            "other host": owner.also(Host=EVIL),
        },
    )
    town.guises["signed by oneself"] = forged(town.owner, "", "none")
    return town


def behind_a_proxy(data: Path, command: list[str]) -> Town:
    """A page whose proxy says who asks."""
    asyncio.run(add_users(data, "root", "dan", password=None))
    server = serve(
        data,
        command,
        STORYGEN_AUTH="proxy",
        STORYGEN_PROXY_HEADER=NAMED,
        STORYGEN_TRUSTED_PROXIES=PROXY,
    )

    def named(*names: str, address: str = PROXY) -> Guise:
        return Guise([(NAMED, name) for name in names], address)

    town = Town(
        "proxy",
        server,
        {
            "owner": named("ann"),
            "other": named("ben"),
            "administrator": named("root"),
            "nobody named": named(),
            "two named": named("ben", "ann"),
            "disabled": named("dan"),
            "past the proxy": named("ann", address=HERE).also(**{"X-Forwarded-For": PROXY}),
            "other origin": named("ann").also(Origin=f"http://{EVIL}"),
            "other host": named("ann").also(Host=EVIL),
        },
    )
    for who, address in (("forged past the proxy", HERE), ("forged", PROXY)):
        town.guises[who] = Guise(forged(town.owner).headers, address)
    return town


def of_one_writer(server: Server) -> Town:
    """A page for whoever sits at the machine, to whom it gives the cookie."""
    owner = cookie(server.cookie)
    return Town(
        "none",
        server,
        {
            "owner": owner,
            "anonymous": Guise(),
            "forged": forged("writer"),
            "signed by oneself": forged("writer", "", "none"),
            "other origin": owner.also(Origin=f"http://{EVIL}"),
            "null origin": owner.also(Origin="null"),
            "other port": owner.also(Origin="http://127.0.0.1:1"),
            "other host": owner.also(Host=EVIL),
        },
    )
