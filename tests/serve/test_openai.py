"""What the official client makes of the API, over a real socket."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from storygen.engine.fake import FakeEngine
from storygen.engine.interface import Engine
from storygen.engine.local import LocalEngine
from storygen.errors import BusyError, EngineError, QuotaError, StorygenError
from storygen.serve.app import application
from tests.engine.conftest import make_engine  # noqa: F401 - a fixture
from tests.serve.api import served, until

TEXT = (" It", " was", " a", " dark", " night.")


def client_of(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@pytest.fixture
def fake() -> FakeEngine:
    return FakeEngine(TEXT)


@pytest.fixture
async def url(fake: FakeEngine) -> AsyncIterator[str]:
    await fake.start()
    async with served(application(fake, keys=None)) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(url) as client:
        yield client


@pytest.fixture
async def engine(make_engine) -> LocalEngine:  # noqa: F811 - the fixture above
    return await make_engine(slots=4)


@pytest.fixture
async def real(engine: Engine) -> AsyncIterator[AsyncOpenAI]:
    """A client of an engine with models."""
    async with served(application(engine, keys=None)) as url, client_of(url) as client:
        yield client


async def test_a_passage_whole(client: AsyncOpenAI, fake: FakeEngine):
    answer = await client.completions.create(
        model="mystery", prompt="Once upon", max_tokens=7, temperature=0.5, stop="END", seed=3
    )
    [choice] = answer.choices
    assert (choice.text, choice.finish_reason, choice.logprobs) == ("".join(TEXT), "stop", None)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 5)
    assert (answer.object, answer.model, answer.id[:5]) == ("text_completion", "mystery", "cmpl-")
    [request] = fake.requests
    assert (request.prompt, request.params.max_new_tokens) == ("Once upon", 7)
    assert (request.params.temperature, request.params.stop) == (0.5, ("END",))
    assert (request.params.seed, request.params.top_k, request.params.top_p) == (3, 0, 1.0)


async def test_a_passage_in_pieces(client: AsyncOpenAI):
    stream = await client.completions.create(
        model="mystery", prompt="x", stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert [c.choices[0].text for c in chunks if c.choices] == [*TEXT, ""]
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert len({chunk.id for chunk in chunks}) == 1


async def test_several_prompts_and_passages_have_their_places(client: AsyncOpenAI):
    asked = {"model": "mystery", "prompt": ["a", "b c"], "n": 3, "echo": True}
    answer = await client.completions.create(**asked)
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert [choice.text for choice in answer.choices] == [
        prompt + "".join(TEXT) for prompt in ("a", "a", "a", "b c", "b c", "b c")
    ]
    texts = dict.fromkeys(range(6), "")
    async for chunk in await client.completions.create(**asked, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert list(texts.values()) == [choice.text for choice in answer.choices]


async def test_four_passages_are_those_of_four_seeds(real: AsyncOpenAI):
    asked = {"model": "tiny", "prompt": "It was", "max_tokens": 12}
    together = await real.completions.create(**asked, n=4, seed=20)
    texts = [choice.text for choice in together.choices]
    assert len(set(texts)) == 4
    for i, text in enumerate(texts):
        alone = await real.completions.create(**asked, seed=20 + i)
        assert alone.choices[0].text == text
    drawn = await real.completions.create(**asked, n=4)
    assert len({choice.text for choice in drawn.choices}) == 4


@pytest.mark.parametrize("stream", [True, False])
async def test_who_goes_away_frees_the_slot(real: AsyncOpenAI, engine: LocalEngine, stream: bool):
    asked = {"model": "letters", "prompt": "It was", "max_tokens": 4096, "n": 2, "seed": 1}

    async def ask() -> None:
        answer = await real.completions.create(**asked, stream=stream)
        if stream:
            async for _ in answer:
                pass

    task = asyncio.create_task(ask())
    await until(lambda: engine.health().running == 2)
    task.cancel()
    await until(lambda: engine.health().running == engine.health().waiting == 0)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_closing_a_stream_frees_the_slot(real: AsyncOpenAI, engine: LocalEngine):
    stream = await real.completions.create(
        model="letters", prompt="It was", max_tokens=4096, stream=True
    )
    await anext(aiter(stream))
    assert engine.health().running == 1
    await stream.close()
    await until(lambda: engine.health().running == 0)


async def test_log_probabilities_of_what_is_written_and_of_the_prompt(
    real: AsyncOpenAI, engine: LocalEngine
):
    prompt = "It was a"
    answer = await real.completions.create(
        model="letters", prompt=prompt, max_tokens=5, seed=1, logprobs=2, echo=True
    )
    [choice] = answer.choices
    found = choice.logprobs
    assert found is not None
    assert found.tokens is not None
    assert "".join(found.tokens) == choice.text
    assert choice.text.startswith(prompt)
    assert len(found.tokens) == len(prompt) + 5  # a model of characters
    assert found.text_offset == list(range(len(choice.text)))
    assert found.token_logprobs is not None
    assert found.top_logprobs is not None
    assert (found.token_logprobs[0], found.top_logprobs[0]) == (None, None)
    scores = await engine.score("letters", choice.text, top=2)
    expected = [score.logprob for score in scores[1:]]
    assert found.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
    for token, logprob, top in zip(
        found.tokens[1:], found.token_logprobs[1:], found.top_logprobs[1:], strict=True
    ):
        assert top[token] == logprob
        assert len(top) in {2, 3}
    only = await real.completions.create(
        model="letters", prompt=prompt, max_tokens=0, logprobs=1, echo=True
    )
    assert only.choices[0].text == prompt
    assert only.choices[0].logprobs is not None
    assert only.choices[0].logprobs.token_logprobs == found.token_logprobs[: len(prompt)]


async def test_log_probabilities_come_in_pieces_too(real: AsyncOpenAI):
    asked = {"model": "tiny", "prompt": "It was", "max_tokens": 20, "seed": 2, "logprobs": 1}
    whole = (await real.completions.create(**asked)).choices[0].logprobs
    stream = await real.completions.create(**asked, stream=True)
    pieces = [chunk.choices[0].logprobs async for chunk in stream]
    assert whole is not None
    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
        joined = [value for piece in pieces if piece for value in getattr(piece, name)]
        assert joined == getattr(whole, name), name


async def test_models_are_listed(client: AsyncOpenAI):
    assert [model.id async for model in client.models.list()] == ["mystery", "fantasy"]
    model = await client.models.retrieve("fantasy")
    assert (model.id, model.owned_by) == ("fantasy", "storygen")
    with pytest.raises(openai.NotFoundError, match="'none'"):
        await client.models.retrieve("none")


# Errors


@pytest.mark.parametrize("stream", [True, False])
async def test_errors_are_those_that_the_client_knows(client: AsyncOpenAI, stream: bool):
    create = client.completions.create
    with pytest.raises(openai.NotFoundError, match="'nobody'") as missing:
        await create(model="nobody", prompt="a", stream=stream)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="temperature is 3") as wrong:
        await create(model="mystery", prompt="a", temperature=3, stream=stream)
    assert (wrong.value.param, wrong.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.BadRequestError, match="The prompt is empty"):
        await create(model="mystery", prompt="", stream=stream)
    with pytest.raises(openai.BadRequestError, match="token ids mean nothing here"):
        await create(model="mystery", prompt=[1, 2], stream=stream)


@pytest.mark.parametrize(
    ("error", "told", "code"),
    [
        (BusyError("Full."), openai.RateLimitError, "busy"),
        (QuotaError("Used up."), openai.RateLimitError, "quota"),
        (EngineError("Broken."), openai.InternalServerError, "engine_error"),
        (RuntimeError("secret"), openai.InternalServerError, None),
    ],
)
async def test_errors_of_the_engine_have_a_status_until_something_came(
    client: AsyncOpenAI, fake: FakeEngine, error: Exception, told: type, code: str | None
):
    fake.scripts = ([error], [error], [" A", error])
    for stream in (True, False):
        with pytest.raises(told) as raised:
            await client.completions.create(model="mystery", prompt="a", stream=stream)
        assert raised.value.code == code
        assert "secret" not in str(raised.value)
        waits = raised.value.response.headers.get("retry-after")
        assert (waits is not None) == isinstance(raised.value, openai.RateLimitError)
    stream = await client.completions.create(model="mystery", prompt="a", stream=True)
    assert (await anext(aiter(stream))).choices[0].text == " A"
    with pytest.raises(openai.APIError) as raised:
        await anext(aiter(stream))
    if isinstance(error, StorygenError):
        assert raised.value.message == str(error)
    assert fake.n_running == 0


@pytest.mark.parametrize(
    ("reason", "told"), [("loop", "stop"), ("time", "length"), ("length", "length")]
)
async def test_ends_are_told_by_the_names_that_there_are(
    client: AsyncOpenAI, fake: FakeEngine, reason: str, told: str
):
    fake.finish_reason = reason
    answer = await client.completions.create(
        model="mystery", prompt="a", extra_body={"storygen": {}}
    )
    assert answer.choices[0].finish_reason == told
    assert answer.model_extra["storygen"]["finish_reasons"] == [reason]


async def test_a_passage_cut_off_by_the_engine_is_an_error(client: AsyncOpenAI, fake: FakeEngine):
    fake.finish_reason = "cancelled"
    with pytest.raises(openai.InternalServerError, match="stopped before"):
        await client.completions.create(model="mystery", prompt="a")


async def test_a_passage_begins_where_its_echoed_prompt_ends(real: AsyncOpenAI):
    prompt = "Wait… “No,” he said.  The end"  # read with plain marks, and other lengths
    asked = {"model": "tiny", "prompt": prompt, "max_tokens": 4, "seed": 1, "echo": True}
    [choice] = (await real.completions.create(**asked, logprobs=0)).choices
    assert choice.text.startswith(prompt)
    told = choice.logprobs
    offsets = [at for at in told.text_offset if at >= len(prompt)]
    tokens = told.tokens[-len(offsets) :]
    assert choice.text[len(prompt) :] == "".join(tokens)
    assert [choice.text[at:][: len(t)] for at, t in zip(offsets, tokens, strict=True)] == tokens


# What OpenAI's API has not


async def test_a_passage_goes_on_after_its_marks(real: AsyncOpenAI):
    body = {"storygen": {"marks": True, "banned": ["e"], "loop_guard": True}}
    asked = {"model": "tiny", "prompt": "It was", "max_tokens": 40, "seed": 5, "stream": True}
    chunks = [c async for c in await real.completions.create(**asked, extra_body=body)]
    text = "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    parts = [chunk for chunk in chunks if chunk.choices]
    tokens = sum(chunk.model_extra["storygen"]["tokens"] for chunk in parts)
    assert parts[-1].model_extra["storygen"]["seed"] == 5
    for n in (1, len(parts) // 2, len(parts) - 1):
        after = "".join(chunk.model_extra["storygen"]["mark"] for chunk in parts[:n])
        body["storygen"]["after"] = after
        rest = [
            chunk
            async for chunk in await real.completions.create(**asked, extra_body=body)
            if chunk.choices
        ]
        assert "".join(c.choices[0].text for c in parts[:n] + rest) == text
        counted = [chunk.model_extra["storygen"]["tokens"] for chunk in parts[:n] + rest]
        assert sum(counted) == tokens


async def test_the_other_questions(url: str, fake: FakeEngine):
    async with httpx.AsyncClient(base_url=url) as http:

        async def post(path: str, **body: object) -> object:
            answer = await http.post(path, json={"model": "mystery", **body})
            assert answer.status_code == 200, answer.text
            return answer.json()

        counted = await post("/tokenize", prompt="three little words")
        assert counted == {"count": 3, "max_model_len": 128, "tokens": []}
        scored = await post("/v1/score", text="two words", top=1)
        assert [token["text"] for token in scored["tokens"]] == ["two", " words"]
        assert scored["tokens"][0]["top"] == [{"text": "two", "logprob": -0.6931471805599453}]
        following = await post("/v1/next_tokens", prompt="a", n=1)
        assert following == {"tokens": [{"text": " It", "logprob": -0.6931471805599453}]}
        words = await post("/v1/next_words", prompt="a", n=2)
        assert words["words"][1] == {"text": " was", "probability": 0.25}
        assert (await http.get("/v1/health")).json()["is_alive"] is True
        assert (await http.get("/health")).json() == {"status": "ok"}
        assert (await http.get("/ready")).json() == {"status": "ready"}
        assert "storygen_passages_total" in (await http.get("/metrics")).text
        [model, _] = (await http.get("/v1/models")).json()["data"]
        assert model["max_model_len"] == 128
        assert model["storygen"]["opening_lines"] == ["A mystery begins here."]
        assert "directory" not in model["storygen"]
