"""What an administrator sees: who is there and how it goes, never a title or a word of a story."""

from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from storygen.accounts.users import Account, Users
from storygen.chat import windows
from storygen.chat.answering import Refused, answering
from storygen.chat.doors import visitor_of
from storygen.chat.state import Studio


def routes(studio: Studio) -> list[Route]:
    """The one route."""
    return [Route("/api/admin", answering(partial(overview, studio)), methods=["GET"])]


async def overview(studio: Studio, owner: str, request: Request) -> Any:
    """Users in figures, open windows, and how the engine is."""
    visitor = visitor_of(request.scope)
    if visitor is None or not visitor.is_admin:
        raise Refused(403, "This is for administrators.")
    accounts = await Users(studio.store.database).accounts()
    open_windows = [visitor.owner for visitor in windows.open_windows()]
    return {
        "users": [_told(account, open_windows.count(account.user.id)) for account in accounts],
        "windows": len(open_windows),
        "engine": asdict(studio.engine.health()),
        "models": [info.name for info in studio.engine.models()],
    }


def _told(account: Account, open_windows: int) -> dict[str, Any]:
    user = account.user
    return {
        "name": user.name,
        "admin": user.is_admin,
        "disabled": user.disabled_at is not None,
        "since": user.created_at.isoformat(),
        "seen": account.seen_at and account.seen_at.isoformat(),
        "stories": account.stories,
        "sign_ins": account.sign_ins,
        "windows": open_windows,
    }
