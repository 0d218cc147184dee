"""The page itself: Chainlit's, without what it would load from other hosts, signed in at once."""

import base64
import hashlib
import re
from collections.abc import Sequence

import chainlit as cl
from chainlit.auth import create_jwt, set_auth_cookie
from chainlit.config import config
from chainlit.server import get_html_template, router
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from storygen import metrics
from storygen.chat import guards
from storygen.chat.doors import WRITER, Door, Gate, PasswordDoor, visitor_of
from storygen.chat.shares import RETRY_SECONDS, Crowd
from storygen.errors import DatabaseError
from storygen.hosts import is_loopback

_OUTSIDE = re.compile(r"<(?:link|meta)\b[^>]*?https?://[^>]*>\s*")
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_EXTRA_HEAD = """<meta name="color-scheme" content="light dark" />
    <meta name="robots" content="noindex" />
  </head>"""


def install(app: FastAPI, origins: Sequence[str], ours: Sequence[BaseRoute], door: Door) -> None:
    """Serve Chainlit's app as the guards and the door allow it, with our routes and the page in
    place of its own."""
    html = local_html(config.run.root_path)
    if isinstance(door, PasswordDoor):
        html = html.replace("<html", "<html data-can-sign-out", 1)
    app.router.routes[:] = [*guards.needed_routes(app, router), *ours, page_route(html, door)]
    # Chainlit packs its 4.6 MB script anew for every visitor, which holds up everyone else's words
    # for half a second; on this machine there is no line it would be too long for.
    app.user_middleware[:] = [m for m in app.user_middleware if not _packs(m)]
    app.add_exception_handler(DatabaseError, _away)
    app.add_middleware(Crowd)
    app.add_middleware(Gate, door=door)
    app.add_middleware(  # the last one added is the first that is asked
        guards.Guard,
        hosts=guards.allowed_hosts(config.run.host, origins),
        any_address=not is_loopback(config.run.host),
        origins=origins,
        content_security_policy=guards.content_security_policy(script_hashes(html)),
    )
    # Follow the system's light or dark until the writer chooses; the file format cannot say so.
    config.ui.default_theme = "system"


def local_html(root_path: str = "") -> str:
    """The page as HTML that names no other host."""
    html = _OUTSIDE.sub("", get_html_template(root_path))
    return html.replace("</head>", _EXTRA_HEAD)


def script_hashes(html: str) -> list[str]:
    """What a content security policy must name for the scripts inside the page to run."""
    digests = (hashlib.sha256(script.encode()).digest() for script in _INLINE_SCRIPT.findall(html))
    return [f"sha256-{base64.b64encode(digest).decode()}" for digest in digests]


def page_route(html: str, door: Door) -> Route:
    """The route that answers every other GET with the page. While there is no login, a browser it
    does not know is given the cookie of the local writer, so that nobody meets a form."""

    async def page(request: Request) -> Response:
        response = HTMLResponse(html, headers={"cache-control": "no-cache"})
        if not door.is_shared and signed_in(request) is None:
            set_auth_cookie(request, response, create_jwt(cl.User(identifier=WRITER)))
        return response

    return Route("/{path:path}", page, methods=["GET", "HEAD"])


async def _away(request: Request, error: Exception) -> Response:
    """What Chainlit's routes answer while stories cannot be read, in its own form."""
    metrics.error_told(error)
    headers = {"cache-control": "no-store", "retry-after": str(RETRY_SECONDS)}
    return JSONResponse({"detail": str(error)}, 503, headers)


def _packs(middleware: Middleware) -> bool:
    return isinstance(middleware.cls, type) and issubclass(middleware.cls, GZipMiddleware)


def signed_in(request: Request) -> str | None:
    """Whose stories a request may see; None where nobody is known."""
    visitor = visitor_of(request.scope)
    return None if visitor is None else visitor.owner
