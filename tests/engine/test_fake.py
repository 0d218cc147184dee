import asyncio
import subprocess
import sys
from contextlib import aclosing

import pytest

from storygen.engine.fake import FakeEngine
from storygen.engine.interface import Engine, Segment, WordScore
from storygen.errors import BusyError, EngineError, ModelNotFoundError, PromptError
from storygen.params import SamplingParams

PARAMS = SamplingParams(seed=1)


async def started(*scripts, **options) -> Engine:
    engine = FakeEngine(*scripts, **options)
    await engine.start()
    return engine


async def written(engine, prompt="Once"):
    return [segment async for segment in engine.stream("mystery", prompt, PARAMS)]


async def test_scripts_are_played_in_turn_and_the_last_one_for_ever():
    engine = await started(["a", "b c"], ["d"])
    assert await written(engine) == [Segment("a", 1), Segment("b c", 2), Segment("", 0, "stop")]
    assert (
        await written(engine) == await written(engine) == [Segment("d", 1), Segment("", 0, "stop")]
    )


async def test_an_error_in_a_script_is_raised_where_it_stands():
    engine = await started(["a", BusyError("Try again.")])
    stream = engine.stream("mystery", "Once", PARAMS)
    assert await anext(stream) == Segment("a", 1)
    with pytest.raises(BusyError, match=r"Try again\."):
        await anext(stream)
    assert engine.requests[0].finish_reason == "error"


async def test_requests_are_recorded_with_what_became_of_them():
    engine = await started(["a", "b"], finish_reason="length")
    await written(engine, "Once")
    async with aclosing(engine.stream("fantasy", "Twice", PARAMS)) as stream:
        await anext(stream)
        assert engine.n_running == 1
    first, second = engine.requests
    assert (first.prompt, first.params, first.finish_reason) == ("Once", PARAMS, "length")
    assert (second.model, second.segments, second.finish_reason) == (
        "fantasy",
        [Segment("a", 1)],
        "cancelled",
    )
    assert engine.n_running == 0


async def test_a_cancelled_reader_is_recorded_too():
    engine = await started(["a", "b"], delay=3600)
    reader = asyncio.create_task(written(engine))
    await asyncio.sleep(0)
    assert engine.n_running == 1
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert engine.requests[0].finish_reason == "cancelled"


async def test_it_refuses_what_an_engine_refuses():
    engine = FakeEngine()
    with pytest.raises(EngineError, match="not running"):
        await written(engine)
    await engine.start()
    with pytest.raises(PromptError, match="empty"):
        await written(engine, "")
    with pytest.raises(ModelNotFoundError, match="'x'"):
        await engine.count_tokens("x", "a")
    await engine.close()
    with pytest.raises(EngineError, match="not running"):
        await engine.score("mystery", "a")


async def test_questions_have_answers_of_the_right_kind():
    engine = await started([" the", " end"])
    assert [info.name for info in engine.models()] == ["mystery", "fantasy"]
    assert await engine.count_tokens("mystery", "three little words") == 3
    assert [score.text for score in await engine.score("mystery", "two words")] == ["two", " words"]
    assert [len(score.top) for score in await engine.score("mystery", "two words", top=3)] == [3, 3]
    assert [score.text for score in await engine.next_tokens("mystery", "a", 1)] == [" the"]
    assert await engine.next_words("mystery", "a", 5) == [
        WordScore(" the", 0.5),
        WordScore(" end", 0.25),
    ]


def test_the_fake_needs_no_torch():
    code = "import sys, storygen.engine.fake; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
