"""The API under the page: in its process, with its engine, and on this machine without a key."""

import json
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.protocol.conftest import PATIENCE, Server, serve


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = serve(tmp_path_factory.mktemp("page"))
    yield running
    running.stop()


def test_the_client_is_served_beside_the_page(page: Server) -> None:
    client = openai.OpenAI(base_url=f"{page.url}/v1", api_key="none", timeout=PATIENCE)
    models = [model.id for model in client.models.list()]
    whole = client.completions.create(model=models[0], prompt="Once, nonce", seed=1)
    stream = client.completions.create(model=models[0], prompt="Once, nonce", seed=1, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text != ""
    with pytest.raises(openai.NotFoundError):
        client.completions.create(model="nobody", prompt="a")
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions here"):
        client.chat.completions.create(model=models[0], messages=[])


def test_a_long_prompt_is_read_and_a_longer_one_refused_in_the_same_form(page: Server) -> None:
    model = httpx.get(f"{page.url}/v1/models", timeout=PATIENCE).json()["data"][0]["id"]
    for length, status in ((300_000, 200), (1_300_000, 400), (1_400_000, 413)):  # six bytes each
        body = {"model": model, "prompt": "\u20ac" * length, "max_tokens": 0}
        answer = httpx.post(
            f"{page.url}/v1/completions",
            content=json.dumps(body),
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
        content=b'{"model": "mystery", "prompt": "a"}',
        headers={"content-type": "application/json"} | headers,
        timeout=PATIENCE,
    )
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    assert "access-control-allow-origin" not in answer.headers
