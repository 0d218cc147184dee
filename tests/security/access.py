"""What every route, socket event, verb, button and command is for, and how it is asked with
somebody else's ids."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4


@dataclass(frozen=True)
class Ids:
    """A story and what belongs to it."""

    story: str
    passage: str
    session: str


NONE = Ids(str(uuid4()), str(uuid4()), str(uuid4()))  # of nobody


@dataclass(frozen=True)
class Expected:
    """open: for everybody, and the same for all. own: for who is signed in, about what is theirs.
    admin: for who is signed in and administers. key: for programs that show a key, to which no
    cookie is anything.

    path and json are what to ask with; shows is whether the owner is shown the story's words."""

    kind: Literal["open", "own", "admin", "key"]
    path: str = ""
    json: Callable[[Ids], Any] | None = None
    shows: bool = False
    content: bytes | None = None


PAGE_OF_STORIES = {"pagination": {"first": 20}, "filter": {}}
STORY = "/api/stories/{story}"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
NOTHING_HERE = [f"{method} /v1/{{path:path}}" for method in METHODS]

# What the running application must serve, no less and no more.
ROUTES: dict[str, Expected] = {
    "GET /public/{filename:path}": Expected("open", "/public/theme.json"),
    "GET /assets/{filename:path}": Expected("open", "/assets/none.js"),
    "GET /auth/config": Expected("open"),
    "GET /favicon": Expected("open"),
    "GET /logo": Expected("open", "/logo?theme=dark"),
    "GET /project/translations": Expected("open", "/project/translations?language=en-US"),
    "GET /health": Expected("open"),
    "GET /ready": Expected("open"),
    "GET /metrics": Expected("open"),
    "GET /login": Expected("open"),
    "POST /login": Expected("open", content=b"name=nobody&password=x"),
    "POST /auth/header": Expected("own"),
    "GET /user": Expected("own"),
    "POST /set-session-cookie": Expected("own", json=lambda ids: {"session_id": ids.session}),
    "GET /project/settings": Expected("own", "/project/settings?language=en-US"),
    "GET /avatars/{avatar_id:str}": Expected("own", "/avatars/storygen"),
    "POST /project/threads": Expected("own", json=lambda ids: PAGE_OF_STORIES, shows=True),
    "GET /project/thread/{thread_id}": Expected("own", "/project/thread/{story}", shows=True),
    "PUT /project/thread": Expected("own", json=lambda i: {"threadId": i.story, "name": "taken"}),
    "DELETE /project/thread": Expected("own", json=lambda ids: {"threadId": ids.story}),
    "POST /project/action": Expected(
        "own",
        json=lambda ids: press(ids, "undo", ids.session),
    ),
    "POST /logout": Expected("own"),
    "GET /api/admin": Expected("admin"),
    "GET /api/stories": Expected("own", shows=True),
    "GET /api/feedback": Expected("own", shows=True),
    f"POST {STORY}": Expected("own", STORY, lambda _: {"title": "taken", "archived": True}),
    f"POST {STORY}/duplicate": Expected("own", f"{STORY}/duplicate"),
    f"GET {STORY}/manuscript": Expected("own", f"{STORY}/manuscript", shows=True),
    f"GET {STORY}/tree": Expected("own", f"{STORY}/tree", shows=True),
    f"GET {STORY}/compare": Expected(
        "own", STORY + "/compare?left={passage}&right={passage}", shows=False
    ),
    f"GET {STORY}/find": Expected("own", f"{STORY}/find?text=canary", shows=True),
    f"POST {STORY}/passages/{{passage}}": Expected(
        "own", STORY + "/passages/{passage}", lambda _: {"name": "taken", "deleted": True}
    ),
    f"GET {STORY}/steering": Expected("own", f"{STORY}/steering", shows=True),
    f"POST {STORY}/steering": Expected("own", f"{STORY}/steering", lambda _: {"memory": "taken"}),
    f"GET {STORY}/context": Expected("own", f"{STORY}/context", shows=True),
    f"GET {STORY}/next": Expected("own", f"{STORY}/next"),
    f"GET {STORY}/words": Expected("own", f"{STORY}/words"),
    "POST /api/import": Expected("own", "/api/import?name=a.txt", content=b"It began."),
    "GET /api/stories/{id}/export/{format}": Expected("own", STORY + "/export/json", shows=True),
    "GET /api/export": Expected("own"),  # packed: what is in it is read by the test
    "GET /{path:path}": Expected("own", "/thread/{story}"),
    **dict.fromkeys(["GET /v1/models", "GET /v1/health"], Expected("key")),
    **dict.fromkeys(NOTHING_HERE, Expected("key", "/v1/nothing")),
    "GET /v1/models/{model:path}": Expected("key", "/v1/models/mystery"),
    "POST /v1/completions": Expected("key", json=lambda _: {"model": "mystery", "prompt": "x"}),
    "POST /v1/score": Expected("key", json=lambda _: {"model": "mystery", "text": "x"}),
    "POST /v1/next_tokens": Expected("key", json=lambda _: {"model": "mystery", "prompt": "x"}),
    "POST /v1/next_words": Expected("key", json=lambda _: {"model": "mystery", "prompt": "x"}),
    "POST /tokenize": Expected("key", json=lambda _: {"model": "mystery", "prompt": "x"}),
    "MOUNT /ws/socket.io": Expected("own", "/ws/socket.io/?EIO=4&transport=polling"),
}

SIGN_IN_ROUTES = {"GET /login", "POST /login", "POST /logout"}  # where one signs in here
# Where there is one writer, what a browser without the cookie is answered: the page that gives it,
# Chainlit's way to it, the model's picture, and that sockets are the only way.
UNASKED = {"GET /{path:path}", "POST /auth/header", "GET /avatars/{avatar_id:str}"}
UNASKED |= {"MOUNT /ws/socket.io"}


def press(ids: Ids, name: str, session: str) -> dict[str, Any]:
    """A button in a window, made for somebody's passage."""
    made_for = {"id": ids.passage, "payload": {"head": ids.passage}, "forId": ids.passage}
    looks = {"label": "", "tooltip": "", "icon": None}
    return {"sessionId": session, "action": {"name": name} | made_for | looks}


def message(ids: Ids, text: str) -> dict[str, Any]:
    """A message that claims the id of somebody's passage."""
    claims = {"name": "x", "type": "user_message", "threadId": ids.story, "parentId": ids.passage}
    return {"message": {"id": ids.passage, "output": text} | claims, "fileReferences": []}


def typed(ids: Ids, command: str, text: str) -> dict[str, Any]:
    """The same, typed with a slash."""
    said = message(ids, text)
    return said | {"message": said["message"] | {"command": command}}


def window(ids: Ids, verb: str) -> dict[str, Any]:
    """A message of the workspace about somebody's passage."""
    asked = {"do": verb, "id": ids.passage, "story": ids.story, "threadId": ids.story}
    return {"storygen": asked | VERBS.get(verb, {})}


# What the workspace may ask for, and what with, beside the ids of somebody's story.
VERBS: dict[str, dict[str, Any]] = {
    **{verb: {} for verb in ("continue", "retry", "warmer", "undo", "redo", "stop")},
    "versions": {"n": 2},
    **{verb: {} for verb in ("pick", "go", "again")},
    "edit": {"text": "taken"},
    "replace": {"text": "one", "with": "taken"},
    "take": {"text": "taken"},
    "set": {"model": "fantasy", "max_new_tokens": 2},
}
BUTTONS = ["continue", "versions", "retry", "warmer", "undo", "redo"]
COMMANDS = [*BUTTONS, "title"]

# What the socket listens to, and how to ask it about somebody else's story.
EVENTS: dict[str, Callable[[Ids], list[Any]]] = {
    "connect": lambda _: [],  # the way in is a test of its own
    "disconnect": lambda _: [],
    "connection_successful": lambda _: [None],
    "clear_session": lambda _: [None],
    "client_message": lambda ids: [
        message(ids, "taken"),
        *(typed(ids, name, text) for name in COMMANDS for text in ("", "taken")),
    ],
    "edit_message": lambda ids: [message(ids, "taken")],
    "stop": lambda _: [None],
    "chat_settings_edit": lambda ids: [{"model": "fantasy", "threadId": ids.story}],
    "chat_settings_change": lambda ids: [{"model": "fantasy", "threadId": ids.story}],
    "window_message": lambda ids: [window(ids, verb) for verb in VERBS],
    "message_favorite": lambda ids: [message(ids, "taken")],
    "fetch_favorites": lambda _: [None],
    "audio_start": lambda _: [None],
    "audio_chunk": lambda ids: [{"data": ids.story}],
    "audio_end": lambda _: [None],
}
