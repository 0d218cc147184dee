"""The API under the page: in its process, with its engine, and on this machine without a key."""

import sys
import time
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.protocol.conftest import PATIENCE, Server, serve
from tests.protocol.weights import make_weights

SCRIPTED = [sys.executable, "-m", "tests.protocol.scripted", "{port}"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that takes 10 ms for a token."""
    weights = make_weights(tmp_path_factory.mktemp("weights"), "scripted")
    data = tmp_path_factory.mktemp("page")
    running = serve(data, SCRIPTED, STORYGEN_WEIGHTS_DIR=str(weights), STORYGEN_AUTH="none")
    yield running
    running.stop()


def busy(page: Server) -> int:
    """How many passages have a slot."""
    return int(httpx.get(f"{page.url}/v1/health", timeout=PATIENCE).json()["running"])


def test_who_goes_away_frees_the_slot_under_the_page_too(page: Server) -> None:
    """A passage of 4,096 tokens would take 40 seconds."""
    client = openai.OpenAI(base_url=f"{page.url}/v1", api_key="none", timeout=PATIENCE)
    asked = {"model": "scripted", "prompt": "Once, nonce-00000001", "max_tokens": 4096}
    stream = client.completions.create(**asked, stream=True)
    next(iter(stream))
    assert busy(page) == 1
    stream.close()
    began = time.monotonic()
    while busy(page) and time.monotonic() - began < 30:
        time.sleep(0.05)
    assert busy(page) == 0
    assert time.monotonic() - began < 30
    impatient = client.with_options(timeout=httpx.Timeout(PATIENCE, read=2), max_retries=0)
    with pytest.raises(openai.APITimeoutError):
        impatient.completions.create(**asked)
    began = time.monotonic()
    while busy(page) and time.monotonic() - began < 30:
        time.sleep(0.05)
    assert busy(page) == 0


def test_a_long_prompt_is_read_and_a_longer_one_refused_in_the_same_form(page: Server) -> None:
    for length, status in ((300_000, 200), (1_300_000, 400), (1_400_000, 413)):  # six bytes each
        prompt = r"\u0061" * length
        answer = httpx.post(
            f"{page.url}/v1/completions",
            content=f'{{"model": "scripted", "prompt": "{prompt}", "max_tokens": 0}}',
            headers={"content-type": "application/json"},
            timeout=PATIENCE,
        )
        assert answer.status_code == status, answer.text
        assert (status == 200) == ("error" not in answer.json())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"host": "evil.example"}, 403),
        ({"content-type": "text/plain"}, 415),
    ],
)
def test_no_web_page_can_use_it(page: Server, headers: dict[str, str], status: int) -> None:
    answer = httpx.post(
        f"{page.url}/v1/completions",
        content=b'{"model": "scripted", "prompt": "a"}',
        headers={"content-type": "application/json"} | headers,
        timeout=PATIENCE,
    )
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert "access-control-allow-origin" not in answer.headers
