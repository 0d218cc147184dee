"""Guesses change nothing but the time: whatever is guessed, the passage is the one it was."""

import asyncio
import math
import random

import numpy as np
import pytest

from storygen import checkpoints
from storygen.checkpoints.ngrams import LONGEST, NONE, NGrams, count
from storygen.decode.native import NativeDecoder
from storygen.engine import local
from storygen.engine.interface import Details
from storygen.engine.local import LocalEngine
from storygen.engine.runner import Runner
from storygen.engine.sequence import Sequence
from storygen.engine.speculation import (
    MOST_GUESSES,
    MOST_ROWS,
    ROUNDS,
    SHORTEST,
    Pace,
    Speculation,
)
from storygen.params import SamplingParams
from storygen.tokenizers import CharTokenizer
from tests.conftest import CHARACTERS, random_model
from tests.engine import oracle
from tests.engine.conftest import text_of, write

LETTERS = CharTokenizer(CHARACTERS)
MODEL = random_model(LETTERS.vocab_size, block_size=32)
PROMPT = "It was a dark and stormy night, and the rain fell on the roofs of the town."
SETTINGS = [
    {"top_k": 0},
    {"temperature": 0.0},
    {"repetition_penalty": 1.3, "dry_multiplier": 2.0, "dry_allowed_length": 1},
    {"frequency_penalty": 0.5, "presence_penalty": 0.5, "top_p": 0.9, "min_p": 0.02},
    {"banned": ("e", "th", "a ")},
    {"stop": ("q", "zz"), "end_at_sentence": True},
]


class Scripted(NGrams):
    """Foretells what a passage is known to be, but for every n-th token."""

    def __init__(self, ids, wrong=math.inf):
        self._ids, self._wrong = list(ids), wrong

    def next(self, ids):
        ids = list(ids[-LONGEST:])
        for at in range(len(self._ids) - len(ids)):
            if self._ids[at : at + len(ids)] == ids:
                token = self._ids[at + len(ids)]
                return (token + 1) % LETTERS.vocab_size if at % self._wrong == 0 else token
        return None


class Steps:
    """A decoder that counts."""

    def __init__(self, decoder):
        self._decoder, self.taken, self.rows = decoder, 0, 0

    def __getattr__(self, name):
        return getattr(self._decoder, name)

    def step(self, rows, *args):
        self.taken, self.rows = self.taken + 1, max(self.rows, len(rows))
        assert all(row.id < LETTERS.vocab_size for row in rows)
        return self._decoder.step(rows, *args)


@pytest.fixture
def make_runner(library, monkeypatch):
    """Runners that take so many guesses always."""

    def make(ngrams, n=MOST_GUESSES):
        monkeypatch.setattr(Pace, "guesses", lambda *_: n)
        monkeypatch.setattr(Pace, "learn", lambda *_: None)
        decoder = NativeDecoder(library, MODEL.config, MODEL.state_dict(), "fp32", 8, 1)
        return Runner("letters", Steps(decoder), LETTERS, Speculation(ngrams, LETTERS))

    return make


def sequence(prompt="The night was dark.", details=None, **params):
    params = {"seed": 1, "max_new_tokens": 60, "loop_guard": False, **params}
    return Sequence("letters", prompt, SamplingParams(**params), details=details)


def run(runner, *requests):
    """What each of them has become, and why it ended."""
    told, left = {request: [] for request in requests}, set(requests)
    while left:
        for request, segment, final in runner.step(list(left)):
            told[request].append(segment)
            left -= {request} if final else set()
    return [(text_of(segments), segments[-1].finish_reason) for segments in told.values()]


def expected(made):
    return oracle.ended(MODEL, LETTERS, made.prompt, made.params)


def known(made):
    """The tokens of the prompt and of the passage that will come of it."""
    return LETTERS.encode(made.prompt + expected(made)[0])


@pytest.mark.parametrize("params", SETTINGS)
@pytest.mark.parametrize("wrong", [math.inf, 3, 1])
def test_a_passage_is_the_same_whether_guesses_are_right_or_wrong(make_runner, params, wrong):
    made = sequence(**params)
    runner = make_runner(Scripted(known(made), wrong))
    assert run(runner, made) == [expected(made)]
    assert runner.decoder.rows >= (2 if wrong == 1 else 1 + MOST_GUESSES)
    if params == SETTINGS[0]:  # 60 tokens of which the window moves several times
        assert runner.decoder.taken in {math.inf: range(15, 33), 3: range(25, 50), 1: [60]}[wrong]


@pytest.mark.parametrize("banned", [("e", "th", "a "), ("ab", "cd", "x", "y"), tuple("abcdefghij")])
@pytest.mark.parametrize("temperature", [0.0, 0.3, 0.8])
def test_a_guess_that_leads_into_a_banned_phrase_is_taken_back(make_runner, banned, temperature):
    for seed in range(3):
        free, made = (
            sequence(seed=seed, temperature=temperature, banned=texts) for texts in ((), banned)
        )
        runner = make_runner(Scripted(known(free) + known(made)))
        assert run(runner, made) == [expected(made)]
        assert runner.decoder.rows > 1


def test_what_is_forbidden_at_a_place_is_not_after_it():
    made = sequence(banned=("e",))
    made.begin(LETTERS, 32)
    token, after = LETTERS.encode("e!")
    made.take(token)
    assert made.take(after) is None
    assert made.adjustments() == [(token, -math.inf)]
    assert made.adjustments([7]) == []


def test_passages_side_by_side_are_the_same(make_runner):
    made = [sequence(seed=n, **params) for n, params in enumerate(SETTINGS)]
    runner = make_runner(Scripted([i for one in made for i in known(one)], 5))
    assert run(runner, *made) == [expected(one) for one in made]
    assert runner.decoder.rows > 2 * len(made)
    assert runner.decoder.taken < 50


def test_passages_that_pause_and_read_again_are_the_same(make_runner):
    """What was guessed wrongly lies in a slot, and is known to nobody."""
    made = [sequence("The night was dark." + tail) for tail in ("", " The", " The n", "")]
    runner = make_runner(Scripted([i for one in made for i in known(one)], 3))
    told, left, luck = {one: [] for one in made}, list(made), random.Random(1)
    while left:
        turn = [one for one in left if luck.random() < 0.6][:3]
        for request, segment, final in runner.step(turn):
            told[request].append(segment)
            left = [one for one in left if one is not request or not final]
    assert [text_of(told[one]) for one in made] == [expected(one)[0] for one in made]


def test_what_the_model_does_not_have_is_not_asked(make_runner):
    """A table may be damaged, or of another model: no number in it reaches native code."""
    for table in (np.full(256, NONE - 1, np.uint16), np.full(256, LETTERS.vocab_size, np.uint16)):
        made = sequence()
        runner = make_runner(NGrams((5, 3), table))
        assert run(runner, made) == [expected(made)]
        assert runner.decoder.rows == 1


def test_a_passage_is_not_guessed_beyond_its_length(make_runner):
    for n in (1, 2, 3, 7):
        made = sequence(max_new_tokens=n)
        runner = make_runner(Scripted(known(sequence())))
        assert run(runner, made) == [expected(made)]
        assert runner.decoder.rows == min(n, 1 + MOST_GUESSES)


def test_where_scores_are_wanted_nothing_is_guessed(make_runner):
    made = sequence(details=Details(logprobs=2))
    runner = make_runner(Scripted(known(made)))
    assert run(runner, made) == [expected(made)]
    assert runner.decoder.rows == 1


def test_a_story_foretells_itself(make_runner):
    made = sequence("ring a ring of roses, a ring a ring of ro", temperature=0.0, max_new_tokens=9)
    runner = make_runner(None)
    assert run(runner, made) == [expected(made)]
    assert runner.decoder.rows > 1


async def test_an_engine_writes_the_same_with_guesses_and_without(
    make_engine, tiny_weights, tmp_path, monkeypatch
):
    for name in ("tiny", "letters"):
        (tmp_path / name).mkdir()
        for file in (tiny_weights / name).iterdir():
            (tmp_path / name / file.name).symlink_to(file)
    plain = await make_engine(tmp_path, speculate=False)
    asked = [
        (model, params, seed)
        for model in ("tiny", "letters")
        for params in SETTINGS
        for seed in range(3)
    ]

    async def passages(engine):
        return await asyncio.gather(
            *(
                write(engine, PROMPT, model, seed=seed, **{"max_new_tokens": 120, **params})
                for model, params, seed in asked
            )
        )

    alone = await passages(plain)
    for name in ("tiny", "letters"):
        tokenizer = checkpoints.load_tokenizer(tmp_path / name)
        texts = [text_of(s) for (m, *_), s in zip(asked, alone, strict=True) if m == name]
        told = tokenizer.encode("".join(PROMPT + text for text in texts))
        count(tokenizer, np.array(told, np.uint16)).save(tmp_path / name)
    monkeypatch.setattr("storygen.engine.speculation.SHORTEST", 0)
    monkeypatch.setattr("storygen.engine.speculation.WORTH", 0)
    guessing = await make_engine(tmp_path, queue_size=64)
    steps = []
    step = NativeDecoder.step
    monkeypatch.setattr(
        NativeDecoder, "step", lambda *args: steps.append(len(args[1])) or step(*args)
    )
    for segments, again in zip(alone, await passages(guessing), strict=True):
        assert (text_of(again), again[-1].finish_reason) == (
            text_of(segments),
            segments[-1].finish_reason,
        )
    assert max(steps) > 8, "nothing was guessed"


async def test_a_table_that_cannot_be_read_is_done_without(
    make_engine, tmp_path, tiny_weights, caplog
):
    (tmp_path / "tiny").mkdir()
    for file in (tiny_weights / "tiny").iterdir():
        (tmp_path / "tiny" / file.name).symlink_to(file)
    (tmp_path / "tiny/ngrams.npy").write_bytes(b"\x93NUMPY, more or less")
    engine: LocalEngine = await make_engine(tmp_path)
    assert await write(engine)
    assert "ngrams.npy is no table" in caplog.text


async def test_only_where_rows_are_independent_anything_is_guessed(make_engine, monkeypatch):
    made = []
    monkeypatch.setattr(local, "Speculation", lambda *_: made.append(1))
    assert await write(await make_engine(native=None))
    assert made == []
    assert await write(await make_engine())
    assert made == [1]


# How many


def steps_of(pace, seconds, right, n, writers=1, foretold=lambda: True):
    """How many guesses were tried in each of n steps that take so long, and tokens a second."""
    tried, tokens, time = [], 0, 0.0
    for _ in range(n):
        tried.append(pace.guesses(writers))
        had = [tried[-1] if foretold() else 0 for _ in range(writers)]
        taken = [(n, next((i for i in range(n) if not right()), n)) for n in had]
        took = seconds(sum(had) / writers)
        pace.learn(tried[-1], taken, took)
        tokens, time = tokens + sum(1 + right for _, right in taken), time + took
    return tried, tokens / time


@pytest.mark.parametrize(
    ("costs", "share", "best"),
    [
        ([5, 5, 5, 5], 0.6, 3),  # rows for nothing
        ([5, 5.1, 5.2, 9], 0.4, 2),
        ([5, 5.1, 7, 9], 0.4, 1),
        ([5, 7, 9, 11], 0.3, 0),  # each row like a step of its own
        ([5, 5.1, 5.2, 5.3], 0.0, 0),  # never right
        ([5, 10, 15, 16], 0.99, 0),  # hardly more
    ],
)
def test_as_many_are_guessed_as_pay(costs, share, best):
    luck = np.random.default_rng(1)

    def seconds(n):
        return costs[int(n)] / 1000 * luck.choice([1, 1.05, 2.2], p=[0.6, 0.3, 0.1])

    tried, _ = steps_of(Pace(), seconds, lambda: luck.random() < share, 4000)
    rounds = tried[tried.index(1) - 1 :]
    assert rounds[: 2 * len(costs)] == list(range(len(costs))) * 2
    later = tried[2000:]
    assert later.count(best) / len(later) > 0.9
    assert {0, 1, 2, 3} <= set(later), "the others are not tried any more"


@pytest.mark.parametrize("writers", [1, 4])
@pytest.mark.parametrize(
    ("foretold", "share"), [(0.16, 0.32), (0.26, 0.48), (0.4, 0.3), (0.9, 0.3)]
)
@pytest.mark.parametrize("costs", [[1, 1.05, 1.1, 1.2], [1, 1.3, 1.7, 2.1], [1, 2, 3, 4]])
def test_writing_is_hardly_ever_slower_for_it(costs, foretold, share, writers):
    """A cost in a minority of the steps does not show in a median over all of them."""
    luck = np.random.default_rng(1)
    _, rate = steps_of(
        Pace(),
        lambda n: 0.005 * np.interp(n, range(4), costs),
        lambda: luck.random() < share,
        8000,
        writers,
        lambda: luck.random() < foretold,
    )
    assert rate > 0.97 * writers / 0.005


def test_steps_without_a_guess_say_nothing_of_guesses():
    pace, luck = Pace(), np.random.default_rng(1)

    def seconds(n):
        return 0.005 + n / 10_000

    before, _ = steps_of(pace, seconds, lambda: luck.random() < 0.4, 1000)
    assert before[-1] == MOST_GUESSES
    steps_of(pace, seconds, lambda: True, 1000, foretold=lambda: False)
    after, _ = steps_of(pace, seconds, lambda: luck.random() < 0.4, 200)
    assert after.count(MOST_GUESSES) > 180


def test_a_model_that_is_fast_anyway_is_left_alone_until_it_is_not():
    pace = Pace()
    fast, _ = steps_of(pace, lambda n: SHORTEST * (0.9 + n), lambda: True, 6000)
    assert set(fast) == {0}
    slow, _ = steps_of(pace, lambda n: SHORTEST * (3 + n / 9), lambda: True, 200)
    assert slow.count(MOST_GUESSES) > 50
    assert slow[-1] == MOST_GUESSES


def test_a_step_has_no_more_rows_than_pay():
    pace = Pace()
    for writers in range(1, 40):
        tried, _ = steps_of(pace, lambda _: 0.005, lambda: True, 8 * ROUNDS, writers)
        assert max(tried) == min(MOST_GUESSES, max(0, MOST_ROWS // writers - 1))
