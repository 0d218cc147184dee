"""What the workspace beside the chat asks for by window messages: turns, and settings.

Everything it only reads comes over its routes (api.py). A message is {"storygen": {"do": VERB,
...}}; all others are the page's own and are left alone.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from storygen.chat.draft import NOTHING_YET
from storygen.chat.guards import is_uuid
from storygen.chat.settings import apply_settings, show_settings
from storygen.chat.state import Chat, Studio
from storygen.chat.turn import Turn
from storygen.errors import StoryError
from storygen.story.words import Sought

Asked = Mapping[str, Any]
Verb = Callable[[Studio, Chat, Asked], Awaitable[None]]


def asked(payload: object) -> Asked | None:
    """What a window message asks for, None where it is none of ours."""
    ours = payload.get("storygen") if isinstance(payload, Mapping) else None
    return ours if isinstance(ours, Mapping) and "do" in ours else None


async def do(studio: Studio, chat: Chat, asked: Asked) -> None:
    """Do it. Raises StoryError for what cannot be done, before anything is."""
    verb = VERBS.get(str(asked["do"]))
    if verb is None:
        raise StoryError(f"The page asked for {str(asked['do'])[:40]!r}, which there is not.")
    await verb(studio, chat, asked)


def _at_the_end(act: Callable[[Turn, str], Awaitable[None]]) -> Verb:
    """A turn at the end of the story, wherever that is by now."""

    async def verb(studio: Studio, chat: Chat, asked: Asked) -> None:
        turn = Turn(studio, chat)
        head_id = await _stored(studio, chat)
        await act(turn, head_id or "")

    return verb


async def _versions(studio: Studio, chat: Chat, asked: Asked) -> None:
    turn, n = Turn(studio, chat), asked.get("n", 3)
    head_id = await _stored(studio, chat)
    if not isinstance(n, int):
        raise StoryError(f"The number of versions must be a whole number, not {str(n)[:20]!r}.")
    await turn.versions(head_id or "", n)


async def _go(studio: Studio, chat: Chat, asked: Asked) -> None:
    turn = Turn(studio, chat)
    await _stored(studio, chat)
    await turn.go(None if asked.get("id") is None else _id(asked))


async def _edit(studio: Studio, chat: Chat, asked: Asked) -> None:
    turn = Turn(studio, chat)
    await _stored(studio, chat)
    await turn.reword(_id(asked), _text(asked, "text"))


async def _replace(studio: Studio, chat: Chat, asked: Asked) -> None:
    turn = Turn(studio, chat)
    await _stored(studio, chat)
    sought = Sought(_text(asked, "text"), asked.get("case") is True, asked.get("words") is True)
    await turn.replace(sought, _text(asked, "with"))


async def _take(studio: Studio, chat: Chat, asked: Asked) -> None:
    turn = Turn(studio, chat)
    await _stored(studio, chat)
    await turn.take(_text(asked, "text"))


async def _again(studio: Studio, chat: Chat, asked: Asked) -> None:
    turn = Turn(studio, chat)
    await _stored(studio, chat)
    await turn.again(_id(asked))


async def _stop(studio: Studio, chat: Chat, asked: Asked) -> None:
    studio.stop(chat)


async def _set(studio: Studio, chat: Chat, asked: Asked) -> None:
    await apply_settings(studio, chat, {k: v for k, v in asked.items() if k != "do"})
    await show_settings(studio, chat)


async def _stored(studio: Studio, chat: Chat) -> str | None:
    """The head of a story that exists; raises StoryError before it does."""
    if not chat.is_stored:
        raise StoryError(NOTHING_YET)
    return (await studio.store.story(chat.owner, chat.story_id)).head_id


def _id(asked: Asked) -> str:
    if not is_uuid(asked.get("id")):
        raise StoryError("The passage could not be told; reload the page.")
    return str(asked["id"])


def _text(asked: Asked, name: str) -> str:
    text = asked.get(name)
    if not isinstance(text, str):
        raise StoryError(f"The {name!r} of what the page asked for is no text.")
    return text


VERBS: dict[str, Verb] = {
    "continue": _at_the_end(Turn.go_on),
    "retry": _at_the_end(Turn.retry),
    "warmer": _at_the_end(Turn.warmer),
    "undo": _at_the_end(Turn.undo),
    "redo": _at_the_end(Turn.redo),
    "versions": _versions,
    "pick": _go,
    "go": _go,
    "edit": _edit,
    "replace": _replace,
    "take": _take,
    "again": _again,
    "stop": _stop,
    "set": _set,
}
