"""Who asks: a door for each way of telling, and the gate that every request passes.

    none       whoever reaches the page is the one local writer; the page gives out the cookie
    password   a browser in which somebody has signed in (sign_in.py)
    proxy      the user whom a trusted proxy names

Chainlit believes tokens of its own. Where the page is shared it meets only those that the gate has
made for the request at hand: what a browser sends in their place is taken away.
"""

import ipaddress
from collections.abc import Collection, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Final, Protocol
from urllib.parse import urlencode

import chainlit as cl
from chainlit.auth import create_jwt, get_token_from_cookies
from chainlit.auth.jwt import decode_jwt
from jwt import InvalidTokenError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from storygen.accounts.sign_ins import SignIns, hash_of
from storygen.accounts.users import User, Users
from storygen.chat.guards import API_PATHS
from storygen.errors import AccountError, SettingsError, StorygenError
from storygen.story.database import Database

WRITER: Final = "writer"  # the one who owns every story while there is no login
COOKIE: Final = "storygen_sign_in"
SIGN_IN: Final = "/login"  # where Chainlit's page goes, too, when it is told that nobody is known

# What a browser needs before anybody is known, and what machines ask. All else is closed.
OPEN_PATHS = {
    SIGN_IN,
    "/auth/config",
    "/favicon",
    "/health",
    "/logo",
    "/metrics",  # which wants a token of its own
    "/project/translations",
    "/ready",
}
OPEN_FOLDERS = ("/assets/", "/public/")

Networks = Sequence[IPv4Network | IPv6Network]

_VISITOR = "storygen.visitor"
_asking: ContextVar["Visitor | None"] = ContextVar("asking", default=None)


@dataclass(frozen=True)
class Visitor:
    """Who asks. sign_in tells their browsers apart, where they sign in here."""

    owner: str
    name: str
    is_admin: bool = False
    sign_in: str = ""


class TurnedAway(Exception):
    """A request that is not answered, with the status and the sentence that say so."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Door(Protocol):
    """A way to tell who asks."""

    is_shared: bool  # whether there may be more than one who asks, and they must not meet

    async def open(self, database: Database) -> None:
        """Get ready; raises SettingsError where nobody could ever come in."""
        ...

    async def visitor(self, scope: Scope) -> Visitor | None:
        """Who asks, None for nobody known; raises TurnedAway where that has another reason."""
        ...

    async def present(self, visitors: Collection[Visitor]) -> set[Visitor]:
        """Those of these that would be let in again now."""
        ...

    async def tend(self) -> None:
        """What is to be done from time to time."""
        ...


class LocalDoor:
    """One writer, whom the page's own cookie names."""

    is_shared = False

    async def open(self, database: Database) -> None:
        """Nothing is needed."""

    async def visitor(self, scope: Scope) -> Visitor | None:
        """The writer, for whoever has the cookie of the page."""
        token = get_token_from_cookies(_cookies(scope))
        try:
            known = decode_jwt(token).identifier if token else None
        except InvalidTokenError:
            return None
        return Visitor(WRITER, WRITER, is_admin=True) if known == WRITER else None

    async def present(self, visitors: Collection[Visitor]) -> set[Visitor]:
        """All: there is no way out."""
        return set(visitors)

    async def tend(self) -> None:
        """Nothing is to be done."""


class PasswordDoor:
    """Users who signed in here, by the secret in their cookie."""

    is_shared = True
    users: Users  # of the database, from open on
    sign_ins: SignIns

    async def open(self, database: Database) -> None:
        """Begin to let users in; there must be one."""
        self.users, self.sign_ins = Users(database), SignIns(database)
        if not await self.users.count():
            raise SettingsError(
                "STORYGEN_AUTH=password, but there is no account to sign in with. "
                "Make one first: python -m storygen users add NAME"
            )

    async def visitor(self, scope: Scope) -> Visitor | None:
        """Whoever is signed in in this browser."""
        token = _cookies(scope).get(COOKIE)
        if not token:
            return None
        user = await self.sign_ins.user(hash_of(token))
        return None if user is None else _visitor(user, hash_of(token))

    async def present(self, visitors: Collection[Visitor]) -> set[Visitor]:
        """Those that are still signed in."""
        living = await self.sign_ins.living({visitor.sign_in for visitor in visitors})
        return {visitor for visitor in visitors if visitor.sign_in in living}

    async def tend(self) -> None:
        """Write down who was here."""
        await self.sign_ins.note_seen()


class ProxyDoor:
    """Users whom a proxy names, which asks in their place and nobody else may."""

    is_shared = True
    users: Users  # of the database, from open on

    def __init__(self, header: str, proxies: Networks) -> None:
        self._header, self._proxies = header, proxies

    async def open(self, database: Database) -> None:
        """Begin to let users in, who are added as they come."""
        self.users = Users(database)

    async def visitor(self, scope: Scope) -> Visitor | None:
        """Whom the proxy names."""
        if not is_among(_peer(scope), self._proxies):
            raise TurnedAway(403, "This page is served to its proxy alone; ask that.")
        names = Headers(scope=scope).getlist(self._header)
        if len(names) != 1 or not names[0].strip():
            raise TurnedAway(401, "The proxy before this page did not say who you are.")
        try:
            user = await self.users.introduced(_read(names[0].strip(" \t")))
        except UnicodeError as error:
            raise TurnedAway(403, "The proxy before this page must name users in UTF-8.") from error
        except AccountError as error:
            raise TurnedAway(403, str(error)) from error
        if user is None:
            raise TurnedAway(403, "This account may not be used any more.")
        return _visitor(user)

    async def present(self, visitors: Collection[Visitor]) -> set[Visitor]:
        """Those whose accounts may still be used."""
        enabled = await self.users.enabled({visitor.owner for visitor in visitors})
        return {visitor for visitor in visitors if visitor.owner in enabled}

    async def tend(self) -> None:
        """Nothing is to be done."""


class Gate:
    """ASGI middleware: lets in who is known, says so to whoever answers, turns others away."""

    def __init__(self, app: ASGIApp, *, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self._app(scope, receive, send)
        everybodys = is_open(scope["path"])
        if everybodys and scope["path"] != SIGN_IN:
            return await self._app(scope, receive, send)
        try:
            visitor = await self._door.visitor(scope)
            if visitor is None and self._door.is_shared and not everybodys:
                raise TurnedAway(401, "You are not signed in: reload the page.")
        except TurnedAway as refusal:
            return await self._turn_away(scope, refusal)(scope, receive, send)
        except StorygenError as error:
            return await _said(503, str(error))(scope, receive, send)
        scope[_VISITOR] = visitor
        self._disguise(scope, visitor)
        before = _asking.set(visitor)
        try:
            await self._app(scope, receive, self._unkept(send))
        finally:
            _asking.reset(before)

    def _disguise(self, scope: Scope, visitor: Visitor | None) -> None:
        """Take every proof of who asks out of a request, but for our word to Chainlit."""
        if not self._door.is_shared:
            return
        headers = Headers(scope=scope)
        parts = [part.strip() for value in headers.getlist("cookie") for part in value.split(";")]
        cookies = [part for part in parts if not part.startswith(("access_token", COOKIE))]
        if visitor is not None:
            user = cl.User(identifier=visitor.owner, display_name=visitor.name)
            cookies.append(f"access_token={create_jwt(user)}")
        proofs = {b"cookie", b"authorization"}
        kept = [(name, value) for name, value in scope["headers"] if name.lower() not in proofs]
        scope["headers"] = [*kept, (b"cookie", "; ".join(cookies).encode("latin-1", "replace"))]

    def _turn_away(self, scope: Scope, refusal: TurnedAway) -> ASGIApp:
        """To the form, where a browser can sign in on it; or with a sentence."""
        is_page = "text/html" in Headers(scope=scope).get("accept", "")
        can_sign_in = isinstance(self._door, PasswordDoor)
        if scope["type"] == "http" and scope["method"] == "GET" and is_page and can_sign_in:
            wanted = scope["path"] + (f"?{q.decode()}" if (q := scope["query_string"]) else "")
            query = "" if wanted == "/" else f"?{urlencode({'next': wanted})}"
            return RedirectResponse(SIGN_IN + query, 303, {"cache-control": "no-store"})
        return _said(refusal.status, str(refusal))

    def _unkept(self, send: Send) -> Send:
        """Have no browser keep what the next one at it must not see."""

        async def unkept(message: Message) -> None:
            if message["type"] == "http.response.start" and self._door.is_shared:
                MutableHeaders(scope=message)["cache-control"] = "no-store"
            await send(message)

        return unkept


def visitor_of(scope: Scope) -> Visitor | None:
    """Whom the gate let in with a request."""
    return scope.get(_VISITOR)


def asking() -> Visitor | None:
    """Who asks for what is being done, wherever in the program that is."""
    return _asking.get()


def is_open(path: str) -> bool:
    """Whether a path is for everybody, or asks for a key, to which no cookie is anything."""
    return path in OPEN_PATHS or path.startswith((*OPEN_FOLDERS, *API_PATHS))


def address_of(scope: Scope, proxies: Networks) -> str:
    """The address a request comes from: of the proxies' hops, the last that is none of theirs.

    Networks of IPv6 count as one address: each subscriber has millions.
    """
    address = _peer(scope)
    if is_among(address, proxies):
        headers = Headers(scope=scope)
        hops = [hop.strip() for v in headers.getlist("x-forwarded-for") for hop in v.split(",")]
        address = next((hop for hop in reversed(hops) if not is_among(hop, proxies)), address)
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(getattr(found, "ipv4_mapped", None) or found)


def is_forwarded_by_stranger(scope: Scope, proxies: Networks) -> bool:
    """Whether who asks says, like a proxy, whom they ask for, and is none that is believed."""
    return "x-forwarded-for" in Headers(scope=scope) and not is_among(_peer(scope), proxies)


def is_among(address: str, networks: Networks) -> bool:
    """Whether an address lies in one of the networks."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return any(found in network for network in networks)


def _visitor(user: User, sign_in: str = "") -> Visitor:
    return Visitor(user.id, user.name, user.is_admin, sign_in)


def _cookies(scope: Scope) -> dict[str, str]:
    return cookie_parser("; ".join(Headers(scope=scope).getlist("cookie")))


def _peer(scope: Scope) -> str:
    return (scope.get("client") or ("",))[0]


def _read(value: str) -> str:
    """A header as it was meant: UTF-8, which Starlette does not know of. Raises UnicodeError."""
    return value.encode("latin-1").decode()


def _said(status: int, sentence: str) -> ASGIApp:
    body = {"error": sentence, "detail": sentence}  # as our script reads it, and as Chainlit's
    response: Response = JSONResponse(body, status, {"cache-control": "no-store"})

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            return await response(scope, receive, send)
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": sentence[:120]})

    return answer
