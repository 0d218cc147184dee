"""Files that are far too large, sent to the real page."""

from collections.abc import Iterator

import httpx
import pytest

from tests.protocol.conftest import PATIENCE, Server

SIZE, PIECE = 300_000_000, b"x" * 1_000_000
GREW_AT_MOST = 16  # MB


@pytest.mark.parametrize("says_its_length", [True, False])
def test_300_mb_are_refused_and_cost_no_memory(
    server: Server, cookie: str, says_its_length: bool
) -> None:
    """The answer is there at once; who sends on all the same is let, and nothing of it is kept."""
    sent, most, before = 0, 0.0, server.memory

    def body() -> Iterator[bytes]:
        nonlocal sent, most
        while sent < SIZE:
            yield PIECE
            sent += len(PIECE)
            most = max(most, server.memory)

    headers = {"Cookie": cookie} | ({"Content-Length": str(SIZE)} if says_its_length else {})
    try:
        url = f"{server.url}/api/import?name=a.zip"
        answer = httpx.post(url, headers=headers, content=body(), timeout=PATIENCE)
        assert answer.status_code == 413
    except httpx.WriteError:  # it has closed the connection
        pass
    assert most - before <= GREW_AT_MOST
    assert httpx.get(f"{server.url}/health", timeout=PATIENCE).status_code == 200
