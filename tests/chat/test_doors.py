"""Doors one by one: whom each lets in, and what Chainlit gets to see of it."""

from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from chainlit.auth.jwt import decode_jwt
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from storygen.accounts import passwords
from storygen.accounts.sign_ins import SignIns
from storygen.accounts.users import Users
from storygen.chat import doors, sign_in
from storygen.chat.doors import COOKIE, Door, Gate, LocalDoor, PasswordDoor, ProxyDoor
from storygen.errors import SettingsError
from storygen.story.store import StoryStore

PROXIES = [ip_network("10.0.0.0/24"), ip_network("::1")]
GOOD = "rope lantern otter"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAINLIT_AUTH_SECRET", "x" * 48)
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(1, 8, 1))
    passwords._nobody.cache_clear()


async def seen(scope: Scope, receive: Receive, send: Send) -> None:
    """Says what stands behind the gate."""
    request, asking = Request(scope), doors.asking()
    token = request.cookies.get("access_token")
    found: dict[str, Any] = {
        "name": asking and asking.name,
        "owner": asking and asking.owner,
        "cookies": sorted(request.cookies),
        "authorization": request.headers.get("authorization"),
        "chainlit": token and decode_jwt(token).identifier,
    }
    await JSONResponse(found, headers={"cache-control": "max-age=9"})(scope, receive, send)


async def ask(
    door: Door, headers: dict[str, str] | list[tuple[str, str]], peer: str = "10.0.0.1"
) -> httpx.Response:
    transport = httpx.ASGITransport(app=Gate(seen, door=door), client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        return await client.get("/api/stories", headers=headers)


@pytest.fixture
async def proxy(store: StoryStore) -> Door:
    door = ProxyDoor("Remote-User", PROXIES)
    await door.open(store.database)
    return door


async def test_a_trusted_proxy_says_who_asks(proxy: Door, store: StoryStore) -> None:
    for name in ("ada", "ada ", "Žofie 🦦"):
        answer = await ask(proxy, [("Remote-User", name.encode())])  # type: ignore[list-item]  # bytes, as on the wire  # httpx takes bytes
        assert answer.status_code == 200, answer.text
        assert answer.json()["owner"] == answer.json()["chainlit"]
        assert answer.headers["cache-control"] == "no-store"
    assert [a.user.name for a in await Users(store.database).accounts()] == ["ada", "Žofie 🦦"]


@pytest.mark.parametrize("name", ["ADA", "ａda", "ad\N{LATIN SMALL LETTER A}\u0301"])
async def test_who_is_named_otherwise_is_somebody_else(
    proxy: Door, store: StoryStore, name: str
) -> None:
    await ask(proxy, [("Remote-User", b"ada")])  # type: ignore[list-item]  # as above
    answer = await ask(proxy, [("Remote-User", name.encode())])  # type: ignore[list-item]  # as above
    assert answer.status_code == 403
    assert [a.user.name for a in await Users(store.database).accounts()] == ["ada"]


async def test_a_name_in_another_encoding_is_nobodys(proxy: Door, store: StoryStore) -> None:
    """It was read as Latin-1 then, in which other bytes spell the same name."""
    for name, status in (("Zoë".encode(), 200), ("Zoë".encode("latin-1"), 403)):
        answer = await ask(proxy, [("Remote-User", name)])  # type: ignore[list-item]  # as above
        assert answer.status_code == status
    assert await Users(store.database).count() == 1


@pytest.mark.parametrize("peer", ["10.0.1.1", "127.0.0.1", "::2", "", "testclient"])
async def test_nobody_else_is_believed(proxy: Door, store: StoryStore, peer: str) -> None:
    claims = {"Remote-User": "ada", "X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1"}
    assert (await ask(proxy, claims, peer)).status_code == 403
    assert await Users(store.database).count() == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([("Remote-User", "")], 401),
        ([("Remote-User", "ada"), ("remote-user", "bob")], 401),
        ([("Remote-User", "x" * 65)], 403),
        ([("X-Remote-User", "ada")], 401),
    ],
)
async def test_a_proxy_must_name_one_user(
    proxy: Door, headers: list[tuple[str, str]], status: int
) -> None:
    assert (await ask(proxy, headers)).status_code == status


async def test_who_is_disabled_is_not_let_in_by_a_proxy(proxy: Door, store: StoryStore) -> None:
    assert (await ask(proxy, {"Remote-User": "ada"})).status_code == 200
    await Users(store.database).disable("ada")
    assert (await ask(proxy, {"Remote-User": "ada"})).status_code == 403


async def test_chainlit_sees_our_word_for_it_and_no_secret(store: StoryStore) -> None:
    door = PasswordDoor()
    with pytest.raises(SettingsError, match="python -m storygen users add NAME"):
        await door.open(store.database)
    ada = await Users(store.database).add("Ada", GOOD)
    await door.open(store.database)
    token = await SignIns(store.database).begin("ada", GOOD)
    claims = {"Cookie": f"a=1; access_token=forged; access_token_0=x; {COOKIE}={token}"}
    answer = await ask(door, claims | {"Authorization": "Bearer forged"})
    assert answer.json() == {
        "name": "Ada",
        "owner": ada.id,
        "cookies": ["a", "access_token"],
        "authorization": None,
        "chainlit": ada.id,
    }
    for cookie in ("", "access_token=forged", f"{COOKIE}=x", f"x{COOKIE}={token}"):
        assert (await ask(door, {"Cookie": cookie})).status_code == 401
    assert doors.asking() is None


async def test_the_local_writer_is_known_by_the_cookie_of_the_page() -> None:
    from chainlit.auth import create_jwt
    from chainlit.user import User

    for identifier, owner in (("writer", "writer"), ("somebody", None)):
        cookie = f"access_token={create_jwt(User(identifier=identifier))}"
        answer = await ask(LocalDoor(), {"Cookie": cookie})
        assert answer.json()["owner"] == owner
        assert answer.headers["cache-control"] == "max-age=9"


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # nobody's word
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "8.8.8.8, 198.51.100.1, 10.0.0.7", "198.51.100.1"),  # the first is a claim
        ("10.0.0.1", "", "10.0.0.1"),
        ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("2001:db8:1:2:3::4", "", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.1", "", "198.51.100.1"),
    ],
)
def test_an_address_is_that_of_the_last_who_is_no_proxy(
    peer: str, forwarded: str, address: str
) -> None:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    scope = {"type": "http", "client": (peer, 1), "headers": headers}
    assert doors.address_of(scope, PROXIES) == address


@given(st.text(max_size=40), st.sampled_from(["", "/", "//", "/\\", "/\t/", "https://", "/x"]))
def test_no_form_leads_away_from_here(rest: str, start: str) -> None:
    wanted = sign_in.ours(start + rest)
    assert wanted.startswith("/")
    assert not wanted.startswith(("//", "/\\"))
    assert wanted.isascii()
    assert wanted.isprintable()
