"""What one user may have of what all share."""

import asyncio
import threading
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from storygen.chat import shares
from storygen.chat.doors import Visitor
from storygen.chat.shares import Aside, Crowd, Shares, TooMany
from storygen.chat.state import Studio


@given(
    st.lists(st.sampled_from("abc"), max_size=30),
    st.integers(1, 3),
    st.integers(0, 4),
    st.none() | st.integers(1, 4),
)
def test_nobody_has_more_than_a_share_and_all_who_may_wait_are_served(
    owners: list[str], each: int, waiting: int, together: int | None
) -> None:
    async def use() -> None:
        limit = Shares(each, waiting=waiting, together=together)
        running: list[str] = []
        served: list[str] = []

        async def one(owner: str) -> None:
            async with limit.of(owner):
                running.append(owner)
                assert running.count(owner) <= each
                assert together is None or len(running) <= together
                await asyncio.sleep(0)
                running.remove(owner)
                served.append(owner)

        ends = await asyncio.gather(*map(one, owners), return_exceptions=True)
        assert all(end is None or isinstance(end, TooMany) for end in ends)
        for owner in "abc":  # all came at the same moment
            assert served.count(owner) == min(owners.count(owner), each + waiting)
        assert not limit._lines

    asyncio.run(use())


async def test_whoever_goes_while_waiting_leaves_the_line() -> None:
    limit = Shares(1, waiting=1)
    async with limit.of("a"):
        waits = asyncio.ensure_future(limit.of("a").__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(TooMany):
            await limit.of("a").__aenter__()
        waits.cancel()
        await asyncio.wait([waits])
        assert limit._lines["a"].length == 1
    assert not limit._lines


async def test_work_aside_is_one_at_a_time_of_each_user() -> None:
    aside, running = Aside(), list[str]()
    go_on = asyncio.Event()

    async def long(owner: str) -> None:
        async with aside.turn(owner) as run:
            running.append(owner)
            assert await run(sum, [1, 2]) == 3
            await go_on.wait()

    tasks = [asyncio.create_task(long(owner)) for owner in ("a", "a", "a", "b")]
    async with asyncio.timeout(10):
        while len(running) < 2:  # noqa: ASYNC110 - threads set no event
            await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    assert sorted(running) == ["a", "b"]
    go_on.set()
    await asyncio.gather(*tasks)


async def test_a_thread_that_nobody_waits_for_keeps_its_users_turn() -> None:
    """A download that was given up left its thread at work, and the user began the next."""
    aside, go_on, begun = Aside(), threading.Event(), threading.Event()

    def long() -> None:
        begun.set()
        go_on.wait(10)

    gone = asyncio.create_task(aside.run("a", long))
    await asyncio.to_thread(begun.wait, 10)
    gone.cancel()
    await asyncio.wait([gone])
    mine, yours = (asyncio.create_task(aside.run(owner, sum, [1, 2])) for owner in "ab")
    assert await asyncio.wait_for(yours, 10) == 3
    assert not mine.done()
    go_on.set()
    assert await asyncio.wait_for(mine, 10) == 3


async def test_whose_messages_take_long_to_be_stored_keeps_nobody_elses_waiting(
    studio: Studio,
) -> None:
    go_on = asyncio.Event()

    async def store() -> None:
        async with studio.telling.of("me"):
            await go_on.wait()

    mine = [asyncio.create_task(store()) for _ in range(20)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10), studio.telling.of("you"):
        pass
    go_on.set()
    await asyncio.gather(*mine)


@pytest.fixture
async def page() -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.Event]]:
    """A page whose answers come when the event is set."""
    go_on = asyncio.Event()

    async def answer(request: Request) -> PlainTextResponse:
        await go_on.wait()
        return PlainTextResponse("told")

    def known(app: ASGIApp) -> ASGIApp:
        async def gate(scope: Scope, receive: Receive, send: Send) -> None:
            owner = dict(scope["headers"]).get(b"x-owner", b"").decode()
            scope["storygen.visitor"] = Visitor(owner, owner) if owner else None
            await app(scope, receive, send)

        return gate

    app = known(Crowd(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        yield client, go_on
        go_on.set()


async def test_one_users_requests_never_fill_the_page(
    page: tuple[httpx.AsyncClient, asyncio.Event],
) -> None:
    """60 searches at once made everyone else's next request take 4.6 s."""
    client, go_on = page

    def asked(method: str, path: str, owner: str) -> "asyncio.Task[httpx.Response]":
        return asyncio.ensure_future(client.request(method, path, headers={"x-owner": owner}))

    kinds = [("GET", "/api/stories?search=o"), ("POST", "/project/threads")]
    mine = [asked(*kinds[n % 2], "me") for n in range(60)]
    done, _ = await asyncio.wait(mine, timeout=0.5)
    assert len(done) == 60 - shares.AT_WORK - shares.WAITING
    for task in done:
        answer = task.result()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "5")
        assert answer.json()["error"] == answer.json()["detail"]
        assert "20 of your requests" in answer.json()["error"]
    others = [asked("GET", "/api/stories", "you"), asked("GET", "/public/logo", "me")]
    others.append(asked("GET", "/login", ""))
    go_on.set()
    assert {answer.status_code for answer in await asyncio.gather(*others)} == {200}
    ends = [answer.status_code for answer in await asyncio.gather(*mine)]
    assert ends.count(200) == shares.AT_WORK + shares.WAITING
