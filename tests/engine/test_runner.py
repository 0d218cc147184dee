import random

import pytest
import torch

from storygen.engine.interface import Segment
from storygen.engine.jobs import Job, score_job
from storygen.engine.runner import Runner
from storygen.engine.sequence import Sequence
from storygen.errors import EngineError, PromptError
from storygen.params import SamplingParams
from storygen.tokenizers import CharTokenizer
from tests.conftest import CHARACTERS, random_model
from tests.engine import oracle

LETTERS = CharTokenizer(CHARACTERS)
MODEL = random_model(LETTERS.vocab_size, block_size=32)


def sequence(prompt="The night was dark.", **params):
    params = {"seed": 1, "max_new_tokens": 20, "top_k": 0, **params}
    return Sequence("letters", prompt, SamplingParams(**params))


def runner(model=MODEL, tokenizer=LETTERS, slots=8):
    return Runner("letters", model, tokenizer, slots)


def expected(made):
    return oracle.passage(MODEL, LETTERS, made.prompt, made.params)


@torch.inference_mode()
def run(runner, requests, arrivals=None, departures=None):
    """What came of each request; arrivals and departures are step numbers by index."""
    arrivals, departures = arrivals or {}, departures or {}
    results = [[] for _ in requests]
    over = set()
    for step in range(2000):
        over |= {i for i in departures if departures[i] <= step}
        if len(over) == len(requests):
            return results
        here = [i for i in range(len(requests)) if arrivals.get(i, 0) <= step and i not in over]
        for request, value, final in runner.step([requests[i] for i in here]):
            results[requests.index(request)].append(value)
            if final:
                over.add(requests.index(request))
    raise AssertionError("not over after 2000 steps")


def text_of(segments):
    return "".join(segment.text for segment in segments)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.0},
        {"top_k": 5, "temperature": 1.3},
        {"top_p": 0.8},
        {"min_p": 0.1, "top_k": 20},
        {"repetition_penalty": 1.5},
        {"temperature": 0.0, "repetition_penalty": 1.3},
        {"stop": ("e", "th")},
    ],
    ids=str,
)
def test_a_passage_far_beyond_the_context_equals_the_oracles(params):
    made = sequence(max_new_tokens=80, **params)
    [segments] = run(runner(), [made])
    assert text_of(segments) == expected(made)


@pytest.mark.parametrize("n_prompt", [1, 2, 31, 32, 33, 40, 41, 700])
def test_prompts_of_any_length_equal_the_oracle(n_prompt):
    made = sequence(prompt="It was so dark. " * 50)
    made.prompt = made.prompt[:n_prompt]
    [segments] = run(runner(), [made])
    assert text_of(segments) == expected(made)


@pytest.mark.parametrize("seed", range(4))
def test_passages_among_others_that_come_and_go_equal_the_oracle(seed):
    chance = random.Random(seed)
    prompts = ["The night was so dark. " * 3, "A", "Who? he said", "It was he, who ran home"]
    requests = [
        sequence(
            chance.choice(prompts),
            seed=n,
            max_new_tokens=chance.randint(1, 60),
            top_k=chance.choice([0, 5]),
            temperature=chance.choice([0.0, 0.7, 1.2]),
        )
        for n in range(12)
    ]
    arrivals = {i: chance.randint(0, 8 * i) for i in range(len(requests))}
    departures = {i: arrivals[i] + chance.randint(0, 40) for i in range(0, len(requests), 3)}
    results = run(runner(slots=12), requests, arrivals, departures)
    for i, (made, segments) in enumerate(zip(requests, results, strict=True)):
        if i in departures:
            assert expected(made).startswith(text_of(segments))
        else:
            assert text_of(segments) == expected(made)


@torch.inference_mode()
def test_a_request_that_is_gone_has_lost_its_row_at_the_next_step():
    here, requests = runner(slots=2), [sequence(seed=n) for n in range(3)]
    here.step(requests[:2])
    here.step(requests[:2])
    assert here.rows == requests[:2]
    here.step(requests[1:])
    assert here.rows == requests[1:]


@torch.inference_mode()
def test_only_one_new_prompt_is_read_in_a_step():
    here, requests = runner(), [sequence(seed=n) for n in range(3)]
    assert [len(here.step(requests)) for _ in range(4)] == [1, 2, 3, 3]


@torch.inference_mode()
def test_a_job_and_passages_share_the_steps():
    here, made = runner(), sequence()
    job = score_job("letters", LETTERS.encode("It was a dark and stormy night" * 4))
    outcomes = [here.step([made, job]) for _ in range(5)]
    assert all(isinstance(outcome[-1].value, Segment) for outcome in outcomes)
    assert not any(outcome.request is job for step in outcomes for outcome in step)
    [_, (answer,)] = run(here, [made, job])
    assert len(answer) == 120


def test_a_prompt_that_cannot_be_spelt_fails_alone():
    good, bad = sequence(), sequence("Œuvres")
    texts, [error] = run(runner(slots=2), [good, bad])
    assert text_of(texts) == expected(good)
    assert isinstance(error, PromptError)
    assert "'Œ'" in str(error)


def test_a_job_that_fails_fails_alone():
    def fail(model, tokenizer):
        yield
        raise ZeroDivisionError("by hand")

    good = sequence()
    texts, [error] = run(runner(), [good, Job("letters", fail)])
    assert text_of(texts) == expected(good)
    assert isinstance(error, EngineError)
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_a_request_whose_logits_are_no_numbers_fails_alone_and_leaves_a_clean_slot():
    model = random_model(LETTERS.vocab_size, block_size=32, tied=False, output_bias=True)
    [z] = LETTERS.encode("z")
    model.wte.weight[z], model.lm_head.bias[z] = torch.nan, -1e4  # who reads z is lost
    here = runner(model, slots=2)
    bad, good = sequence("a z in the middle of it"), sequence("abc", max_new_tokens=8)
    [error], texts = run(here, [bad, good])
    assert isinstance(error, EngineError)
    assert "no number" in str(error)
    assert text_of(texts) == oracle.passage(model, LETTERS, good.prompt, good.params)
    # The slot of z is the shorter of two rows: attention runs over what was left in it.
    again = [sequence("ab", max_new_tokens=6), sequence("abcdefghijklmn", max_new_tokens=6)]
    for made, texts in zip(again, run(here, again), strict=True):
        assert text_of(texts) == oracle.passage(model, LETTERS, made.prompt, made.params)


def test_ids_that_spell_nothing_are_never_chosen():
    padded = random_model(LETTERS.vocab_size + 10, block_size=32, output_bias=True)
    padded.lm_head.bias[LETTERS.vocab_size :] = 100.0
    [segments] = run(runner(padded), [sequence()])
    assert segments[-1].finish_reason == "length"
    assert len(text_of(segments)) == 20


def test_a_failing_prefill_takes_its_row_with_it(monkeypatch):
    here = runner(slots=2)
    good, bad = sequence(), sequence("a long prompt")
    hidden = MODEL.hidden

    def refuse(idx, cache=None):
        if idx.shape == (1, len(bad.prompt) - 1):
            raise MemoryError("by hand")
        return hidden(idx, cache)

    monkeypatch.setattr(MODEL, "hidden", refuse)
    texts, [error] = run(here, [good, bad])
    monkeypatch.undo()
    assert isinstance(error, EngineError)
    assert isinstance(error.__cause__, MemoryError)
    assert text_of(texts) == expected(good)
