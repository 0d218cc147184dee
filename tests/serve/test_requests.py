"""Whatever is asked, the answer is what was wanted, or a sentence in OpenAI's form."""

import json
from collections.abc import AsyncIterator

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from storygen.engine.fake import FakeEngine
from storygen.engine.interface import Details
from storygen.params import MAX_SEED, SamplingParams
from storygen.serve.app import application
from storygen.serve.asked import asked
from storygen.serve.bodies import Fields
from tests.conftest import EXAMPLES

HERE = "http://127.0.0.1:8001"


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with FakeHttp() as client:
        yield client


class FakeHttp(httpx.AsyncClient):
    """A client of the API in this process."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.engine._is_running = True
        app = application(self.engine, keys=None)
        super().__init__(transport=httpx.ASGITransport(app=app), base_url=HERE)


def is_told(answer: httpx.Response) -> bool:
    """Whether it is an error as it must be."""
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"].endswith(".") or "keys add USER" in error["message"]
    return answer.status_code < 500 and bool(error["message"])


def body_of(prompt: str | list[str], **more: object) -> bytes:
    """A request in which each field may be what it is."""
    return json.dumps({"model": "mystery", "prompt": prompt, **more}).encode()


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 400, "The body is not JSON: Expecting value"),
        (b"{", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"\xff", 400, "not UTF-8"),
        (b"[]", 400, "must be an object, not a list"),
        (b'{"temperature": NaN}', 400, "NaN is no number"),
        (b'{"model": 1, "prompt": "a"}', 400, "model must be text, not 1"),
        (b'{"prompt": "a"}', 400, "model is missing"),
        (b'{"model": "mystery"}', 400, "prompt must be text, or a list of texts"),
        (b'{"model": "mystery", "prompt": []}', 400, "prompt must be text"),
        (b'{"model": "mystery", "prompt": [[1]]}', 400, "token ids mean nothing here"),
        (b'{"model": "mystery", "prompt": "a", "colour": 1}', 400, "colour is no field here"),
        (b'{"model": "mystery", "prompt": "a", "n": 9}', 400, "n must be from 1 to 8, not 9"),
        (b'{"model": "mystery", "prompt": "a", "n": 1.5}', 400, "whole number from 1 to 8"),
        (b'{"model": "mystery", "prompt": "a", "n": 1e999}', 400, "whole number from 1 to 8"),
        (b'{"model": "mystery", "prompt": "a", "n": true}', 400, "n must be a whole number"),
        (b'{"model": "mystery", "prompt": "a", "best_of": 2}', 400, "best_of must be n"),
        (b'{"model": "mystery", "prompt": "a", "suffix": "b"}', 400, "suffix cannot be used"),
        (b'{"model": "mystery", "prompt": "a", "logit_bias": {"5": 1}}', 400, "logit_bias cannot"),
        (b'{"model": "mystery", "prompt": "a", "logprobs": 6}', 400, "from 0 to 5"),
        (b'{"model": "mystery", "prompt": "a", "max_tokens": 5000}', 400, "from 0 to 4096"),
        (b'{"model": "mystery", "prompt": "a", "temperature": 2.1}', 400, "temperature is 2.1"),
        (b'{"model": "mystery", "prompt": "a", "top_p": 0}', 400, "top_p is 0"),
        (b'{"model": "mystery", "prompt": "a", "stop": [1]}', 400, "stop has 1"),
        (b'{"model": "mystery", "prompt": "a", "stream": 1}', 400, "stream must be true or false"),
        (b'{"model": "mystery", "prompt": "a", "stream_options": {}}', 400, 'for "stream": true'),
        (b'{"model": "mystery", "prompt": "a", "seed": -1}', 400, "seed must be from 0"),
        (b'{"model": "mystery", "prompt": "a", "storygen": {"x": 1}}', 400, "storygen.x is no"),
        (b'{"model": "mystery", "prompt": "a", "storygen": 1}', 400, "must be an object, not 1"),
        (b'{"model": "mystery", "prompt": "a", "n": 2, "storygen": {"after": "A."}}', 400, "one"),
        (body_of(["a"] * 64, n=8, max_tokens=65), 400, "may be 64 for each of 512 passages"),
        (body_of(["a"] * 9, max_tokens=4096), 400, "one request writes 32,768 tokens at most"),
        (body_of("a" * 125_001, n=8, echo=True), 400, "has 1,000,008 characters to echo, each"),
        (body_of("a" * 25_001, n=2, echo=True, logprobs=1), 400, "may have 50,000"),
        (b'{"model": "\\ud800", "prompt": "a"}', 404, "There is no model"),
        (b'{"model": "mystery", "prompt": ""}', 400, "The prompt is empty"),
    ],
)
async def test_wrong_requests_are_sentences(http, body: bytes, status: int, said: str):
    kind = {"content-type": "application/json; charset=utf-8"}
    answer = await http.post("/v1/completions", content=body, headers=kind)
    assert answer.status_code == status, answer.text
    assert is_told(answer)
    assert said in answer.json()["error"]["message"]


async def test_an_error_names_the_field_it_is_about(http):
    for wrong, field in (
        ({"n": 9}, "n"),
        ({"colour": 1}, "colour"),
        ({"top_p": 0}, "top_p"),
        ({"c" * 300: 1}, "c" * 80),
        ({"storygen": {"nope": 1}}, "storygen.nope"),
        ({"storygen": {"banned": [" "]}}, "storygen.banned"),
    ):
        body = {"model": "mystery", "prompt": "a"} | wrong
        answer = await http.post("/v1/completions", json=body)
        assert answer.json()["error"]["param"] == field


async def test_what_openai_takes_for_nothing_is_nothing(http):
    nothing = dict.fromkeys(["suffix", "logit_bias", "stop", "seed", "logprobs", "user", "n"])
    body = {"model": "mystery", "prompt": "a", **nothing, "best_of": 1}
    body |= {"logit_bias": {}, "suffix": ""}
    answer = await http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text


async def test_only_json_of_a_bounded_length_is_read(http):
    body = json.dumps({"model": "mystery", "prompt": "a"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = await http.post("/v1/completions", content=body, headers={"content-type": kind})
        assert (answer.status_code, is_told(answer)) == (415, True)
    kind = {"content-type": "application/json"}
    answer = await http.post("/v1/completions", content=b" " * 8_000_001, headers=kind)
    assert (answer.status_code, is_told(answer)) == (413, True)


async def test_other_routes_and_methods_are_sentences(http):
    for method, path, status in [
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/chat/completions", 404),
        ("GET", "/v1/../etc", 404),
        ("GET", "/", 404),
        ("POST", "/health", 405),
    ]:
        answer = await http.request(method, path)
        assert (answer.status_code, is_told(answer)) == (status, True), path


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "[::1"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
    ],
)
async def test_without_keys_no_page_of_another_origin_may_ask(http, headers):
    answer = await http.get("/v1/models", headers=headers)
    assert (answer.status_code, is_told(answer)) == (403, True)


async def test_every_answer_has_its_number_and_is_measured(http):
    answers = [await http.get("/v1/models") for _ in range(2)]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 2
    assert 'method="GET",route="/v1/models",status="2xx"' in (await http.get("/metrics")).text


async def test_our_mistake_has_the_number_of_its_line_in_the_log(http, caplog):
    http.engine.scripts = ([RuntimeError("a secret")],)
    answer = await http.post("/v1/completions", json={"model": "mystery", "prompt": "a"})
    assert answer.status_code == 500
    assert f"number {answer.headers['x-request-id']} in the log" in answer.text
    assert "secret" not in answer.text


async def test_who_needs_no_key_may_say_for_whom(http):
    body = {"model": "mystery", "prompt": "a"}
    await http.post("/v1/completions", json=body)
    await http.post("/v1/completions", json=body | {"user": "ann"})
    assert [request.user for request in http.engine.requests] == ["writer", "writer/ann"]


# Anything

json_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["mystery", "a"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = """
    model prompt max_tokens temperature top_p n best_of seed stop frequency_penalty echo user text
    presence_penalty logprobs stream stream_options suffix logit_bias top_k min_p top marks after
    repetition_penalty dry_multiplier dry_base dry_allowed_length storygen banned loop_guard
""".split()
some_fields = st.dictionaries(st.sampled_from(FIELDS), json_value)
bodies = st.builds(
    lambda sure, body, inner: sure | body | inner,
    st.sampled_from([{}, {"model": "mystery", "prompt": "a"}, {"model": "mystery", "text": "a"}]),
    some_fields,
    st.just({}) | st.builds(lambda inner: {"storygen": inner}, some_fields),
)
PATHS = ["/v1/completions", "/tokenize", "/v1/score", "/v1/next_tokens", "/v1/next_words"]


@settings(max_examples=3 * EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(PATHS), bodies | json_value)
@example("/v1/completions", {"model": "mystery", "prompt": "\ud800", "echo": True})
@example("/v1/completions", {"model": "mystery", "prompt": "a", "stream": True, "n": 8})
async def test_no_body_is_our_mistake(path, body):
    async with FakeHttp() as http:
        content = json.dumps(body)
        kind = {"content-type": "application/json"}
        answer = await http.post(path, content=content, headers=kind)
        assert answer.status_code == 200 or is_told(answer), (answer.status_code, answer.text)
        assert http.engine.n_running == 0


@given(st.binary(max_size=200), st.sampled_from(PATHS))
async def test_no_bytes_are_our_mistake(content, path):
    async with FakeHttp() as http:
        answer = await http.post(
            path, content=content, headers={"content-type": "application/json"}
        )
        assert is_told(answer)


def test_every_field_reaches_the_engine():
    wanted = asked(
        Fields(
            {
                "model": "m",
                "prompt": ["a", "b"],
                "max_tokens": 9,
                "temperature": 0,
                "top_p": 0.5,
                "n": 2,
                "best_of": 2,
                "seed": MAX_SEED,
                "stop": "x",
                "frequency_penalty": 0.5,
                "presence_penalty": 0.25,
                "logprobs": 0,
                "top_k": 4,
                "min_p": 0.1,
                "repetition_penalty": 1.5,
                "user": "ann",
                "storygen": {
                    "dry_multiplier": 1,
                    "dry_base": 2,
                    "dry_allowed_length": 3,
                    "banned": ["y"],
                    "end_at_sentence": True,
                    "loop_guard": True,
                    "marks": True,
                },
            }
        )
    )
    assert wanted.params == SamplingParams(
        *(9, 0.0, 4, 0.5, 0.1, 1.5, 0.5, 0.25, 1.0, 2.0, 3, MAX_SEED),
        stop=("x",),
        banned=("y",),
        end_at_sentence=True,
        loop_guard=True,
    )
    assert (wanted.prompts, wanted.n, wanted.details) == (("a", "b"), 2, Details(0))
    assert (wanted.user, wanted.marks) == ("ann", True)


def test_as_much_as_is_written_at_one_go():
    for prompt, n, max_tokens in (["a"] * 64, 8, 64), ("a", 8, 4096), (["a"] * 64, 8, 0):
        body = {"model": "m", "prompt": prompt, "n": n, "max_tokens": max_tokens}
        assert asked(Fields(body)).max_tokens == max_tokens
    echo = {"model": "m", "prompt": "a" * 25_000, "echo": True}
    assert asked(Fields(echo | {"logprobs": 1, "n": 2})).n == 2
    assert asked(Fields(echo | {"prompt": "a" * 125_000, "n": 8})).n == 8  # no token is told


def test_nothing_is_done_that_was_not_asked():
    wanted = asked(Fields({"model": "m", "prompt": "a"}))
    assert wanted.params == SamplingParams(16, 1.0, 0, loop_guard=False)
    assert wanted.details is None
