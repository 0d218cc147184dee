"""The official client at each of our three servers: the page's own API, the API alone, and Ray's.

The models are real, so that what comes can be compared with an engine that nothing lies before.
"""

import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from storygen import checkpoints
from storygen.catalogue import Catalogue
from storygen.engine.local import LocalEngine
from storygen.params import SamplingParams
from storygen.tokenizers import CharTokenizer
from tests.conftest import CHARACTERS, random_model
from tests.protocol.conftest import PATIENCE, REAL, Server, serve

ALONE = [sys.executable, "-m", "storygen", "serve", "--port", "{port}"]
COMMANDS = {"page": REAL, "alone": ALONE, "ray": [*ALONE, "--ray", "--replicas", "2"]}
ASKED = {"model": "letters", "prompt": "It was a dark night", "max_tokens": 40, "seed": 7}


@pytest.fixture(scope="module")
def weights(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`letters`, and a larger one, `slow`, of which eight long passages take half a minute."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "letters").symlink_to(tiny_weights / "letters")
    tokenizer = CharTokenizer(CHARACTERS)
    shape = {"n_layer": 6, "n_head": 6, "n_embd": 384}
    checkpoints.save(folder / "slow", random_model(tokenizer.vocab_size, 512, **shape), tokenizer)
    return folder


@pytest.fixture(scope="module", params=COMMANDS)
def server(
    request: pytest.FixtureRequest,
    weights: Path,
    native_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    if request.param == "ray":
        pytest.importorskip("ray", reason="requirements-ray.txt is not installed")
    data = tmp_path_factory.mktemp(request.param)
    (data / "native").symlink_to(native_folder)
    chosen = {"STORYGEN_DTYPE": "fp32", "STORYGEN_THREADS": "1", "STORYGEN_AUTH": "none"}
    running = serve(data, COMMANDS[request.param], STORYGEN_WEIGHTS_DIR=str(weights), **chosen)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="none", timeout=PATIENCE, max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def engine(weights: Path, native_folder: Path) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(
        Catalogue(weights), device="cpu", dtype="fp32", threads=1, native=native_folder
    )
    await engine.start()
    yield engine
    await engine.close()


async def test_a_stream_has_the_words_of_the_engine(client: openai.OpenAI, engine: LocalEngine):
    params = SamplingParams(seed=7, max_new_tokens=40, temperature=1.0, top_k=0, loop_guard=False)
    segments = [part async for part in engine.stream("letters", ASKED["prompt"], params)]
    expected = "".join(segment.text for segment in segments)
    chunks = list(client.completions.create(**ASKED, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected
    assert len(expected) == 40
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"
    assert client.completions.create(**ASKED).choices[0].text == expected


def test_four_passages_are_those_of_four_seeds(client: openai.OpenAI):
    together = [choice.text for choice in client.completions.create(**ASKED, n=4).choices]
    seeds = [ASKED | {"seed": ASKED["seed"] + i} for i in range(4)]
    assert together == [client.completions.create(**one).choices[0].text for one in seeds]
    assert len(set(together)) == 4
    streamed = dict.fromkeys(range(4), "")
    for chunk in client.completions.create(**ASKED, n=4, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert list(streamed.values()) == together


async def test_log_probabilities_are_those_of_the_engine(
    client: openai.OpenAI, engine: LocalEngine
):
    [whole] = client.completions.create(**ASKED, logprobs=2, echo=True).choices
    found = whole.logprobs
    assert found is not None
    assert found.tokens is not None
    assert found.token_logprobs is not None
    assert "".join(found.tokens) == whole.text
    assert whole.text.startswith(ASKED["prompt"])
    scores = await engine.score("letters", whole.text)
    expected = [score.logprob for score in scores[1:]]
    assert found.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
    pieces = [
        chunk.choices[0].logprobs
        for chunk in client.completions.create(**ASKED, logprobs=2, echo=True, stream=True)
    ]
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [value for piece in pieces if piece for value in getattr(piece, name)]
        assert joined == getattr(found, name), name


def test_who_goes_away_frees_the_slots(client: openai.OpenAI, server: Server):
    stream = client.completions.create(
        model="slow", prompt="It was", max_tokens=4096, n=8, stream=True
    )
    next(iter(stream))
    assert busy(server) > 0
    began = time.monotonic()
    stream.close()
    while busy(server):
        assert time.monotonic() - began < 10
        time.sleep(0.05)


def busy(server: Server) -> int:
    """How many passages have a slot, or wait for one."""
    health = httpx.get(f"{server.url}/v1/health", timeout=PATIENCE).json()
    return int(health["running"] + health["waiting"])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "nobody"),
        ({"temperature": 3}, openai.BadRequestError, "temperature is 3"),
        ({"max_tokens": 9999}, openai.BadRequestError, "max_tokens must be from 0 to 4096"),
        ({"n": 0}, openai.BadRequestError, "n must be"),
        ({"prompt": "\N{SNOWMAN}"}, openai.BadRequestError, "\N{SNOWMAN}"),
    ],
)
def test_errors_are_those_that_the_client_knows(
    client: openai.OpenAI,
    asked: dict[str, object],
    error: type[openai.APIStatusError],
    says: str,
    stream: bool,
):
    with pytest.raises(error) as raised:
        client.completions.create(**ASKED | asked, stream=stream)
    assert says in raised.value.message
    missing = error is openai.NotFoundError
    assert raised.value.type == ("not_found_error" if missing else "invalid_request_error")


def test_models_and_what_is_no_route_are_answered(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == ["letters", "slow"]
    assert client.models.retrieve("letters").owned_by == "storygen"
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions here"):
        client.chat.completions.create(model="letters", messages=[])
