"""RayEngine over replicas in this process, which can be lost like those of a cluster."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from functools import partial

import pytest

from storygen.catalogue import Catalogue
from storygen.engine.fake import FakeEngine
from storygen.engine.interface import Details, Segment
from storygen.engine.limits import Limits
from storygen.engine.local import LocalEngine
from storygen.errors import (
    BusyError,
    EngineError,
    ModelNotFoundError,
    PromptError,
    QuotaError,
)
from storygen.params import SamplingParams
from storygen.serve.affinity import ranked
from storygen.serve.ray_engine import RayEngine
from storygen.serve.replica import Replica

PROMPTS = [f"It was night number {n}, and the rain fell." for n in range(6)]


class GoneError(Exception):
    """A replica was killed."""


class FullError(Exception):
    """No replica takes more."""


class Reply:
    """A stream of a replica that ends with an error when the replica is killed."""

    def __init__(self, cluster, name, pieces):
        self.cluster, self.name, self.pieces = cluster, name, pieces
        self.is_cancelled = False

    async def __aiter__(self) -> AsyncIterator[Segment]:
        async with aclosing(self.pieces) as pieces:
            async for piece in pieces:
                if self.name not in self.cluster.replicas or self.is_cancelled:
                    raise GoneError(self.name)
                yield piece
                await asyncio.sleep(0)

    def cancel(self) -> None:
        self.is_cancelled = True


class Cluster:
    """Replicas by name; routes as the router does, without any load."""

    def __init__(self, replicas):
        self.replicas, self.taken, self.refuses = dict(replicas), [], False

    def _choose(self, story) -> str:
        name = ranked(story.key, dict.fromkeys(self.replicas, 0))[0]
        self.taken.append(name)
        return name

    def stream(self, story, params, details) -> Reply:
        name = self._choose(story)
        if self.refuses:
            return Reply(self, name, full())
        return Reply(self, name, self.replicas[name].stream(story, params, details))

    async def ask(self, story, question, rest):
        name = self._choose(story)
        if self.refuses:
            raise FullError
        answer = await self.replicas[name].ask(story, question, rest)
        if name not in self.replicas:
            raise GoneError(name)
        return answer


async def full() -> AsyncIterator[Segment]:
    raise FullError
    yield


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def replica(stack: AsyncExitStack, engine) -> Replica:
    made = object.__new__(Replica)
    await made.__init__(lambda: engine, engine.models()[0].name)
    stack.push_async_callback(engine.close)
    return made


def local(weights, native) -> LocalEngine:
    return LocalEngine(
        Catalogue(weights), device="cpu", dtype="fp32", threads=1, slots=4, native=native
    )


async def engine_over(weights, cluster, **limits) -> RayEngine:
    engine = RayEngine(
        Catalogue(weights),
        {"tiny": cluster},
        lost=(GoneError,),
        full=(FullError,),
        limits=Limits(**limits),
    )
    await engine.start()
    return engine


@pytest.fixture
async def cluster(stack, tiny_weights, native_folder) -> Cluster:
    """Three replicas of the tiny model."""
    make = partial(local, tiny_weights, native_folder)
    return Cluster({name: await replica(stack, make()) for name in ("one", "two", "three")})


@pytest.fixture
async def engine(tiny_weights, cluster) -> RayEngine:
    return await engine_over(tiny_weights, cluster)


async def passage(engine, prompt=PROMPTS[0], details=None, **params) -> list[Segment]:
    params = SamplingParams(**{"seed": 1, "max_new_tokens": 60, "top_k": 0, **params})
    stream = engine.stream("tiny", prompt, params, user="ada", details=details)
    return [segment async for segment in stream if segment.place is None]


def text_of(segments: list[Segment]) -> str:
    return "".join(segment.text for segment in segments)


@pytest.fixture
async def alone(stack, tiny_weights, native_folder) -> LocalEngine:
    """One engine without any cluster: what it writes is the truth."""
    engine = local(tiny_weights, native_folder)
    await engine.start()
    stack.push_async_callback(engine.close)
    return engine


async def test_a_passage_is_the_one_that_an_engine_alone_writes(engine, alone):
    mine, theirs = await passage(engine), await passage(alone)
    assert text_of(mine) == text_of(theirs)
    assert mine[-1].finish_reason == theirs[-1].finish_reason == "length"
    assert sum(s.token_count for s in mine) == 60
    assert all(not s.mark and not s.tokens for s in mine)


async def test_details_arrive(engine, alone):
    asked = Details(logprobs=1)
    mine = await passage(engine, details=asked)
    theirs = await passage(alone, details=asked)
    assert sum((s.tokens for s in mine), ()) == sum((s.tokens for s in theirs), ())
    assert "".join(s.mark for s in mine) == "".join(s.mark for s in theirs)


@pytest.mark.parametrize("seed", range(5))
async def test_passages_of_replicas_that_are_lost_are_the_undisturbed_ones(
    engine, cluster, alone, seed
):
    """Two of three replicas are lost at any moment; no word is lost or written twice."""
    chance = random.Random(seed)
    whole = [text_of(await passage(alone, prompt)) for prompt in PROMPTS]
    victims = chance.sample(sorted(cluster.replicas), 2)

    async def kill() -> None:
        for victim in victims:
            before = len(cluster.taken)
            await asyncio.sleep(chance.uniform(0, 0.03))
            del cluster.replicas[victim]
            assert len(cluster.taken) >= before

    passages = [passage(engine, prompt) for prompt in PROMPTS]
    *written, _ = await asyncio.gather(*passages, kill())
    assert [text_of(segments) for segments in written] == whole
    assert all([s.finish_reason for s in w if s.finish_reason] == ["length"] for w in written)


async def test_a_passage_goes_on_elsewhere_from_the_word_it_had(engine, cluster, alone):
    n = 1500  # many messages long, however fast the machine
    whole = text_of(await passage(alone, max_new_tokens=n))
    params = SamplingParams(seed=1, max_new_tokens=n, top_k=0)
    text = ""
    async with aclosing(engine.stream("tiny", PROMPTS[0], params, user="ada")) as segments:
        async for segment in segments:
            text += segment.text
            if len(cluster.replicas) > 1 and text:
                del cluster.replicas[cluster.taken[-1]]
    assert text == whole
    assert len(set(cluster.taken)) == 3


async def test_a_story_returns_to_its_replica_as_it_grows(engine, cluster):
    story = "It was a long night, and what came of it is told here from its beginning on. " * 3
    for _ in range(3):
        story += text_of(await passage(engine, story, max_new_tokens=5))
    assert len(set(cluster.taken)) == 1


async def test_where_all_replicas_are_lost_it_says_so(engine, cluster, monkeypatch):
    monkeypatch.setattr("storygen.serve.elsewhere.FIRST_PAUSE", 0.0)
    monkeypatch.setattr(cluster, "stream", lambda *_: Reply(cluster, "gone", never()))
    with pytest.raises(EngineError, match="lost 6 times"):
        await passage(engine)


async def never() -> AsyncIterator[Segment]:
    yield Segment("never shown", 1)


async def test_errors_of_a_replica_arrive_as_they_are(engine):
    with pytest.raises(PromptError, match="mark"):
        await passage(engine, details=Details(after="no mark"))
    with pytest.raises(ModelNotFoundError, match="'nobody'"):
        await anext(engine.stream("nobody", "x", SamplingParams()))


async def test_full_replicas_are_busy(engine, cluster):
    cluster.refuses = True
    with pytest.raises(BusyError, match="full"):
        await passage(engine)
    with pytest.raises(BusyError, match="full"):
        await engine.next_tokens("tiny", "It was", 3)


async def test_nobody_waits_longer_than_the_limit_for_a_replica(tiny_weights, cluster, monkeypatch):
    async def waits() -> AsyncIterator[Segment]:
        await asyncio.sleep(3600)
        yield Segment("", 0)

    engine = await engine_over(tiny_weights, cluster, longest_wait=-0.99)
    monkeypatch.setattr(cluster, "stream", lambda *_: Reply(cluster, "one", waits()))
    with pytest.raises(BusyError, match="No replica of tiny"):
        await passage(engine)


async def test_quotas_are_counted_whoever_writes(tiny_weights, cluster):
    engine = await engine_over(tiny_weights, cluster, tokens_per_hour=50)
    await passage(engine, max_new_tokens=50)
    with pytest.raises(QuotaError):
        await passage(engine)


async def test_closing_a_passage_frees_its_slot(stack, tiny_weights):
    fake = FakeEngine(["word "] * 10_000, delay=0.001, models=Catalogue(tiny_weights).models())
    cluster = Cluster({"one": await replica(stack, fake)})
    engine = await engine_over(tiny_weights, cluster)
    passage = engine.stream("tiny", "It was", SamplingParams(seed=1))
    await anext(passage)
    assert (engine.health().running, fake.n_running) == (1, 1)
    await passage.aclose()
    for _ in range(1000):
        if fake.n_running == 0:
            break
        await asyncio.sleep(0.001)
    assert (engine.health().running, fake.n_running) == (0, 0)


async def test_questions_are_answered_as_by_an_engine_alone(engine, alone):
    text = "It was a dark night."
    assert await engine.count_tokens("tiny", text) == await alone.count_tokens("tiny", text)
    assert await engine.score("tiny", text, top=2) == await alone.score("tiny", text, top=2)
    assert await engine.next_tokens("tiny", text, 5) == await alone.next_tokens("tiny", text, 5)
    assert await engine.next_words("tiny", text, 2) == await alone.next_words("tiny", text, 2)
    with pytest.raises(PromptError):
        await engine.next_words("tiny", "", 2)


async def test_a_question_to_a_replica_that_is_lost_is_asked_again(engine, cluster, alone):
    asked = []

    async def lost_once(story, question, rest):
        asked.append(question)
        if len(asked) == 1:
            raise GoneError
        return await type(cluster).ask(cluster, story, question, rest)

    cluster.ask = lost_once
    assert await engine.next_tokens("tiny", "It was", 3) == await alone.next_tokens(
        "tiny", "It was", 3
    )
    assert len(asked) == 2


async def test_a_question_that_nobody_lives_to_answer_is_an_error(engine, cluster):
    async def lost(*_):
        raise GoneError

    cluster.ask = lost
    with pytest.raises(EngineError, match="3 replicas of tiny were lost"):
        await engine.next_tokens("tiny", "It was", 3)


async def test_it_offers_the_models_that_there_are_replicas_for(engine, tiny_weights):
    assert [info.name for info in engine.models()] == ["tiny"]
    other = next(i.name for i in Catalogue(tiny_weights).models() if i.name != "tiny")
    with pytest.raises(ModelNotFoundError, match="Deploy them again"):
        await engine.count_tokens(other, "x")


async def test_closed_it_takes_nothing(engine):
    await engine.close()
    assert not engine.health().is_alive
    with pytest.raises(EngineError, match="not running"):
        await passage(engine)


async def test_a_replica_whose_engine_has_stopped_is_not_healthy(stack, tiny_weights):
    fake = FakeEngine(models=Catalogue(tiny_weights).models())
    made = await replica(stack, fake)
    await made.check_health()
    await fake.close()
    with pytest.raises(EngineError, match="stopped"):
        await made.check_health()
