"""Buttons of the chat, pressed over HTTP: in place of Chainlit's route, which tells windows that
are open from those that are not, whosever they are."""

from typing import Any

from chainlit.server import call_action
from chainlit.session import WebsocketSession
from chainlit.types import CallActionRequest
from fastapi import HTTPException
from pydantic import ValidationError
from starlette.requests import Request
from starlette.routing import Route

from storygen.chat.answering import Refused, answering, json_of
from storygen.chat.guards import is_uuid, own_session
from storygen.errors import StoryError

PRESS = "/project/action"
NO_WINDOW = "This window is not open any more: reload the page."


def routes() -> list[Route]:
    """The one route."""
    return [Route(PRESS, answering(press), methods=["POST"])]


async def press(owner: str, request: Request) -> Any:
    """Do what a button in one of the owner's windows is for."""
    try:
        pressed = CallActionRequest.model_validate(await json_of(request))
        if not is_uuid(pressed.sessionId):
            raise Refused(404, NO_WINDOW)
        pressed.sessionId = own_session(pressed.sessionId, owner)
        session = WebsocketSession.get_by_id(pressed.sessionId)
        if session is None or session.user is None:
            raise Refused(404, NO_WINDOW)
        return await call_action(pressed, session.user)
    except HTTPException as error:
        raise Refused(error.status_code, str(error.detail)) from error
    except ValidationError:
        raise StoryError("The button could not be told: reload the page.") from None
