"""RemoteEngine against servers that do as they should, that break off anywhere, and that lie."""

import asyncio
import json
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storygen.catalogue import ModelInfo
from storygen.engine.dialects import CONTEXT
from storygen.engine.interface import Details, Segment
from storygen.engine.limits import Limits
from storygen.engine.remote import RemoteEngine
from storygen.engine.upstream import Upstream
from storygen.errors import (
    BusyError,
    EngineError,
    ModelNotFoundError,
    ParamsError,
    QuotaError,
    StorygenError,
)
from storygen.params import SamplingParams
from tests.conftest import EXAMPLES
from tests.engine.stub import (
    HASTY,
    MODELS,
    OURS,
    TEXT,
    Answer,
    Asked,
    engine_at,
    foreign,
    http,
    listening,
    marking,
    piece,
    serving,
    stream,
    tokens_of,
)

PARAMS = SamplingParams(max_new_tokens=100, seed=7, loop_guard=False)
FEW = settings(max_examples=max(10, EXAMPLES // 4))  # each has a server of its own
KEY = "sg-a-key-that-nobody-may-see"


async def segments_of(
    engine: RemoteEngine, params: SamplingParams = PARAMS, prompt: str = "Once"
) -> list[Segment]:
    return [segment async for segment in engine.stream("mystery", prompt, params)]


async def told(answer: Answer, cuts: list[int] | None = None, **more: Any) -> list[Segment]:
    """What an engine makes of a server's passage."""
    async with serving(answer, cuts) as stub, engine_at(stub.url) as engine:
        return await segments_of(engine, **more)


async def keep(engine: RemoteEngine, kept: list[Segment]) -> None:
    """Put what comes where it stays whatever happens."""
    async for segment in engine.stream("mystery", "Once", PARAMS):
        kept.append(segment)


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that comes soon."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


def text_of(segments: list[Segment]) -> str:
    return "".join(segment.text for segment in segments)


def only(body: bytes, models: Any = MODELS) -> Answer:
    """A server that says this to every request but what its models are, and how many tokens."""
    counted = http({"count": 3})
    answers = {"/v1/models": http(models), "/tokenize": counted, "/extras/tokenize/count": counted}
    return lambda asked: answers.get(asked.path, body)


# Whatever breaks off, no word is lost and none comes twice.

CUTS = st.lists(st.integers(0, 2500), max_size=6)


@FEW
@given(CUTS)
def test_a_passage_of_our_server_is_the_same_wherever_connections_break(cuts: list[int]) -> None:
    segments = asyncio.run(told(marking(), cuts))
    assert text_of(segments) == TEXT
    assert segments[-1].finish_reason == "loop"
    assert sum(segment.token_count for segment in segments) == len(tokens_of(TEXT))
    assert all(segment.finish_reason is None for segment in segments[:-1])


@FEW
@given(CUTS)
def test_a_passage_of_another_server_is_the_same_wherever_connections_break(
    cuts: list[int],
) -> None:
    segments = asyncio.run(told(foreign(), cuts))
    assert text_of(segments) == TEXT
    assert segments[-1].finish_reason == "stop"


async def test_every_part_of_an_answer_is_a_place_to_break_at() -> None:
    whole = len(
        foreign()(Asked("POST", "/v1/completions", {}, {"prompt": "Once", "max_tokens": 99}))
    )
    async with serving(foreign()) as stub, engine_at(stub.url) as engine:
        for cut in range(0, whole, 31):
            stub.cuts = [cut]
            assert text_of(await segments_of(engine)) == TEXT


async def test_what_is_left_is_asked_for_and_no_more() -> None:
    async with serving(foreign(), [700]) as stub, engine_at(stub.url) as engine:
        segments = await segments_of(engine)
    first, second = stub.passages
    assert second["prompt"].startswith("OnceIt was")
    assert not second["prompt"].endswith(" ")
    n_first = len(second["prompt"]) - len("Once")
    assert second["max_tokens"] == 100 - -(-n_first // 3)
    assert first["seed"] == 7
    assert sum(segment.token_count for segment in segments) >= len(tokens_of(TEXT))


async def test_marks_go_back_to_our_server_as_they_came() -> None:
    async with serving(marking(), [900]) as stub, engine_at(stub.url) as engine:
        await segments_of(engine)
    first, second = stub.passages
    assert "after" not in first["storygen"]
    assert set(second["storygen"].pop("after")) == {"m"}
    assert first == second  # prompt, seed and all


async def test_marks_without_the_seed_of_their_passage_are_refused() -> None:
    async with serving(marking()) as stub, engine_at(stub.url) as engine:
        passage = engine.stream("mystery", "Once", SamplingParams(), details=Details(after="m"))
        with pytest.raises(ParamsError, match="seed is missing"):
            [_ async for _ in passage]
    assert not stub.passages


async def test_a_passage_ends_where_its_tokens_do_though_the_end_was_lost() -> None:
    said = foreign()(Asked("POST", "/v1/completions", {}, {"prompt": "Once", "max_tokens": 5}))
    cut = said.index(b'"length"')
    short = SamplingParams(max_new_tokens=5, seed=7)
    segments = await told(foreign(), [cut], params=short)
    assert text_of(segments) == TEXT[:15]
    assert segments[-1].finish_reason == "length"


async def test_a_server_that_comes_back_goes_on() -> None:
    async with serving(marking(), [600]) as stub:
        async with engine_at(stub.url) as engine:
            answer, stub.answer = stub.answer, lambda _: b""
            stream = engine.stream("mystery", "Once", PARAMS)
            async with aclosing(stream) as segments:
                task = asyncio.create_task(anext(segments))
                await asyncio.sleep(0.05)
                stub.answer = answer
                first = await task
                rest = [segment async for segment in segments]
    assert text_of([first, *rest]) == TEXT


async def test_where_it_does_not_come_back_what_there_is_stays_and_a_sentence_comes() -> None:
    async with serving(marking(), [900, *[0] * 10_000]) as stub:
        async with engine_at(stub.url, patience=replace(HASTY, lost=0.1)) as engine:
            kept: list[Segment] = []
            with pytest.raises(EngineError, match=r"broke off|not over"):
                await keep(engine, kept)
    assert TEXT.startswith(text_of(kept))
    assert kept


# What a passage needs is seen to, whatever the server can.


async def test_a_stop_string_ends_a_passage_and_is_no_part_of_it() -> None:
    params = SamplingParams(max_new_tokens=100, seed=7, stop=("rain fell",))
    segments = await told(foreign(), params=params)
    assert text_of(segments) == TEXT[: TEXT.index("rain fell")]
    assert segments[-1].finish_reason == "stop"


@FEW
@given(CUTS)
def test_a_stop_string_is_found_across_a_break(cuts: list[int]) -> None:
    params = SamplingParams(max_new_tokens=100, seed=7, stop=("rain fell",))
    segments = asyncio.run(told(foreign(), cuts, params=params))
    assert text_of(segments) == TEXT[: TEXT.index("rain fell")]


async def test_a_banned_word_is_written_otherwise() -> None:
    def answer(asked: Asked) -> bytes:
        if asked.path != "/v1/completions":
            return foreign()(asked)
        word = " dog" if asked.body["seed"] == 7 else " cat"
        return stream(piece(" The"), piece(word), piece(" sat."), piece("", "stop"))

    def retold(asked: Asked) -> bytes:
        if asked.path == "/v1/completions" and asked.body["prompt"] != "Once":
            assert asked.body["prompt"] == "Once The"
            return stream(piece(" cat"), piece(" sat."), piece("", "stop"))
        return answer(asked)

    params = SamplingParams(max_new_tokens=100, seed=7, banned=("dog",))
    assert text_of(await told(retold, params=params)) == " The cat sat."


async def test_a_passage_that_only_repeats_itself_ends() -> None:
    body = stream(*[piece(part) for part in (" on", " and", " on,") * 200], piece("", "length"))
    params = SamplingParams(max_new_tokens=1000, seed=7)
    segments = await told(
        only(body, {"data": [{"id": "mystery", "max_model_len": 4000}]}), params=params
    )
    assert segments[-1].finish_reason == "loop"
    assert sum(segment.token_count for segment in segments) < 50


async def test_characters_that_json_brings_in_halves_are_whole() -> None:
    halves = ['{"choices":[{"text":" \\ud83d"}]}', '{"choices":[{"text":"\\ude00!"}]}']
    segments = await told(only(stream(*halves, piece(" \ud83d", "stop"))))
    assert text_of(segments) == " 😀! \ufffd"
    assert all(segment.text == segment.text.encode().decode() for segment in segments)


async def test_a_long_passage_is_written_with_a_moving_window() -> None:
    story = " ".join(f"word{n}" for n in range(400))

    def answer(asked: Asked) -> bytes:
        if asked.path == "/v1/models":
            return http({"data": [{"id": "mystery", "max_model_len": 120, "owned_by": "vllm"}]})
        n = len(asked.body["prompt"]) // 3 + 1
        if asked.path == "/tokenize":
            return http({"count": n})
        assert n + asked.body["max_tokens"] <= 120
        end = asked.body["prompt"][-9:]
        at = story.index(end) + len(end) if end in story else 0
        pieces = tokens_of(story[at:])[: asked.body["max_tokens"]]
        return stream(*map(piece, pieces), piece("", "length"))

    params = SamplingParams(max_new_tokens=300, seed=7, loop_guard=False)
    prompt = "Once upon a time " * 30
    segments = await told(answer, params=params, prompt=prompt)
    assert text_of(segments) == story[:900]
    assert segments[-1].finish_reason == "length"


async def test_a_context_told_only_once_the_model_is_loaded_is_kept_to() -> None:
    loaded = False

    def answer(asked: Asked) -> bytes:
        nonlocal loaded
        if asked.path == "/v1/models":
            entry = {"id": "mystery", "owned_by": "llamacpp"}
            return http({"data": [entry | ({"meta": {"n_ctx": 120}} if loaded else {})]})
        loaded |= asked.path == "/v1/completions"
        n = len(asked.body.get("prompt", asked.body.get("content"))) // 3 + 1
        if asked.path == "/tokenize":
            return http({"tokens": [0] * n})
        if n > 120:
            told = f"request ({n} tokens) exceeds the available context size (120 tokens)"
            return http({"error": {"code": 400, "message": told}}, "400 Bad Request")
        return stream(*map(piece, tokens_of(" and so it ended.")), piece("", "stop"))

    async with serving(answer) as stub, engine_at(stub.url) as engine:
        assert engine.models()[0].block_size == CONTEXT
        segments = await segments_of(engine, prompt="Once upon a time " * 30)
        assert text_of(segments) == " and so it ended."
        assert len(stub.passages) == 2


async def test_a_context_that_no_one_tells_is_that_of_the_model_of_this_name_here() -> None:
    known = ModelInfo("mystery", Path(), 512, 1, 1, 1, display_name="Mystery")
    models = {"data": [{"id": "mystery", "owned_by": "llamacpp"}]}
    async with serving(only(b"", models)) as stub:
        async with engine_at(stub.url, known={"mystery": known}.get) as engine:
            assert engine.models()[0].block_size == 512
        async with engine_at(stub.url, known={"mystery": known}.get, context=300) as engine:
            assert engine.models()[0].block_size == 300


async def test_each_server_is_asked_in_its_own_words() -> None:
    params = SamplingParams(
        max_new_tokens=9, seed=2**40, top_k=0, min_p=0.1, repetition_penalty=1.2, stop=("x",) * 8
    )
    bodies = {}
    for owner in ("vllm", "llamacpp", "me", "storygen"):
        models = OURS if owner == "storygen" else {"data": [{"id": "mystery", "owned_by": owner}]}
        async with serving(only(stream(piece("", "stop")), models)) as stub:
            async with engine_at(stub.url) as engine:
                [_ async for _ in engine.stream("mystery", "Once", params, user="ada")]
        (bodies[owner],) = stub.passages
    assert bodies["vllm"]["top_k"] == -1  # all of them
    assert bodies["vllm"]["repetition_penalty"] == 1.2
    assert bodies["llamacpp"]["repeat_penalty"] == 1.2
    assert bodies["llamacpp"]["min_p"] == 0.1
    assert bodies["llamacpp"]["seed"] < 2**32
    assert len(bodies["me"]["stop"]) == 4
    assert not {"top_k", "min_p", "storygen"} & bodies["me"].keys()
    assert bodies["storygen"]["storygen"] == {
        "banned": [],
        "end_at_sentence": False,
        "loop_guard": True,
        "marks": True,
    }
    assert {name for name, body in bodies.items() if "user" in body} == {"storygen"}
    assert "ada" not in json.dumps(bodies)


# What is short is waited for, and shared out.


async def test_a_busy_server_is_asked_again_when_it_says() -> None:
    refusals = [http({}, "503 Service Unavailable"), http({}, "429 Too Many", retry_after="0.01")]

    def answer(asked: Asked) -> bytes:
        return refusals.pop() if asked.path == "/v1/completions" and refusals else marking()(asked)

    assert text_of(await told(answer)) == TEXT
    assert refusals == []


async def test_a_server_that_is_busy_for_too_long_is_said_to_be() -> None:
    error = {"error": {"message": "mystery is busy. Try again in about 2 minutes.", "code": "busy"}}
    refusal = http(error, "429 Too Many", retry_after="120")
    async with serving(only(refusal)) as stub:
        async with engine_at(stub.url, limits=Limits(longest_wait=60)) as engine:
            with pytest.raises(BusyError, match="Try again in about 2 minutes") as caught:
                await segments_of(engine)
    assert len(stub.passages) == 1
    assert str(caught.value).count("Try again") == 1


async def test_a_quota_of_the_server_is_not_waited_for() -> None:
    error = {"error": {"message": "You have had enough. Try again in an hour.", "code": "quota"}}
    with pytest.raises(QuotaError, match="You have had enough"):
        await told(only(http(error, "429 Too Many", retry_after="1")))


async def test_so_many_are_asked_for_at_a_time_and_users_take_turns() -> None:
    running = most = 0
    order: list[str] = []

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running, most
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "/v1/models" in head:
            writer.write(http(OURS))
        else:
            length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
            order.append(json.loads(await reader.readexactly(length))["prompt"])
            running, most = running + 1, max(most, running + 1)
            await asyncio.sleep(0.01)
            running -= 1
            writer.write(stream(piece(" x", "stop", storygen={"mark": "m", "tokens": 1})))

    async with listening(slow) as url, engine_at(url, slots=2) as engine:

        async def write(user: str) -> list[Segment]:
            return [s async for s in engine.stream("mystery", user, PARAMS, user=user)]

        greedy = [asyncio.create_task(write("greedy")) for _ in range(10)]
        await asyncio.sleep(0)
        modest = await write("modest")
        assert [segment.place for segment in modest if segment.place] == [1]
        await asyncio.gather(*greedy)
        assert engine.health().running == engine.health().waiting == 0
    assert most == 2
    assert order.index("modest") <= 3


async def test_a_full_line_refuses_before_anything_is_read() -> None:
    async with serving(marking()) as stub, engine_at(stub.url, slots=1, queue_size=0) as engine:
        first = engine.stream("mystery", "Once", PARAMS)
        await anext(first)

        async def never() -> str:
            raise AssertionError("who is refused was not read")

        with pytest.raises(BusyError, match="Try again"):
            await anext(engine.stream("mystery", never, PARAMS))
        await first.aclose()
        assert text_of(await segments_of(engine)) == TEXT


async def test_closing_the_generator_ends_the_request() -> None:
    gone = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/v1/models" in head:
            writer.write(http(OURS))
            return
        writer.write(http(b"", kind="text/event-stream"))
        body = b"data: " + json.dumps(piece(" x", storygen={"tokens": 1})).encode() + b"\n\n"
        try:
            while True:
                writer.write(body)
                await writer.drain()
                await asyncio.sleep(0.001)
        except ConnectionError:
            gone.set()

    async with listening(endless) as url, engine_at(url) as engine:
        passage = engine.stream("mystery", "Once", PARAMS)
        await anext(passage)
        assert engine.health().running == 1
        await passage.aclose()
        assert engine.health().running == 0
        async with asyncio.timeout(20):
            await gone.wait()


def in_chunks(*events: Any) -> bytes:
    """A stream from a server that writes each event by itself; it has no end."""
    data = [f"data: {json.dumps(event)}\n\n" for event in events]
    body = "".join(f"{len(part):x}\r\n{part}\r\n" for part in data)
    return http(body.encode(), kind="text/event-stream", transfer_encoding="chunked")


@contextmanager
def no_hooks() -> Iterator[None]:
    """Nobody closes a generator that is let go of, as in Chainlit's event loop."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(*hooks)


async def test_a_passage_left_while_there_is_more_to_read_ends_without_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda told: errors.append(told.exc_value))
    body = in_chunks(*[piece(" x")] * 100)
    with no_hooks():
        async with serving(only(body)) as stub, engine_at(stub.url, slots=8) as engine:

            async def begin() -> None:
                async with aclosing(engine.stream("mystery", "Once", PARAMS)) as segments:
                    await anext(segments)

            await asyncio.gather(*[begin() for _ in range(8)])
    assert errors == []


async def test_a_passage_gives_its_connection_back_if_all_of_it_comes_at_once() -> None:
    body = in_chunks(piece(" x"), piece("", "stop")) + b"0\r\n\r\n"
    async with serving(only(body)) as stub, engine_at(stub.url, slots=1) as engine:
        async with asyncio.timeout(20):
            for _ in range(30):  # more than it has connections
                assert text_of(await segments_of(engine)) == " x"


async def test_questions_left_at_any_moment_leave_room_for_others() -> None:
    """httpx's pool does not get every connection back that was being opened, or closed."""
    async with serving(only(http({"count": 3}))) as stub:
        upstream = Upstream(stub.url, connections=4)
        async with asyncio.timeout(20):
            for turns in range(400):
                asked = asyncio.create_task(upstream.ask("POST", "/tokenize", {}))
                for _ in range(turns % 40):
                    await asyncio.sleep(0)
                asked.cancel()
                await asyncio.wait([asked])
            assert await upstream.ask("POST", "/tokenize", {}) == {"count": 3}
        await upstream.close()


# Servers that are not what they should be: one sentence, whatever they send.

HOSTILE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n" * 3,
    "nothing": b"",
    "a page": http(b"<html>hello</html>", kind="text/html"),
    "not JSON": stream("{oops"),
    "no object": stream("[1, 2]"),
    "NaN": stream('{"choices": [{"text": "x", "logprob": NaN}]}'),
    "deep": stream("[" * 100_000),
    "a number for text": stream(piece(7)),  # type: ignore[arg-type]  # so it is
    "choices of nothing": stream({"choices": "none"}),
    "a mark of numbers": stream(piece("x", storygen={"mark": [1]})),
    "bytes that are no text": http(b"data: \xff\xfe\xfd\n\n", kind="text/event-stream"),
    "an endless line": http(b"data: " + b"x" * 3_000_000, kind="text/event-stream"),
    "endless comments, then nothing": http(b": ping\n\n" * 1000, kind="text/event-stream"),
    "much more than was asked for": stream(*[piece("x" * 900_000)] * 2),
    "a redirect": http(b"", "302 Found", location="http://192.0.2.1/v1/completions"),
    "another model": http({"detail": "no such model"}, "404 Not Found"),
    "our key is wrong": http({"error": f"{KEY} is wrong"}, "401 Unauthorized"),
    "a failure": http({"error": {"message": f"\x1b[31m{KEY}\n" * 1000}}, "500 Error"),
    "a failure on the way": stream(piece(" x"), {"error": {"message": f"{KEY} is broken"}}),
    "packed": http(b"\x1f\x8b" + b"\0" * 50, kind="text/event-stream", content_encoding="gzip"),
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000,
}


@pytest.mark.parametrize("kind", ["vllm", "storygen"])
@pytest.mark.parametrize("what", HOSTILE)
async def test_a_hostile_server_is_one_sentence(
    what: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    patience = replace(HASTY, connect=0.05, lost=0.05)
    async with serving(only(HOSTILE[what], OURS if kind == "storygen" else MODELS)) as stub:
        async with engine_at(stub.url, KEY, patience=patience) as engine:
            with pytest.raises(StorygenError) as caught:
                await segments_of(engine)
            assert engine.health().running == 0
    sentence = str(caught.value)
    assert sentence[0].isupper()
    assert sentence.isprintable()
    assert len(sentence) < 500
    assert KEY not in sentence + caplog.text


@FEW
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_of_a_server_are_more_than_a_sentence(body: bytes, is_stream: bool) -> None:
    async def ask() -> None:
        kind = "text/event-stream" if is_stream else "application/json"
        patience = replace(HASTY, connect=0.0, lost=0.0)
        async with serving(only(http(body, kind=kind))) as stub:
            async with engine_at(stub.url, patience=patience) as engine:
                with pytest.raises(StorygenError):
                    await segments_of(engine)

    asyncio.run(ask())


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "text", "storygen", "mark", "tokens", "usage", "data", "id"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@FEW
@given(JUNK, JUNK)
def test_no_json_of_a_server_is_more_than_a_sentence(models: Any, event: Any) -> None:
    async def ask() -> None:
        patience = replace(HASTY, connect=0.0, lost=0.0, look=60, longest_pause=60)
        async with serving(only(stream(event), models)) as stub:
            async with engine_at(stub.url, patience=patience) as engine:
                with suppress(StorygenError):
                    await segments_of(engine)
                stub.answer = only(stream(event), OURS)
                await engine._refresh(20)
                with suppress(StorygenError):
                    await segments_of(engine)

    asyncio.run(ask())


async def test_a_body_of_a_gigabyte_is_not_read() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(http(b""))
        while sent < 10**9:
            writer.write(b"[" * 100_000)
            await writer.drain()
            sent += 100_000

    async with listening(flood) as url, engine_at(url) as engine:
        await until(lambda: "not read" in engine.health().trouble)
        assert engine.models() == []
    assert sent < 10**9


async def test_a_drip_without_a_word_does_not_last() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/v1/models" in head:
            writer.write(http(OURS))
            return
        writer.write(http(b"", kind="text/event-stream"))
        while True:
            writer.write(b": \n\n")
            await writer.drain()
            await asyncio.sleep(0.005)

    patience = replace(HASTY, connect=0.1)
    async with (
        listening(drip) as url,
        engine_at(url, patience=patience, limits=Limits(longest_wait=0.2)) as engine,
    ):
        began = time.monotonic()
        with pytest.raises(EngineError, match="nothing for too long"):
            await segments_of(engine)
        assert time.monotonic() - began < 20


async def test_tls_that_cannot_be_trusted_is_said_and_not_tried_again() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(http(OURS))

    async with listening(plain) as url, engine_at(url.replace("http:", "https:")) as engine:
        assert "not to be trusted" in engine.health().trouble
        with pytest.raises(EngineError, match="not to be trusted"):
            await segments_of(engine)


# What is there.


async def test_an_engine_without_a_server_says_so_and_recovers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(marking()) as stub:
        answer, stub.answer = stub.answer, lambda _: b""
        async with engine_at(stub.url, patience=replace(HASTY, connect=0.05)) as engine:
            assert engine.models() == []
            assert engine.health().is_alive
            assert "broke off" in engine.health().trouble
            with pytest.raises(EngineError, match="broke off"):
                await segments_of(engine)
            stub.answer = answer
            await until(engine.models)
            assert engine.health().trouble == ""
            assert text_of(await segments_of(engine)) == TEXT
            with pytest.raises(ModelNotFoundError, match="Models there: mystery"):
                await engine.count_tokens("fantasy", "x")
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert stub.url in warnings[0].getMessage()


async def test_models_of_our_server_bring_what_is_known_of_them() -> None:
    told = {"display_name": "Mystery", "genre": 7, "stop": ["END", 3], "suggested": {"top_k": 9}}
    entry = {"id": "mystery", "max_model_len": 512, "storygen": told | {"n_layer": 4, "x": 1}}
    async with serving(only(b"", {"data": [entry, {"id": 5}, "no"]})) as stub:
        async with engine_at(stub.url) as engine:
            (info,) = engine.models()
    assert (info.display_name, info.genre, info.block_size) == ("Mystery", "", 512)
    assert (info.stop, info.suggested, info.n_layer) == (("END",), {"top_k": 9}, 4)


@pytest.mark.parametrize(
    ("entry", "size"),
    [
        ({"max_model_len": 300}, 300),
        ({"meta": {"n_ctx_train": 512}}, 512),
        ({}, 2000),
        ({"max_model_len": -5, "meta": []}, 2000),
    ],
)
async def test_context_is_what_the_server_says_or_the_setting(entry: Any, size: int) -> None:
    models = {"data": [{"id": "a/models/mystery.gguf"} | entry]}
    async with serving(only(b"", models)) as stub, engine_at(stub.url, context=2000) as engine:
        (info,) = engine.models()
    assert (info.block_size, info.display_name) == (size, "mystery")


async def test_tokens_are_counted_once_for_each_text() -> None:
    async with serving(marking()) as stub, engine_at(stub.url) as engine:
        for _ in range(3):
            assert await engine.count_tokens("mystery", "a dark night") == 3
        assert sum(asked.path == "/tokenize" for asked in stub.asked) == 1


async def test_where_tokens_cannot_be_counted_they_are_estimated_and_never_too_few() -> None:
    answer = http({"detail": "Not Found"}, "404 Not Found")
    async with (
        serving(lambda a: http(MODELS) if a.path == "/v1/models" else answer) as stub,
        engine_at(stub.url) as engine,
    ):
        prose = "It was a dark and stormy night, and the rain fell in torrents." * 9
        assert await engine.count_tokens("mystery", prose) >= len(prose) / 3


async def test_questions_to_our_server_are_asked_and_read() -> None:
    answers = {
        "/v1/models": OURS,
        "/v1/score": {"tokens": [{"text": "a", "logprob": -0.5}]},
        "/v1/next_tokens": {"tokens": [{"text": " b", "logprob": -1.5}]},
        "/v1/next_words": {"words": [{"text": " big", "probability": 0.25}]},
    }
    async with serving(lambda asked: http(answers[asked.path])) as stub:
        async with engine_at(stub.url) as engine:
            assert [(s.text, s.logprob) for s in await engine.score("mystery", "a")] == [
                ("a", -0.5)
            ]
            (token,) = await engine.next_tokens("mystery", "a", 5)
            assert (token.text, token.logprob) == (" b", -1.5)
            (word,) = await engine.next_words("mystery", "a", 5)
            assert (word.text, word.probability) == (" big", 0.25)


async def test_next_tokens_are_read_in_both_forms_of_log_probabilities() -> None:
    of_openai = {"tokens": [" a"], "token_logprobs": [-1], "top_logprobs": [{" b": -2, " a": -1}]}
    of_chats = {
        "content": [
            {
                "token": " a",
                "logprob": -1,
                "top_logprobs": [{"token": " a", "logprob": -1}, {"token": " b", "logprob": -2}],
            }
        ]
    }
    for told in (of_openai, of_chats):
        answer = only(http({"choices": [{"text": " a", "logprobs": told}]}))
        async with serving(answer) as stub, engine_at(stub.url) as engine:
            found = await engine.next_tokens("mystery", "Once", 5)
        assert [(token.text, token.logprob) for token in found] == [(" a", -1.0), (" b", -2.0)]


async def test_next_words_are_found_by_tokens() -> None:
    told = {"": {" the": -1.0, " dr": -2.0}, " the": {" sea": -0.5, "n": -1.5}}
    told |= {" dr": {"um": -0.5, "ip": -1.0}, " then": {",": -0.1}}

    def answer(asked: Asked) -> bytes:
        if asked.path == "/v1/models":
            return http(MODELS)
        after = told.get(asked.body["prompt"].removeprefix("Once"), {".": -0.25})
        logprobs = {"tokens": [" x"], "token_logprobs": [-1], "top_logprobs": [after]}
        return http({"choices": [{"text": " x", "logprobs": logprobs}]})

    async with serving(answer) as stub, engine_at(stub.url) as engine:
        words = await engine.next_words("mystery", "Once", 3)
    # Of what is told after " the" a " sea" ends it; " dr" is none of the best three.
    ends = math.exp(-0.5) / (math.exp(-0.5) + math.exp(-1.5))
    expected = {" the": math.exp(-1) * ends, " drum": math.exp(-2.5), " then": math.exp(-2.5)}
    assert {word.text: word.probability for word in words} == pytest.approx(expected)


async def test_what_a_server_lacks_is_a_sentence_that_names_it() -> None:
    models = {"data": [{"id": "mystery", "owned_by": "llamacpp"}]}
    async with serving(only(b"", models)) as stub, engine_at(stub.url) as engine:
        with pytest.raises(EngineError, match=r"Llama\.cpp's server cannot tell how prob"):
            await engine.score("mystery", "Once")


async def test_the_key_is_sent_and_a_refused_one_is_named_by_its_setting() -> None:
    async with serving(marking()) as stub, engine_at(stub.url, KEY) as engine:
        await segments_of(engine)
        assert {asked.headers["authorization"] for asked in stub.asked} == {f"bearer {KEY}"}
    refused = http({"error": {"message": f"Invalid key {KEY}"}}, "401 Unauthorized")
    async with serving(lambda _: refused) as stub, engine_at(stub.url, KEY) as engine:
        assert "STORYGEN_ENGINE_KEY" in engine.health().trouble
        assert KEY not in engine.health().trouble
