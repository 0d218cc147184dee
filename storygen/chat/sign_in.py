"""Signing in and out: a plain form, a cookie that names nobody, and an end that is one.

No script runs on the form, and nothing on it tells whether a name is known here.
"""

import html
import logging
import re
from urllib.parse import parse_qs, urlencode

from socketio import AsyncServer
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from storygen.accounts.limiter import Limiter
from storygen.accounts.sign_ins import LONGEST
from storygen.accounts.users import known_as
from storygen.chat import windows
from storygen.chat.doors import (
    COOKIE,
    SIGN_IN,
    Networks,
    PasswordDoor,
    address_of,
    is_forwarded_by_stranger,
    visitor_of,
)
from storygen.errors import AccountError, StorygenError

ADDRESS_TRIES = 60  # a minute that fail: a whole class may be behind one
LONGEST_FORM = 10_000  # bytes
LONGEST_KNOWN = 200  # characters of a name that are counted by: some become many as they are folded
WRONG = "This name and this password do not belong together."
_OURS = re.compile(r"/(?![/\\])[\x21-\x7e]{0,2000}")  # an address here, and by no trick elsewhere
logger = logging.getLogger(__name__)

_FORM = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<!-- Under no-referrer, as elsewhere here, a browser would not say where the form comes from. -->
<meta name="referrer" content="same-origin">
<title>Sign in · storygen</title>
<link rel="icon" href="/favicon">
<style>
body {{ font: 1.0625rem/1.5 system-ui, sans-serif; margin: 0; min-height: 100vh; display: grid;
  place-items: center; background: light-dark(#faf9f7, #191817);
  color: light-dark(#222, #e8e6e3); }}
main {{ width: min(20rem, 90vw); }}
h1 {{ font: 600 1.75rem/1.2 Georgia, serif; margin: 0 0 1.5rem; }}
label {{ display: block; margin-bottom: 1rem; }}
input, button {{ font: inherit; box-sizing: border-box; width: 100%; padding: 0.6rem 0.75rem;
  border-radius: 0.4rem; border: 1px solid light-dark(#8a8580, #7d7873); background: Field;
  color: FieldText; }}
button {{ margin-top: 0.5rem; border: 0; cursor: pointer; background: light-dark(#2b2a28, #e8e6e3);
  color: light-dark(#fff, #191817); }}
[role=alert] {{ margin: 0 0 1rem; padding: 0.6rem 0.75rem; border-radius: 0.4rem;
  background: light-dark(#fbe9e7, #4a221d); color: light-dark(#8c1d12, #ffd9d3); }}
</style>
</head>
<body>
<main>
<h1>storygen</h1>
{told}<form method="post" action="{action}">
<label>Name<input name="name" value="{name}" autocomplete="username" autocapitalize="none"
  spellcheck="false" required autofocus></label>
<label>Password<input name="password" type="password" autocomplete="current-password"
  required></label>
<button>Sign in</button>
</form>
</main>
</body>
</html>
"""


def routes(door: PasswordDoor, sio: AsyncServer, proxies: Networks) -> list[Route]:
    """The form, what it sends, and the way out."""
    desk = _Desk(door, sio, proxies)
    return [
        Route(SIGN_IN, desk.form, methods=["GET"]),
        Route(SIGN_IN, desk.sign_in, methods=["POST"]),
        Route("/logout", desk.sign_out, methods=["POST"]),
    ]


class _Desk:
    def __init__(self, door: PasswordDoor, sio: AsyncServer, proxies: Networks) -> None:
        self._door, self._sio, self._proxies = door, sio, proxies
        self._by_name, self._by_address = Limiter(), Limiter(ADDRESS_TRIES)
        self._has_warned = False  # of a proxy that is not believed

    async def form(self, request: Request) -> Response:
        """The form, or what is behind it for who is signed in."""
        wanted = ours(request.query_params.get("next", ""))
        if visitor_of(request.scope) is not None:
            return RedirectResponse(wanted, 303, {"cache-control": "no-store"})
        return _form(wanted)

    async def sign_in(self, request: Request) -> Response:
        """Name and password for a cookie."""
        fields = await _fields(request)
        name, wanted = fields.get("name", "")[:200], ours(request.query_params.get("next", ""))
        address, known = self._address(request), known_as(name)[:LONGEST_KNOWN]
        if wait := max(self._by_name.wait(known), self._by_address.wait(address)):
            logger.warning("A sign-in from %s was not tried: too many in a minute", address)
            told = f"Too many tries. Wait {wait} seconds, then try again."
            return _form(wanted, told, name, 429, {"retry-after": str(wait)})
        self._by_name.count(known)
        tried = self._by_address.count(address)
        try:
            token = await self._door.sign_ins.begin(name, fields.get("password", ""))
        except AccountError as error:
            return _form(wanted, str(error), name, 429, {"retry-after": "60"})
        except StorygenError as error:
            return _form(wanted, str(error), name, 503)
        if token is None:
            logger.warning("A sign-in from %s failed", address)
            return _form(wanted, WRONG, name, 401)
        self._by_address.take_back(address, tried)
        if (before := visitor_of(request.scope)) is not None:
            await self._door.sign_ins.end(before.sign_in)
        response = RedirectResponse(wanted, 303, {"cache-control": "no-store"})
        response.set_cookie(
            COOKIE,
            token,
            max_age=int(LONGEST.total_seconds()),
            httponly=True,
            samesite="lax",
            secure=_is_secure(request),
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the sign-in, here and in every window of this browser."""
        visitor = visitor_of(request.scope)
        assert visitor is not None, "the gate lets nobody else ask"
        await self._door.sign_ins.end(visitor.sign_in)
        same = BackgroundTask(
            windows.close, self._sio, lambda other: other.sign_in == visitor.sign_in
        )
        response = JSONResponse({"success": True}, background=same)
        response.delete_cookie(COOKIE, httponly=True, samesite="lax", secure=_is_secure(request))
        return response

    def _address(self, request: Request) -> str:
        """Where a try comes from."""
        address = address_of(request.scope, self._proxies)
        if not self._has_warned and is_forwarded_by_stranger(request.scope, self._proxies):
            self._has_warned = True
            logger.warning(
                "Sign-ins come through %s, which is not in STORYGEN_TRUSTED_PROXIES: whoever comes "
                "that way has this one address, and %d wrong tries a minute keep all of them out. "
                "If it is your proxy, name it there",
                address,
                ADDRESS_TRIES,
            )
        return address


def ours(wanted: str) -> str:
    """Where to go from the form: an address here, whatever was asked for.

    >>> ours("/thread/a"), ours("//evil.example"), ours("https://evil.example"), ours("")
    ('/thread/a', '/', '/', '/')
    """
    return wanted if _OURS.fullmatch(wanted) else "/"


def _form(
    wanted: str,
    told: str = "",
    name: str = "",
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> Response:
    action = SIGN_IN if wanted == "/" else f"{SIGN_IN}?{urlencode({'next': wanted})}"
    page = _FORM.format(
        told=f'<p role="alert">{html.escape(told)}</p>\n' if told else "",
        action=html.escape(action),
        name=html.escape(name),
    )
    return HTMLResponse(page, status, {"cache-control": "no-store"} | (headers or {}))


async def _fields(request: Request) -> dict[str, str]:
    """What the form sent; nothing of what no form of ours sends."""
    if int(request.headers.get("content-length", "0")) > LONGEST_FORM:
        return {}
    body = (await request.body()).decode("utf-8", "replace")
    try:
        found = parse_qs(body, keep_blank_values=True, max_num_fields=10)
    except ValueError:
        return {}
    return {name: values[-1] for name, values in found.items()}


def _is_secure(request: Request) -> bool:
    """Whether the browser speaks TLS, to us or to a proxy: it says so itself when it posts."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
