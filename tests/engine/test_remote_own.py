"""RemoteEngine and our own server, with models: the same as without the two between them."""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from storygen.catalogue import Catalogue
from storygen.engine.interface import Details, Segment, TokenScore, WordScore
from storygen.engine.limits import Limits
from storygen.engine.local import LocalEngine
from storygen.engine.remote import RemoteEngine
from storygen.errors import PromptError, QuotaError
from storygen.params import SamplingParams
from storygen.serve.app import application
from tests.engine.stub import engine_at, listening
from tests.serve.api import served, until

PROMPT = "It was a dark and stormy night, and the rain fell on the roofs of the town."
ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = SamplingParams(
    max_new_tokens=60,
    seed=5,
    top_k=0,
    repetition_penalty=1.2,
    dry_multiplier=0.5,
    stop=("zzz",),
    banned=("e", "a"),
    loop_guard=False,
)


@asynccontextmanager
async def pair(weights: Path, **options: object) -> AsyncIterator[tuple[LocalEngine, str]]:
    """An engine, and where it is served."""
    engine = LocalEngine(Catalogue(weights), dtype="fp32", device="cpu", **options)  # type: ignore[arg-type]  # as given
    await engine.start()
    try:
        async with served(application(engine, keys=None)) as url:
            yield engine, url
    finally:
        await engine.close()


@asynccontextmanager
async def cutting(url: str, seed: int) -> AsyncIterator[str]:
    """A line to a server that breaks after some hundreds of bytes, now and then after many."""
    luck = random.Random(seed)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = luck.choice([300, 600, 1000, 2000, 3000, 50_000])
        there = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        forth = asyncio.create_task(_copy(reader, there[1], 10**9))
        forth.add_done_callback(lambda _: there[1].close())  # who asked has gone
        try:
            await _copy(there[0], writer, left)
        finally:
            forth.cancel()
            there[1].close()

    async with listening(pass_on) as line:
        yield line


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int) -> None:
    while most > 0 and (piece := await reader.read(min(most, 200))):
        most -= len(piece)
        writer.write(piece)
        await writer.drain()


async def written(engine: LocalEngine | RemoteEngine, model: str, params: SamplingParams) -> str:
    segments = [s async for s in engine.stream(model, PROMPT, params)]
    assert segments[-1].finish_reason == "length"
    assert sum(segment.token_count for segment in segments) == params.max_new_tokens
    return "".join(segment.text for segment in segments)


@pytest.mark.parametrize("model", ["tiny", "letters"])
async def test_a_passage_is_the_one_that_is_written_here(tiny_weights: Path, model: str) -> None:
    async with pair(tiny_weights) as (local, url), engine_at(url) as remote:
        assert await written(remote, model, EVERYTHING) == await written(local, model, EVERYTHING)


@pytest.mark.parametrize("model", ["tiny", "letters"])
async def test_lost_connections_change_no_letter_of_it(tiny_weights: Path, model: str) -> None:
    async with pair(tiny_weights) as (local, url):
        expected = await written(local, model, EVERYTHING)
        for seed in range(3):
            async with cutting(url, seed) as line, engine_at(line) as remote:
                await until(remote.models)
                assert await written(remote, model, EVERYTHING) == expected
        await until(lambda: local.health().running == 0)


async def test_a_closed_generator_frees_the_slot_there(tiny_weights: Path) -> None:
    endless = SamplingParams(max_new_tokens=4096, seed=1, top_k=0, loop_guard=False)
    async with pair(tiny_weights) as (local, url), engine_at(url) as remote:
        async with aclosing(remote.stream("letters", PROMPT, endless)) as segments:
            async for segment in segments:
                if segment.text:
                    break
            assert local.health().running == 1
        await until(lambda: local.health().running == 0)


async def test_questions_have_the_same_answers(tiny_weights: Path) -> None:
    async with pair(tiny_weights) as (local, url), engine_at(url) as remote:
        for model in ("tiny", "letters"):
            for ask, *more in (("score",), ("next_tokens", 5), ("next_words", 5)):
                here = await getattr(local, ask)(model, "the night", *more)
                there = await getattr(remote, ask)(model, "the night", *more)
                assert [known.text for known in there] == [known.text for known in here]
                assert [number_of(a) for a in there] == pytest.approx([number_of(a) for a in here])
            count = await local.count_tokens(model, PROMPT)
            assert await remote.count_tokens(model, PROMPT) == count
        told = {info.name: info for info in remote.models()}
        for info in local.models():
            assert told[info.name].block_size == info.block_size
            assert told[info.name].display_name == info.display_name


def number_of(found: TokenScore | WordScore) -> float:
    return found.logprob if isinstance(found, TokenScore) else found.probability


async def test_details_come_through(tiny_weights: Path) -> None:
    params = SamplingParams(max_new_tokens=20, seed=3, loop_guard=False)

    async def detailed(engine: LocalEngine | RemoteEngine, after: str = "") -> list[Segment]:
        details = Details(logprobs=2, after=after)
        asked = engine.stream("tiny", PROMPT, params, details=details)
        return [segment async for segment in asked if segment.place is None]

    async with pair(tiny_weights) as (local, url), engine_at(url) as remote:
        here, there = await detailed(local), await detailed(remote)
        assert [s.text for s in there] == [s.text for s in here]
        assert [s.mark for s in there] == [s.mark for s in here]
        half = "".join(s.mark for s in here[:5])
        rest = "".join(s.text for s in await detailed(remote, half))
        assert rest == "".join(s.text for s in here[5:])


async def test_our_server_tells_the_writers_of_all_pages_apart(tiny_weights: Path) -> None:
    params = SamplingParams(max_new_tokens=20, seed=3, loop_guard=False)

    async def write(page: RemoteEngine, user: str) -> int:
        passage = page.stream("tiny", PROMPT, params, user=user)
        return sum([segment.token_count async for segment in passage])

    async with pair(tiny_weights, limits=Limits(tokens_per_hour=20)) as (_, url):
        async with engine_at(url) as one, engine_at(url) as other:
            assert await write(one, "ada") == 20
            with pytest.raises(QuotaError, match="Try again"):
                await write(other, "ada")
            assert await write(other, "ben") == 20


async def test_what_our_server_refuses_is_the_error_it_was(tiny_weights: Path) -> None:
    params = SamplingParams(max_new_tokens=20, seed=3)
    async with pair(tiny_weights, limits=Limits(tokens_per_hour=5)) as (_, url):
        async with engine_at(url) as remote:
            with pytest.raises(PromptError, match="€"):
                [_ async for _ in remote.stream("letters", "€", params)]
            [_ async for _ in remote.stream("tiny", PROMPT, params)]
            with pytest.raises(QuotaError, match="Try again"):
                await anext(remote.stream("tiny", PROMPT, params))


def test_a_page_that_writes_elsewhere_does_not_load_pytorch() -> None:
    program = (
        "import sys; from storygen.engines import engine_of;"
        "from storygen.settings import Settings;"
        "engine_of(Settings(engine_url='http://127.0.0.1:1'));"
        "import storygen.chat.turn, storygen.chat.events;"
        "print('torch' in sys.modules, 'storygen.engine.local' in sys.modules)"
    )
    asked = [sys.executable, "-c", program]
    said = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]
