"""The page with its engine in another server; `TEST_ENGINE=server` has all the others so."""

from pathlib import Path

from tests.protocol.conftest import connecting, errors_in, serve_with_engine


async def test_passages_that_end_stop_or_lose_their_reader_leave_no_error(tmp_path: Path) -> None:
    """Chainlit's event loop tells of requests that were let go of in the middle."""
    page = serve_with_engine(tmp_path)
    async with connecting(page, page.cookie) as connect:
        done, stopped, closed = [await connect() for _ in range(3)]
        await done.set(max_new_tokens=5)
        await done.send("It begins.")
        await done.finished()
        for client in (stopped, closed):
            await client.set(max_new_tokens=2000)
            await client.send("It begins.")
            await client.until(lambda client=client: client.passage.count("mystery-") > 1)
        await stopped.socket.emit("stop")
        await stopped.finished()
        await closed.socket.disconnect()
    assert page.stop() == 0
    assert errors_in(page.said()) == []
