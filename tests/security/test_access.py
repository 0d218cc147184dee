"""Every route, socket event, verb, button and command of the running application times every kind
of visitor, at each of the three doors: nothing of another writer is read or written, nor is it told
whether it exists.

The lists are the application's own. What is not in access.py fails here before it is asked.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from multidict import CIMultiDict
from socketio.exceptions import ConnectionError as Refused

from tests.protocol.conftest import Client
from tests.security.access import (
    BUTTONS,
    COMMANDS,
    EVENTS,
    NONE,
    ROUTES,
    SIGN_IN_ROUTES,
    UNASKED,
    VERBS,
    Expected,
    Ids,
    press,
)
from tests.security.serve import SURFACE
from tests.security.town import CANARY, Town, told

ELSEWHERE = ["other origin", "other host"]  # pages, with all that the owner's browser has
# By fixture, who comes to each door that is nobody there.
STRANGERS = {
    "town": ["anonymous", "signed out", "expired", "forged", "signed by oneself", *ELSEWHERE],
    "proxied": [
        *("nobody named", "two named", "disabled", "past the proxy"),
        *("forged", "forged past the proxy", *ELSEWHERE),
    ],
    "alone": ["anonymous", "forged", "signed by oneself", "null origin", "other port", *ELSEWHERE],
}
ELSEWHERE += ["null origin", "other port"]
OTHERS = [
    ("town", "other"),
    ("town", "administrator"),
    ("proxied", "other"),
    ("proxied", "administrator"),
]

every_door = pytest.mark.parametrize("place", STRANGERS, indirect=True)
every_stranger = pytest.mark.parametrize(
    ("place", "who"),
    [(door, who) for door, strangers in STRANGERS.items() for who in strangers],
    indirect=["place"],
)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Town:
    """The town at a door."""
    town = request.getfixturevalue(request.param)
    assert isinstance(town, Town)
    return town


def routes_of(place: Town) -> dict[str, Expected]:
    """What the page serves at this door."""
    left_out = () if place.door == "password" else SIGN_IN_ROUTES
    return {route: expected for route, expected in ROUTES.items() if route not in left_out}


def is_open(place: Town, route: str, expected: Expected) -> bool:
    """Whether a visitor whom nobody knows is answered."""
    has_one_writer = place.door == "none" and (route in UNASKED or expected.kind == "key")
    return expected.kind == "open" or has_one_writer


@every_door
def test_all_that_can_be_asked_is_expected_and_no_more(place: Town) -> None:
    surface = json.loads((place.server.data / SURFACE).read_text(encoding="utf-8"))
    served = {route for route in surface["routes"] if not route.startswith("HEAD ")}
    assert served == routes_of(place).keys()
    assert surface["events"].keys() == {"/"}
    assert set(surface["events"]["/"]) == EVENTS.keys()
    assert set(surface["verbs"]) == VERBS.keys()
    assert set(surface["buttons"]) == set(BUTTONS)
    assert set(surface["commands"]) == set(COMMANDS)


@every_door
def test_the_owner_sees_the_canaries(place: Town) -> None:
    """Without which the tests below would say nothing."""
    for route, expected in routes_of(place).items():
        if expected.shows:
            answer = place.ask("owner", route, place.victim, expected)
            assert answer.status_code == 200, route
            assert CANARY in told(answer), route


@every_stranger
def test_who_is_not_known_gets_nothing(place: Town, who: str) -> None:
    before = place.rows()
    for route, expected in routes_of(place).items():
        answer = place.ask(who, route, place.victim, expected)
        assert CANARY not in told(answer), route
        assert answer.status_code < 500, (route, answer.text)
        if who in ELSEWHERE:
            assert answer.status_code == 403, (route, answer.status_code)
        elif is_open(place, route, expected):
            continue
        elif expected.kind == "key":  # of wrong ones a minute has only so many
            assert answer.status_code in {401, 429}, route
            continue
        else:
            assert answer.status_code in {401, 403}, (route, answer.status_code, answer.text[:200])
        missing = place.ask(who, route, NONE, expected)
        assert (answer.status_code, answer.text) == (missing.status_code, missing.text), route
    assert place.rows() == before


@pytest.mark.parametrize(("place", "who"), OTHERS, indirect=["place"])
def test_another_writer_gets_nothing_and_is_not_told_that_it_is_there(
    place: Town, who: str
) -> None:
    """Who administers neither: they are told how it goes, without a word of anybody's."""
    before = place.rows()
    for route, expected in routes_of(place).items():
        if route == "POST /logout":
            continue
        answer = place.ask(who, route, place.victim, expected)
        missing = place.ask(who, route, NONE, expected)
        assert CANARY not in told(answer), route
        assert answer.status_code < 500, (route, answer.text)
        if expected.json is not None or "{" in expected.path:
            assert answer.status_code == missing.status_code, route
            said = answer.text.replace(place.victim.story, "ID")
            said = said.replace(place.victim.passage, "ID")
            assert said == missing.text.replace(NONE.story, "ID").replace(NONE.passage, "ID"), route
        if expected.kind == "key":
            assert answer.status_code == 401, route
        if expected.kind == "admin":
            assert answer.status_code == (200 if who == "administrator" else 403), route
            assert place.victim.story not in answer.text
    assert place.rows() == before


@asynccontextmanager
async def connected(place: Town, who: str, session_id: str = "") -> AsyncIterator[Client]:
    """A socket that asks for the victim's story; raises Refused where it is not let in."""
    guise = place.guises[who]
    client = Client(place.server, guise.cookie, place.victim.story)
    client.session_id = session_id or client.session_id
    headers = CIMultiDict([(name, value) for name, value in guise.headers if name != "Cookie"])
    way = aiohttp.TCPConnector(local_addr=(guise.address, 0))
    async with aiohttp.ClientSession(headers=headers, connector=way) as http:
        client.socket.eio.http = http
        try:
            await client.connect()
            yield client
        finally:
            await client.socket.disconnect()


@every_stranger
async def test_a_socket_of_who_is_not_known_is_refused(place: Town, who: str) -> None:
    with pytest.raises(Refused):
        async with connected(place, who):
            pass


async def write(client: Client, text: str) -> None:
    """Have a message of one's own taken in, after all that was asked for before it."""
    await client.send(text)
    await client.until(lambda: any(text in output for output in client.outputs))
    await client.until(lambda: not client.is_busy)


@pytest.mark.parametrize("has_story", [False, True])
@pytest.mark.parametrize(("place", "who"), OTHERS, indirect=["place"])
async def test_no_event_of_another_writer_reaches_the_story(
    place: Town, who: str, has_story: bool
) -> None:
    """On a socket that asks for the victim's story, before and after it has a story of its own."""
    before = place.rows()
    for event, payloads in EVENTS.items():
        if not payloads(place.victim):
            continue
        async with connected(place, who) as client:
            await client.set(max_new_tokens=1)
            if has_story:
                await write(client, "Mine.")
            seen = list(client.events)
            for payload in payloads(place.victim):
                await client.socket.emit(event, payload)
            if event != "clear_session":  # after which nothing is answered
                await write(client, "And mine.")
        told = [[data for _, _, data in [*seen, *client.events]], client.settings, client.toasts]
        assert CANARY not in json.dumps([*told, *client.messages.values()]), event
    assert place.rows() == before


@pytest.mark.parametrize(("place", "who"), OTHERS, indirect=["place"])
async def test_no_button_of_another_writer_reaches_the_story(place: Town, who: str) -> None:
    """Pressed in a window of their own for the victim's last passage, and in the victim's."""

    async def pressed(ids: Ids, name: str, session: str) -> tuple[int, str]:
        asked = press(ids, name, session)
        answer = await asyncio.to_thread(place.request, who, "POST", "/project/action", json=asked)
        return answer.status_code, answer.text.replace(ids.passage, "ID")

    before = place.rows()
    async with connected(place, who) as client, connected(place, "owner") as owner:
        await client.set(max_new_tokens=1)
        await write(client, "Mine.")
        for name in BUTTONS:
            answers = [await pressed(i, name, client.session_id) for i in (place.victim, NONE)]
            assert answers[0] == answers[1]
            assert answers[0][0] == 200
            sessions = (owner.session_id, NONE.session)
            answers = [await pressed(place.victim, name, session) for session in sessions]
            assert answers[0] == answers[1]
            assert answers[0][0] == 404
        await write(client, "And mine.")
        assert CANARY not in json.dumps([[data for _, _, data in client.events], client.toasts])
    assert place.rows() == before


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
