import asyncio
import threading
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.catalogue import Catalogue
from storygen.engine import ledger
from storygen.engine.limits import DAY, HOUR, MINUTE, Limits, Quotas, when
from storygen.engine.memory import model_bytes, reserved_bytes
from storygen.engine.runner import Runner
from storygen.engine.scheduler import Scheduler
from storygen.engine.worker import Worker
from storygen.errors import BusyError, EngineError, QuotaError
from storygen.params import SamplingParams
from tests.engine.conftest import token, write

LONG = SamplingParams(seed=1, max_new_tokens=4096, top_k=0, loop_guard=False)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def spend(quotas, tokens, user="ann", promised=1):
    with quotas.promised(user, promised) as count:
        count(tokens)


def test_a_quota_is_said_and_when_it_ends():
    clock = Clock()
    quotas = Quotas(100, 0, clock)
    spend(quotas, 99)
    clock.now += 40 * MINUTE
    spend(quotas, 1)
    with pytest.raises(QuotaError, match=r"within an hour \(100 .*20 minutes"):
        spend(quotas, 1)
    spend(quotas, 1, user="ben")
    clock.now += 21 * MINUTE
    spend(quotas, 1)


def test_what_is_being_written_counts_as_written():
    quotas = Quotas(0, 100, Clock())
    with quotas.promised("ann", 60), quotas.promised("ann", 60):
        with pytest.raises(QuotaError, match=r"within a day \(100 "):
            spend(quotas, 1)
    spend(quotas, 1)


def kept(file):
    """The file, once nothing is being written aside."""
    for thread in threading.enumerate():
        if thread.name == "quotas":
            thread.join()
    return file


async def test_a_restart_forgets_no_quota_and_a_kill_a_minute_of_it(tmp_path):
    clock, file = Clock(), tmp_path / "quotas.json"
    first = Quotas(100, 0, clock, file)
    spend(first, 60)
    await first.keep()  # as at the end of the process
    assert file.stat().st_mode & 0o777 == 0o600
    second = Quotas(100, 0, clock, file)
    clock.now += MINUTE
    spend(second, 40)  # the first of its minute: kept at once
    spend(second, 1, user="ben")  # killed before this is
    third = Quotas(100, 0, clock, kept(file))
    with pytest.raises(QuotaError, match=r"within an hour \(100 "):
        spend(third, 1)
    spend(third, 99, user="ben")
    clock.now += 2 * HOUR
    kept(file)
    await third.keep()
    assert file.read_text() == "[]"  # nobody is kept for ever


async def test_nobody_waits_while_the_disk_does_not_answer(tmp_path, monkeypatch):
    """The file was written on the event loop."""
    written, answers = [], threading.Event()

    def replace_slowly(path, text):
        answers.wait(10)
        written.append(text)

    monkeypatch.setattr(ledger, "_replace", replace_slowly)
    clock, file = Clock(), tmp_path / "quotas.json"
    quotas = Quotas(1000, 0, clock, file)
    for _ in range(3):
        clock.now += MINUTE
        spend(quotas, 1)
    assert written == []
    answers.set()
    kept(file)
    assert len(written) == 1  # no two at once
    await quotas.keep()
    assert [written[0].count("["), written[1].count("[")] == [4, 6]  # a minute, and three


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"{", b"null", b"[1]", b'[["ann", [[1]]]]', b'[["ann", [[1, 1e999]]]]'],
)
def test_a_file_that_keeps_nothing_is_as_none(tmp_path, content):
    (tmp_path / "quotas.json").write_bytes(content)
    spend(Quotas(100, 0, Clock(), tmp_path / "quotas.json"), 1)


async def test_a_full_disk_is_no_reason_to_write_nothing(tmp_path):
    quotas = Quotas(100, 0, Clock(), tmp_path / "missing" / "quotas.json")
    spend(quotas, 1)
    await quotas.keep()


async def test_an_engine_knows_what_the_one_before_it_wrote(make_engine, tmp_path):
    limits = Limits(tokens_per_hour=20, ledger=tmp_path / "quotas.json")
    engine = await make_engine(limits=limits)
    await write(engine, max_new_tokens=20, loop_guard=False)
    await engine.close()
    with pytest.raises(QuotaError):
        await write(await make_engine(limits=limits))


@given(
    st.lists(st.tuples(st.floats(0, 2 * HOUR), st.integers(1, 80)), max_size=60),
    st.integers(1, 100),
    st.integers(1, 300),
)
def test_nobody_is_written_more_than_a_quota_and_a_passage(asked, per_hour, per_day):
    clock, written = Clock(), []
    quotas = Quotas(per_hour, per_day, clock)
    for pause, tokens in asked:
        clock.now += pause
        try:
            spend(quotas, tokens, promised=tokens)
            written.append((clock.now, tokens))
        except QuotaError:
            pass
        for seconds, most in ((HOUR, per_hour), (DAY, per_day)):
            recent = [n for at, n in written if clock.now - at < seconds - MINUTE]
            assert sum(recent[:-1]) < most


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "in a moment"), (11, "in about 20 seconds"), (59, "in about 1 minute"), (7e3, "2 hours")],
)
def test_a_time_is_said_in_round_numbers(seconds, words):
    assert when(seconds).endswith(words)


@pytest.mark.usefixtures("slow")
async def test_a_passage_that_takes_too_long_is_ended_and_kept(make_engine):
    engine = await make_engine(limits=Limits(longest_passage=0.05))
    segments = [s async for s in engine.stream("tiny", "a", LONG) if s.place is None]
    assert segments[-1].finish_reason == "time"
    assert sum(segment.token_count for segment in segments) > 0
    assert engine.health().running == 0


@pytest.mark.usefixtures("slow")
async def test_one_who_waits_too_long_is_told(make_engine, monkeypatch):
    engine = await make_engine(slots=1)
    async with aclosing(engine.stream("tiny", "a", LONG)) as writing:
        await token(writing)  # opening the model may take longer than the other waits
        monkeypatch.setattr(engine, "_limits", Limits(longest_wait=0.01))
        with pytest.raises(BusyError, match=r"busy for 0 seconds.*Try again"):
            await write(engine)
        assert engine.health().waiting == 0


@pytest.mark.usefixtures("slow")
async def test_places_in_line_are_told_as_they_move(make_engine):
    engine = await make_engine(slots=1)
    async with aclosing(engine.stream("tiny", "a", LONG)) as writing:
        await token(writing)
        heard = [[], []]

        async def wait(n):
            params = replace(LONG, max_new_tokens=20)
            heard[n] = [s.place async for s in engine.stream("tiny", "a", params)]

        waiting = [asyncio.create_task(wait(n)) for n in range(2)]
        while engine.health().waiting < 2:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert [place for place in heard[0] if place is not None] == [1, 0]
    assert [place for place in heard[1] if place is not None] == [2, 1, 0]


async def test_a_passage_that_pauses_for_another_user_is_the_same_to_the_byte(
    make_engine, monkeypatch
):
    engine, going, step = await make_engine(slots=2), threading.Event(), Runner.step
    alone = [await write(engine, seed=seed, max_new_tokens=200) for seed in (1, 2)]
    paused, next_exchange = [], Scheduler._next_exchange

    def held(*values):
        going.wait()
        return step(*values)

    def noted(scheduler):  # its reader may be told only when it goes on again
        exchange = next_exchange(scheduler)
        paused.extend(request.user for request in exchange or ())
        return exchange

    async def greedy(seed):
        params = SamplingParams(seed=seed, max_new_tokens=200, top_k=0)
        segments = []
        async for segment in engine.stream("tiny", "It was a dark night", params, user="ann"):
            if segment.place is None:
                segments.append(segment)
        return segments

    async def other():
        params = SamplingParams(seed=3, max_new_tokens=5, top_k=0)
        for _ in range(5):
            async for _ in engine.stream("tiny", "a", params, user="ben"):
                pass

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "step", held)
        patch.setattr(Scheduler, "_next_exchange", noted)
        writing = [asyncio.create_task(greedy(seed)) for seed in (1, 2)]
        while engine.health().running < 2:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        asking = asyncio.create_task(other())
        while not engine.health().waiting:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        going.set()
        await asking
    assert await asyncio.gather(*writing) == alone
    assert paused.count("ann") > 1  # the first time before its first word, perhaps


async def test_a_prompt_is_not_made_for_one_who_is_refused(make_engine):
    engine, made = await make_engine(slots=1, queue_size=0), 0

    async def prompt():
        nonlocal made
        made += 1
        return "a" * await engine.count_tokens("tiny", "a")

    async with aclosing(engine.stream("tiny", prompt, LONG)) as writing:
        await token(writing)
        for _ in range(20):
            with pytest.raises(BusyError):
                await token(engine.stream("tiny", prompt, LONG))
        assert made == 1
    assert [s async for s in engine.stream("tiny", prompt, replace(LONG, max_new_tokens=2))]


async def test_a_prompt_that_cannot_be_made_gives_its_place_back(make_engine):
    engine = await make_engine(slots=1, queue_size=0)

    async def prompt():
        raise BusyError("by hand")

    for _ in range(3):
        with pytest.raises(BusyError, match="by hand"):
            await token(engine.stream("tiny", prompt, LONG))
    assert await write(engine)


class Panic(BaseException):
    """What a panic in Rust code is to Python."""


async def test_a_panic_while_a_prompt_is_made_is_told(make_engine):
    engine = await make_engine(slots=1, queue_size=0)

    async def prompt():
        raise Panic

    with pytest.raises(EngineError, match="tiny failed"):
        await token(engine.stream("tiny", prompt, LONG))
    assert await write(engine)


async def test_nobody_is_looked_for_where_nobody_waits(make_engine, monkeypatch):
    engine = await make_engine(slots=2)
    await write(engine)
    looked, line = 0, Worker.line

    def counted(worker):
        nonlocal looked
        looked += 1
        return line(worker)

    monkeypatch.setattr(Worker, "line", counted)
    await asyncio.gather(write(engine), write(engine))
    assert not looked


async def test_models_share_the_memory_there_is(make_engine, tiny_weights):
    sizes = {i.name: model_bytes(i, "fp32", 8) for i in Catalogue(tiny_weights).models()}
    engine = await make_engine(limits=Limits(memory=max(sizes.values())))
    for model in ("tiny", "letters", "tiny"):
        await asyncio.gather(write(engine, model=model), write(engine, model="tiny"))
        assert len(engine.health().models) == 1


async def test_a_model_too_large_for_the_memory_is_refused_with_both_sizes(make_engine):
    engine = await make_engine(limits=Limits(memory=1000))
    with pytest.raises(EngineError, match=r"tiny needs .* MB of memory and STORYGEN_MEMORY_MB"):
        await write(engine)


def test_slots_reserve_memory_by_the_context(tiny_weights):
    info = Catalogue(tiny_weights).get("tiny")
    assert reserved_bytes(info, 8) == 16 * 8 * info.n_layer * info.n_embd * info.block_size
    longer = replace(info, block_size=2 * info.block_size)
    assert reserved_bytes(longer, 8) == 2 * reserved_bytes(info, 8)
