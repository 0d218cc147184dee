"""The form: how often it may be tried, and by whom."""

import asyncio
import logging
from ipaddress import ip_network

import httpx
import pytest
from socketio import AsyncServer
from starlette.applications import Starlette

from storygen.accounts.limiter import TRIES
from storygen.chat import sign_in
from storygen.chat.doors import PasswordDoor

PROXY = "10.0.0.7"
CLASS, PATIENCE = 30, 30  # pupils, and seconds for one who is not let in


class Known:
    """Sign-ins where everybody's password is "right"; so many are looked at together."""

    def __init__(self) -> None:
        self.asked, self.together = 0, asyncio.Barrier(1)

    async def begin(self, name: str, password: str) -> str | None:
        self.asked += 1
        await self.together.wait()
        return f"secret of {name}" if password == "right" else None


class Form:
    """The form in a browser, or many of them."""

    def __init__(self) -> None:
        self.known, door = Known(), PasswordDoor()
        door.sign_ins = self.known  # type: ignore[assignment]  # as far as it is called
        routes = sign_in.routes(door, AsyncServer(async_mode="asgi"), [ip_network(PROXY)])
        self._app = Starlette(routes=routes)

    async def send(
        self, name: str, password: str = "wrong", *, address: str = "", peer: str = PROXY
    ) -> httpx.Response:
        """What comes of it, from an address that a proxy tells."""
        headers = {"X-Forwarded-For": address} if address else {}
        transport = httpx.ASGITransport(app=self._app, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            form = {"name": name, "password": password}
            return await http.post("/login", data=form, headers=headers)

    async def statuses(self, *names: str, password: str = "wrong", address: str) -> list[int]:
        """Of one try after the other."""
        answers = [await self.send(name, password, address=address) for name in names]
        return [answer.status_code for answer in answers]


@pytest.fixture
async def form() -> Form:
    return Form()


async def test_a_class_behind_one_address_signs_in_at_once_and_once_more(form: Form) -> None:
    """The eleventh pupil was told to wait a minute."""
    pupils = [f"pupil {n}" for n in range(CLASS)]
    form.known.together = asyncio.Barrier(CLASS)
    entering = asyncio.gather(
        *(form.send(pupil, "right", address="203.0.113.5") for pupil in pupils)
    )
    assert {answer.status_code for answer in await asyncio.wait_for(entering, PATIENCE)} == {303}
    form.known.together = asyncio.Barrier(1)
    for _ in range(3):
        again = await form.statuses(*pupils, password="right", address="203.0.113.5")
        assert again == [303] * CLASS


async def test_an_address_may_try_so_many_names_and_no_more(form: Form) -> None:
    most = sign_in.ADDRESS_TRIES
    names = [f"name {n}" for n in range(most + 5)]
    assert await form.statuses(*names, address="203.0.113.5") == [401] * most + [429] * 5
    assert form.known.asked == most
    assert await form.statuses("ada", password="right", address="203.0.113.5") == [429]
    assert await form.statuses("ada", password="right", address="203.0.113.6") == [303]


async def test_a_password_of_ones_own_buys_no_guesses_at_others(form: Form) -> None:
    guesses = 0
    while guesses <= sign_in.ADDRESS_TRIES:
        if await form.statuses(f"name {guesses}", address="203.0.113.5") == [429]:
            break
        guesses += 1
        await form.statuses(f"own {guesses}", password="right", address="203.0.113.5")
    assert guesses == sign_in.ADDRESS_TRIES


async def test_a_name_has_ten_tries_from_wherever_they_come(form: Form) -> None:
    tried = [await form.send("Ada", address=f"203.0.113.{n}") for n in range(TRIES)]
    assert [answer.status_code for answer in tried] == [401] * TRIES
    answer = await form.send("ada", "right", address="198.51.100.1")
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60


async def test_a_try_at_a_name_that_has_none_left_costs_its_address_nothing(form: Form) -> None:
    await form.statuses(*["ada"] * TRIES, address="203.0.113.1")
    turned_away = await form.statuses(*["ada"] * 100, address="203.0.113.5")
    assert turned_away == [429] * 100
    assert await form.statuses("bob", address="203.0.113.5") == [401]


async def test_a_proxy_that_nobody_named_is_told_of_once(
    form: Form, caplog: pytest.LogCaptureFixture
) -> None:
    """All the world has its address then."""
    with caplog.at_level(logging.WARNING, "storygen.chat.sign_in"):
        await form.send("ada", "right", address="203.0.113.5")
        await form.send("ada", "right", peer="10.0.0.8")
        assert not caplog.messages
        for _ in range(3):
            await form.send("ada", "right", address="203.0.113.5", peer="10.0.0.8")
    (told,) = caplog.messages
    assert "10.0.0.8" in told
    assert "STORYGEN_TRUSTED_PROXIES" in told
