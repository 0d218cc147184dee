"""Every route and socket event of the running application times every kind of visitor: nothing of
another writer is read or written, nor is it told whether it exists.

The list is the application's own. What is not in access.py fails here before it is asked.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from socketio.exceptions import ConnectionError as Refused

from tests.protocol.conftest import Client
from tests.security.access import EVENTS, NONE, ROUTES
from tests.security.serve import SURFACE
from tests.security.town import CANARY, Town

STRANGERS = ["anonymous", "signed out", "expired", "forged", "signed by oneself", "other origin"]


def test_every_route_and_event_is_expected_and_no_other(town: Town) -> None:
    surface = json.loads((town.server.data / SURFACE).read_text(encoding="utf-8"))
    served = {route for route in surface["routes"] if not route.startswith("HEAD ")}
    assert served == ROUTES.keys()
    assert surface["events"].keys() == {"/"}
    assert set(surface["events"]["/"]) == EVENTS.keys()


def test_the_owner_sees_the_canaries(town: Town) -> None:
    """Without which the tests below would say nothing."""
    for route, expected in ROUTES.items():
        if expected.shows:
            answer = town.ask("owner", route, town.victim, expected)
            assert answer.status_code == 200, route
            assert CANARY in answer.text, route


@pytest.mark.parametrize("who", STRANGERS)
def test_who_is_not_signed_in_gets_nothing(town: Town, who: str) -> None:
    before = town.rows()
    for route, expected in ROUTES.items():
        answer = town.ask(who, route, town.victim, expected)
        assert CANARY not in answer.text, route
        assert answer.status_code < 500, (route, answer.text)
        if expected.kind != "open" or who == "other origin":
            if expected.kind == "key" and answer.status_code == 429:
                continue  # wrong keys are not taken for long
            assert answer.status_code in {401, 403}, (route, answer.status_code, answer.text[:200])
            if expected.kind != "key":  # which are about nobody's story
                missing = town.ask(who, route, NONE, expected)
                said = (missing.status_code, missing.text)
                assert (answer.status_code, answer.text) == said, route
    assert town.rows() == before


def test_another_writer_gets_nothing_and_is_not_told_that_it_is_there(town: Town) -> None:
    before = town.rows()
    for route, expected in ROUTES.items():
        if route == "POST /logout":
            continue
        answer = town.ask("other", route, town.victim, expected)
        missing = town.ask("other", route, NONE, expected)
        assert CANARY not in answer.text, route
        assert answer.status_code < 500, (route, answer.text)
        if expected.json is not None or "{" in expected.path:
            assert answer.status_code == missing.status_code, route
            told = answer.text.replace(town.victim.story, "ID").replace(town.victim.passage, "ID")
            assert told == missing.text.replace(NONE.story, "ID").replace(NONE.passage, "ID"), route
        if expected.kind in {"admin", "key"}:
            assert answer.status_code == (403 if expected.kind == "admin" else 401), route
    assert town.rows() == before


@asynccontextmanager
async def connected(town: Town, who: str, session_id: str = "") -> AsyncIterator[Client]:
    """A socket that asks for the victim's story; raises Refused where it is not let in."""
    client = Client(town.server, town.headers[who].get("Cookie", ""), town.victim.story)
    client.session_id = session_id or client.session_id
    others = {k: v for k, v in town.headers[who].items() if k != "Cookie"}
    try:
        await client.connect(**others)
        yield client
    finally:
        await client.socket.disconnect()
        if client.socket.eio.http:
            await client.socket.eio.http.close()


@pytest.mark.parametrize("who", STRANGERS)
async def test_a_socket_of_who_is_not_signed_in_is_refused(town: Town, who: str) -> None:
    with pytest.raises(Refused):
        async with connected(town, who):
            pass


async def test_no_event_of_another_writer_reaches_the_story(town: Town) -> None:
    """On a socket that asks for the victim's story, and on one with a story of its own."""
    before = town.rows()
    for event, payloads in EVENTS.items():
        if not payloads(town.victim):
            continue
        async with connected(town, "other") as client:
            for payload in payloads(town.victim):
                await client.socket.emit(event, payload)
            if event != "clear_session":  # after which nothing is answered
                await client.set(max_new_tokens=1)
                await client.send("Mine.")
                await client.until(lambda c=client: any("Mine." in text for text in c.outputs))
        seen = [[data for _, _, data in client.events], client.settings, client.toasts]
        assert CANARY not in json.dumps([*seen, *client.messages.values()]), event
    assert town.rows() == before


async def test_another_writer_cannot_take_over_a_window(town: Town) -> None:
    async with connected(town, "owner") as mine:
        await mine.until(lambda: CANARY in json.dumps(list(mine.messages.values())))
        for session_id in (mine.session_id, NONE.session):  # with the same outcome
            async with connected(town, "other", session_id) as other:
                await other.set(max_new_tokens=1)
                await other.send("Mine.")
                await other.until(lambda c=other: any("Mine." in text for text in c.outputs))
                assert CANARY not in json.dumps([data for _, _, data in other.events])
        assert mine.socket.connected
