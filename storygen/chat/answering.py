"""Routes that know who asks, take what they are asked apart, and say what went wrong in a sentence.

Every refusal is JSON: {"error": "a sentence"}.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from storygen import logs, metrics
from storygen.chat.guards import is_uuid
from storygen.chat.page import signed_in
from storygen.chat.shares import RETRY_SECONDS
from storygen.errors import BusyError, DatabaseError, StoryError, StorygenError
from storygen.incoming import CLOSED, GoneAway
from storygen.observed import template
from storygen.structure import is_plain

MOST_STRUCTURE = 100_000  # characters of a body that are not in texts
NOT_KEPT = {"cache-control": "no-store"}

Answer = Callable[[str, Request], Awaitable[Any]]  # what an owner asked; a Response, or JSON
logger = logging.getLogger(__name__)


class Refused(Exception):
    """A request that is answered with a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def answering(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    """A handler for the owner whose cookie the page was given."""

    async def handle(request: Request) -> Response:
        try:
            owner = signed_in(request)
            if owner is None:
                raise Refused(403, "This page is not signed in: reload it.")
            found = await answer(owner, request)
        except GoneAway:
            return Response(status_code=CLOSED)
        except Refused as refusal:
            return _refusal(refusal.status, str(refusal))
        except (BusyError, DatabaseError) as error:
            metrics.error_told(error)
            return _refusal(503, str(error))
        except StorygenError as error:
            metrics.error_told(error)
            return _refusal(400, str(error))
        except Exception as error:
            metrics.error_told(error)
            logger.exception("Error at %s", template(request.scope))
            told = f"That could not be done (number {logs.number()} in the log)."
            return _refusal(500, f"{told} Nothing stored is lost.")
        return found if isinstance(found, Response) else JSONResponse(found, headers=NOT_KEPT)

    return handle


async def json_of(request: Request) -> Any:
    """The body; its length is bounded before it comes here (guards.py)."""
    try:
        text = (await request.body()).decode()
        if is_plain(text, MOST_STRUCTURE):
            return json.loads(text)
    except (ValueError, RecursionError):
        pass
    raise StoryError("What the page sent could not be read: reload it.")


async def changes_in(request: Request, *names: str) -> Mapping[str, Any]:
    """The body as an object with some of these names and no others."""
    found = await json_of(request)
    if not isinstance(found, dict) or not found.keys() <= set(names):
        raise StoryError(f"Only {', '.join(names)} can be changed here.")
    return found


def id_in(values: Mapping[str, Any], name: str) -> str:
    """A UUID out of a path or a query."""
    if not is_uuid(values.get(name)):
        raise StoryError(f"The id of the {name} is no id: reload the page.")
    return str(values[name])


def text_in(asked: Mapping[str, Any], name: str) -> str:
    """Text out of a body."""
    if not isinstance(asked[name], str):
        raise StoryError(f"{name} must be text.")
    return str(asked[name])


def flag_in(asked: Mapping[str, Any], name: str) -> bool:
    """Yes or no out of a body."""
    if not isinstance(asked[name], bool):
        raise StoryError(f"{name} must be true or false.")
    return bool(asked[name])


def switch_in(query: Mapping[str, str], name: str) -> bool:
    """Yes, as a query says it, or no."""
    return query.get(name) == "1"


def number_in(query: Mapping[str, str], name: str, default: int) -> int:
    """A whole number out of a query."""
    value = query.get(name, str(default))
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise StoryError(f"{name} must be a whole number, not {value[:20]!r}.")
    return int(value)


def written(found: Mapping[str, Any]) -> Response:
    """An object as JSON, its lists value by value: written all at once, and in whatever thread, a
    novel would hold up everyone else's words."""
    parts = []
    for name, value in found.items():
        text = (
            f"[{','.join([_json(v) for v in value])}]" if isinstance(value, list) else _json(value)
        )
        parts.append(f"{_json(name)}:{text}")
    return Response(f"{{{','.join(parts)}}}", media_type="application/json", headers=NOT_KEPT)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _refusal(status: int, sentence: str) -> Response:
    later = {"retry-after": str(RETRY_SECONDS)} if status in (429, 503) else {}
    return JSONResponse({"error": sentence}, status, NOT_KEPT | later)
