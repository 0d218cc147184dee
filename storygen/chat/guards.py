"""What is let in: hosts, origins, routes, sizes and identities, checked before Chainlit sees them.

Chainlit answers every origin, takes any session id as a folder name and serves routes the page
never uses. Each function here closes one of these; app.py puts them in place.
"""

import os
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from storygen.chat.prose import untyped
from storygen.errors import SettingsError, StoryError
from storygen.hosts import LOOPBACK, is_address, is_loopback, name_of

MAX_BODY = 1024 * 1024  # bytes; what the model is told of a story, a title, a button
MAX_FILE = 64_000_000  # bytes; a draft or a story, whose route has limits of its own
MAX_MESSAGE = 1_000_000  # characters
SECRET_BYTES = 48
SHORTEST_SECRET, DISTINCT = 32, 12  # characters of a key that somebody else chose
SOCKET_PATH = "/ws/socket.io"
IMPORT_PATH = "/api/import"
API_PATHS = ("/v1/", "/tokenize")  # where other programs ask, by keys and with bodies of their own

# Method and path of what the page needs. All else (uploads, sharing, feedback, elements, tool
# servers, other logins, API pages) is taken away, so that a new Chainlit cannot add to it.
ROUTES = {
    ("GET", "/public/{filename:path}"),
    ("GET", "/assets/{filename:path}"),
    ("GET", "/auth/config"),
    ("POST", "/auth/header"),
    ("GET", "/user"),
    ("GET", "/project/translations"),
    ("GET", "/project/settings"),
    ("POST", "/project/threads"),
    ("GET", "/project/thread/{thread_id}"),
    ("PUT", "/project/thread"),
    ("DELETE", "/project/thread"),
    ("GET", "/favicon"),
    ("GET", "/logo"),
    ("GET", "/avatars/{avatar_id:str}"),
}

FOREVER = "public, max-age=31536000, immutable"
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware: who may ask, how much, and what the answer carries.

    A Host must be one of hosts, or with any_address an IP address; other names could be anybody's
    who lets them point here (DNS rebinding). An Origin must be the page's own or one of origins.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[str],
        any_address: bool,
        origins: Sequence[str],
        content_security_policy: str,
    ) -> None:
        self._app = app
        self._hosts, self._any_address = {host.lower() for host in hosts}, any_address
        self._origins = {origin.rstrip("/").lower() for origin in origins}
        self._headers = HEADERS | {"content-security-policy": content_security_policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        refusal = self._refusal(headers)
        if refusal is not None:
            return await _refuse(403, refusal, scope, receive, send)
        if "\0" in scope["path"]:  # which the system's calls for files do not take
            return await _refuse(400, "No address has a null character.", scope, receive, send)
        if scope["type"] == "websocket":
            return await self._app(scope, receive, send)
        await self._answer(scope, headers, receive, send)

    def _refusal(self, headers: Headers) -> str | None:
        """Why this request is not answered, None when it is."""
        host = headers.get("host", "")
        name = name_of(host)
        if name not in self._hosts and not (self._any_address and is_address(name)):
            return f"This page is not served as {host[:80]!r}; STORYGEN_ALLOW_ORIGINS adds names."
        origin = headers.get("origin")
        if origin is None or origin.lower() in self._origins:
            return None
        if origin.lower() in {f"http://{host.lower()}", f"https://{host.lower()}"}:
            return None
        return f"Pages of {origin[:80]!r} may not use this one; STORYGEN_ALLOW_ORIGINS allows it."

    async def _answer(self, scope: Scope, asked: Headers, receive: Receive, send: Send) -> None:
        limit = MAX_FILE if scope["path"] == IMPORT_PATH else MAX_BODY
        unread = scope["path"].startswith((SOCKET_PATH, *API_PATHS))
        refusal = None if unread else _body_refusal(asked, limit)
        if refusal is not None:
            return await _refuse(413, refusal, scope, receive, send)

        is_asset = scope["path"].startswith("/assets/")  # whose names change with their content
        headers = self._headers | ({"cache-control": FOREVER} if is_asset else {})

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self._app(scope, receive, with_headers)


def content_security_policy(script_hashes: Sequence[str]) -> str:
    """All from the page's own origin; of scripts inside the page only those with these hashes."""
    scripts = " ".join(f"'{value}'" for value in script_hashes)
    return "; ".join(
        [
            "default-src 'self'",
            f"script-src 'self' {scripts}".strip(),
            "style-src 'self' 'unsafe-inline'",  # the page sets widths and colours as it runs
            "img-src 'self' data: blob:",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
    )


def allowed_hosts(host: str, origins: Sequence[str]) -> set[str]:
    """Names the page answers to: its own, those of this machine and those of origins."""
    return {*LOOPBACK, host, *(name_of(urlsplit(origin).netloc) for origin in origins)}


def needed_routes(app: FastAPI, chainlits: APIRouter) -> list[BaseRoute]:
    """Of Chainlit's routes those the page needs, and the socket."""
    sockets = [r for r in app.router.routes if isinstance(r, Mount) and r.path == SOCKET_PATH]
    return [*sockets, *(r for r in chainlits.routes if _is_needed(r, chainlits.prefix))]


def require_loopback(host: str, allow_exposed: bool) -> None:
    """Raise SettingsError when others could reach a page that has no login."""
    if not is_loopback(host) and not allow_exposed:
        raise SettingsError(
            f"The page has no login, and on {host} others could read and write every story. "
            "Serve it on 127.0.0.1, let them sign in with STORYGEN_AUTH=password, or set "
            "STORYGEN_ALLOW_EXPOSED=true if that is meant."
        )


def require_known_proxies(header: str, proxies: Sequence[str]) -> None:
    """Raise SettingsError unless it is said which proxies name the user, and where."""
    for key, value in (("PROXY_HEADER", header), ("TRUSTED_PROXIES", proxies)):
        if not value:
            raise SettingsError(
                f"STORYGEN_AUTH=proxy needs STORYGEN_{key}, which is empty: without it nobody, or "
                "anybody, could say who they are."
            )


def require_long_secret(secret: str | None) -> None:
    """Raise SettingsError for a key of one's own that could be guessed."""
    if secret is not None and (len(secret) < SHORTEST_SECRET or len(set(secret)) < DISTINCT):
        raise SettingsError(
            f"CHAINLIT_AUTH_SECRET has {len(secret)} characters, {len(set(secret))} of them "
            f"different: it needs at least {SHORTEST_SECRET} and {DISTINCT}. Leave it out, and "
            "storygen makes one."
        )


def require_closed_config(features: Any, read_in: Path, ours: Path) -> None:
    """Raise SettingsError when Chainlit's config opens what has no guard here.

    read_in is the directory it was read in: Chainlit takes the one it is started in and writes its
    own, open configuration where there is none. ours is where storygen's lies.
    """
    upload = features.spontaneous_file_upload
    opened = {
        "unsafe_allow_html": features.unsafe_allow_html,
        "mcp.enabled": features.mcp.enabled,
        "mcp.user_servers.enabled": features.mcp.user_servers.enabled,
        "allow_thread_sharing": features.allow_thread_sharing,
        "spontaneous_file_upload.enabled": upload is None or upload.enabled is not False,
    }
    is_ours = read_in.resolve() == ours.resolve()
    remedy = "set it to false" if is_ours else f"start storygen in {ours}, whose own has it off"
    for name, is_open in opened.items():
        if is_open:
            raise SettingsError(
                f"features.{name} is on in {read_in / '.chainlit' / 'config.toml'}, which is not "
                f"safe here: {remedy}."
            )


def writable(directory: Path) -> Path:
    """The directory, made for this user alone if missing; raises SettingsError when nothing can be
    written there."""
    probe = directory / f".probe-{os.getpid()}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise SettingsError(
            f"{directory} cannot be written: {error.strerror}. Stories are kept there; "
            "choose another directory with STORYGEN_DATA_DIR."
        ) from error
    return directory


def secret(directory: Path) -> str:
    """The key the page's cookie is signed with; made once, readable by its owner only."""
    path = directory / "auth_secret"
    if not path.is_file() or path.stat().st_size < SECRET_BYTES:
        new = path.with_name(f"auth_secret.{os.getpid()}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(SECRET_BYTES))
        new.replace(path)
    return path.read_text(encoding="ascii")


def require_identities(auth: object) -> None:
    """Raise ConnectionRefusedError unless a socket names its session and story by UUIDs.

    Chainlit makes folders and reads stories by these names.
    """
    if not isinstance(auth, Mapping) or not is_uuid(auth.get("sessionId")):
        raise ConnectionRefusedError("the session id is not a UUID")
    if auth.get("threadId") and not is_uuid(auth["threadId"]):
        raise ConnectionRefusedError("the story id is not a UUID")
    if auth.get("clientType") != "webapp":
        raise ConnectionRefusedError("this kind of client is not served")


def own_session(session_id: str, owner: str) -> str:
    """What a session that a browser names is called here: two owners never have the same, so none
    can tell whether another has a window of that name."""
    return str(uuid.uuid5(uuid.UUID(session_id), owner))


def is_uuid(value: object) -> bool:
    """Whether value is a UUID in its usual form, as the page makes them."""
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


@dataclass(frozen=True)
class Written:
    """What is believed of a message from the page."""

    id: str
    text: str
    command: str = ""


def written_message(payload: object) -> Written:
    """The message in an event; raises StoryError for one that cannot be taken.

    Everything else a browser may claim (author, kind, time, parent) is left behind here.
    """
    message = payload.get("message") if isinstance(payload, Mapping) else None
    if not isinstance(message, Mapping) or not is_uuid(message.get("id")):
        raise StoryError("This message could not be read, so nothing was added to the story.")
    text, command = message.get("output"), message.get("command")
    if not isinstance(text, str):
        raise StoryError("This message has no text, so nothing was added to the story.")
    if len(text) > MAX_MESSAGE:
        raise StoryError(
            f"This message has {len(text):,} characters and a message has at most "
            f"{MAX_MESSAGE:,}, so it was not added to the story. It is still on the page: copy it "
            "and send it in parts, or save it as a file and import that under Stories."
        )
    return Written(message["id"], untyped(text), command if isinstance(command, str) else "")


def _is_needed(route: BaseRoute, prefix: str) -> bool:
    if not isinstance(route, Route):
        return False
    path = route.path.removeprefix(prefix)
    return any((method, path) in ROUTES for method in route.methods or ())


def _body_refusal(headers: Headers, limit: int) -> str | None:
    """Why a body is not read: it is too long, or does not say how long it is."""
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdecimal():
        return "This page reads only bodies of a stated length."
    return "That is too much at once." if int(length) > limit else None


async def _refuse(status: int, why: str, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": why[:120]})
        return
    if scope["path"].startswith(API_PATHS):
        told = {"message": why, "type": "permission_error", "param": None, "code": None}
        return await JSONResponse({"error": told}, status, HEADERS)(scope, receive, send)
    await PlainTextResponse(why, status, headers=HEADERS)(scope, receive, send)
