"""Whatever comes over HTTP and the socket, in whatever order: the server stays up and answers, no
error is one that nobody thought of, and nothing of another writer is read or changed.

Fuzz targets that are elsewhere, beside what they try: safetensors, .pth files, vocabularies and
configs in tests/checkpoints/importers/test_hostile.py, tokenizers in tests/test_tokenizers.py,
logits and settings in tests/test_sampling.py, drafts and archives in tests/story, prose in
tests/chat/test_prose.py, the store against a model in tests/story/test_store_model.py.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from socketio.exceptions import BadNamespaceError
from socketio.exceptions import ConnectionError as Refused

from tests.protocol.conftest import Client, errors_in
from tests.security.access import EVENTS, NONE, ROUTES, VERBS, message, window
from tests.security.town import CANARY, Town

SHARED = settings(
    max_examples=settings().max_examples // 4,  # 25 in the usual run; see fuzz.py for long ones
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LEFT_OUT = {"POST /logout", "POST /login"}  # they end or slow down the visitor that asks the rest
WORKSPACE = [*VERBS, "", "__class__"]

TEXT = st.text(st.characters(codec=None, categories=None), max_size=20) | st.sampled_from(
    ["../x", "\x00", "%00", "' or 1=1 --", "\ud800", "9" * 5000, "-1", "nan", "true", "[", "null"]
)
NUMBERS = st.integers(-(10**20), 10**20) | st.floats() | st.sampled_from([10**400, -1, 0])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
QUERY = st.sampled_from(
    "limit before search archived deleted after left right text case words name language theme next"
    " EIO transport sid".split()
)


@pytest.fixture(autouse=True)
def nothing_unforeseen(town: Town) -> Iterator[None]:
    """The server says so where it met an error that has no sentence. It is up in the end, somebody
    can still write, and the victim's story is as it was."""
    before, known = town.rows(), len(errors_in(town.server.said()))
    yield
    assert errors_in(town.server.said())[known:] == []
    asyncio.run(write(town))
    assert town.rows() == before


async def write(town: Town) -> None:
    """Have a passage written; nothing that was left behind is in the way."""
    client = Client(town.server, town.guises["other"].cookie)
    await client.connect()
    await client.set(max_new_tokens=2)
    await client.send("It goes on: nonce-well")
    await client.finished()
    assert client.passage.endswith("nonce-well nonce-well")
    await client.socket.disconnect()


@SHARED
@given(st.data())
def test_any_request_is_answered_without_an_error(town: Town, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(sorted(ROUTES.keys() - LEFT_OUT)))
    expected = ROUTES[route]
    method, _, path = route.partition(" ")
    ids = [town.victim.story, town.victim.passage, NONE.story]
    known = st.sampled_from([*ids, "json", "epub"])
    names = re.findall(r"{(\w+)", path)
    values = {name: data.draw(known | TEXT, label=name) for name in names}
    path = re.sub(r"{(\w+)[^}]*}", lambda m: quoted(values[m[1]]), path)
    query = data.draw(st.dictionaries(QUERY, known | TEXT, max_size=4))
    sane = expected.json(town.victim) if expected.json else {}
    body = data.draw(
        JSON | st.dictionaries(st.sampled_from([*sane, "x"]), JSON | known).map(sane.__or__)
    )
    content = data.draw(st.just(json.dumps(body).encode()) | st.binary(max_size=200))
    answer = town.request(
        "other",
        "GET" if method == "MOUNT" else method,
        path,
        params={name: value.encode("utf-8", "surrogatepass") for name, value in query.items()},
        content=b"" if method in {"GET", "MOUNT"} else content,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code < 500 or answer.status_code == 503, (route, answer.text)
    assert CANARY not in answer.text


def quoted(text: str) -> str:
    """A path segment."""
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def events(town: Town) -> st.SearchStrategy[tuple[str, Any]]:
    """An event with what it should carry, with some of that changed, or with anything."""
    ids = st.sampled_from([town.victim, NONE])
    said = st.builds(message, ids, TEXT) | st.builds(window, ids, st.sampled_from(WORKSPACE))
    spoilt = st.tuples(said, st.sampled_from(["message", "storygen", "id"]), JSON).map(
        lambda drawn: {**drawn[0], drawn[1]: drawn[2]}
    )
    inner = st.tuples(said, st.sampled_from(["id", "output", "do", "text", "n", "command"]), JSON)
    changed = inner.map(lambda drawn: {k: spoil(v, *drawn[1:]) for k, v in drawn[0].items()})
    knobs = st.dictionaries(
        st.sampled_from(["temperature", "top_k", "model", "preset", "seed", "max_new_tokens"]), JSON
    )
    names = st.sampled_from(sorted(EVENTS.keys() - {"connect", "disconnect"})) | TEXT
    return st.tuples(names, said | spoilt | changed | knobs | JSON)


def spoil(value: Any, name: str, other: Any) -> Any:
    """The same with something else in one place."""
    return {**value, name: other} if isinstance(value, dict) else value


@SHARED
@given(st.data())
def test_any_events_in_any_order_leave_the_server_well(town: Town, data: st.DataObject) -> None:
    asyncio.run(play(town, data.draw(st.lists(events(town), min_size=1, max_size=15))))


async def play(town: Town, steps: list[tuple[str, Any]]) -> None:
    """Send all that, as fast as it goes, then be gone without a word."""
    client = Client(town.server, town.guises["other"].cookie)
    await client.connect()
    try:
        for event, payload in steps:
            await client.socket.emit(event, json.loads(json.dumps(payload)))
        await asyncio.sleep(0.05)
    except (BadNamespaceError, Refused):  # the server had enough of it
        pass
    await client.socket.disconnect()
    assert CANARY not in json.dumps([data for _, _, data in client.events])


@pytest.mark.parametrize("content", [b"null", b"[1]", b"{", b'{"session_id": 7}'])
def test_what_the_page_tells_a_balancer_is_not_believed(town: Town, content: bytes) -> None:
    """Chainlit's route answered each of these with an error 500."""
    headers = {"Content-Type": "application/json"}
    answer = town.request("other", "POST", "/set-session-cookie", content=content, headers=headers)
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
