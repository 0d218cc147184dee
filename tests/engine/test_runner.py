import random

import pytest
import torch

from storygen.decode.eager import EagerDecoder
from storygen.decode.graphs import GraphDecoder
from storygen.decode.native import NativeDecoder
from storygen.decode.scripted import ScriptedDecoder
from storygen.engine.interface import Segment
from storygen.engine.jobs import Job, score_job
from storygen.engine.runner import Runner
from storygen.engine.sequence import Sequence
from storygen.engine.words import next_words_job
from storygen.errors import EngineError, PromptError
from storygen.params import SamplingParams
from storygen.sampling import sample
from storygen.tokenizers import CharTokenizer
from tests.conftest import CHARACTERS, random_model
from tests.engine import oracle

LETTERS = CharTokenizer(CHARACTERS)
MODEL = random_model(LETTERS.vocab_size, block_size=32)
OF_TORCH = {"eager": EagerDecoder, "scripted": ScriptedDecoder, "graphs": GraphDecoder}


def sequence(prompt="The night was dark.", **params):
    params = {"seed": 1, "max_new_tokens": 20, "top_k": 0, **params}
    return Sequence("letters", prompt, SamplingParams(**params))


@pytest.fixture(params=["native", "eager", "scripted", "graphs"])
def runner(request, library):
    def make(model=MODEL, tokenizer=LETTERS, slots=8):
        if request.param != "native":
            return Runner("letters", OF_TORCH[request.param](model, slots), tokenizer)
        weights = model.state_dict()
        decoder = NativeDecoder(library, model.config, weights, "fp32", slots, 1)
        return Runner("letters", decoder, tokenizer)

    return make


def expected(made):
    return oracle.passage(MODEL, LETTERS, made.prompt, made.params)


def ended(made):
    return oracle.ended(MODEL, LETTERS, made.prompt, made.params)


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
        {"frequency_penalty": 0.7, "presence_penalty": 0.3},
        {"dry_multiplier": 2.0, "dry_allowed_length": 1, "temperature": 0.6},
        {"dry_multiplier": 1.0, "frequency_penalty": 0.2, "temperature": 0.0},
        {"end_at_sentence": True, "max_new_tokens": 70},
        {"temperature": 0.0, "max_new_tokens": 400},
        {"temperature": 0.0, "loop_guard": False},
        {"banned": tuple("aeiou")},
        {"banned": ("s",), "stop": ("e", "th"), "temperature": 1.5},
    ],
    ids=str,
)
def test_a_passage_far_beyond_the_context_equals_the_oracles(runner, params):
    made = sequence(**{"max_new_tokens": 80, **params})
    [segments] = run(runner(), [made])
    assert (text_of(segments), segments[-1].finish_reason) == ended(made)


@pytest.mark.parametrize("n_prompt", [1, 2, 31, 32, 33, 40, 41, 700])
def test_prompts_of_any_length_equal_the_oracle(runner, n_prompt):
    made = sequence(prompt="It was so dark. " * 50)
    made.prompt = made.prompt[:n_prompt]
    [segments] = run(runner(), [made])
    assert text_of(segments) == expected(made)


@pytest.mark.parametrize("seed", range(4))
def test_passages_among_others_that_come_and_go_equal_the_oracle(runner, seed):
    chance = random.Random(seed)
    prompts = ["The night was so dark. " * 3, "A", "Who? he said", "It was he, who ran home"]
    requests = [
        sequence(
            chance.choice(prompts),
            seed=n,
            max_new_tokens=chance.randint(1, 60),
            top_k=chance.choice([0, 5]),
            temperature=chance.choice([0.0, 0.7, 1.2]),
            banned=chance.choice([(), tuple("aeiostk"), ("s t", "a", "i m", "x")]),
            dry_multiplier=chance.choice([0.0, 0.0, 1.0]),
            end_at_sentence=chance.choice([False, True]),
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
def test_a_request_that_is_gone_has_lost_its_row_at_the_next_step(runner):
    here, requests = runner(slots=2), [sequence(seed=n) for n in range(3)]
    here.step(requests[:2])
    here.step(requests[:2])
    assert here.sequences == requests[:2]
    here.step(requests[1:])
    assert here.sequences == requests[1:]


@torch.inference_mode()
def test_a_job_and_passages_share_the_steps(runner):
    here, made = runner(), sequence()
    job = score_job("letters", LETTERS.encode("It was a dark and stormy night" * 4))
    outcomes = [here.step([made, job]) for _ in range(5)]
    assert all(isinstance(outcome[-1].value, Segment) for outcome in outcomes)
    assert not any(outcome.request is job for step in outcomes for outcome in step)
    [_, (answer,)] = run(here, [made, job])
    assert len(answer) == 120


def test_next_words_and_passages_do_not_disturb_each_other(runner):
    made = [sequence(seed=n, max_new_tokens=60) for n in range(3)]
    prompts = ("It was", "A dark")
    alone = [run(runner(), [next_words_job("letters", prompt, 5)])[0] for prompt in prompts]
    jobs = [next_words_job("letters", prompt, 5) for prompt in prompts]
    results = run(runner(slots=5), [*made, *jobs], arrivals={3: 5, 4: 9})
    for one, segments in zip(made, results[:3], strict=True):
        assert text_of(segments) == expected(one)
    for [words], [answer] in zip(alone, results[3:], strict=True):
        assert [word.text for word in words] == [word.text for word in answer]


def test_a_prompt_that_cannot_be_spelt_fails_alone(runner):
    good, bad = sequence(), sequence("Œuvres")
    texts, [error] = run(runner(slots=2), [good, bad])
    assert text_of(texts) == expected(good)
    assert isinstance(error, PromptError)
    assert "'Œ'" in str(error)


def test_a_job_that_fails_fails_alone(runner):
    def fail(decoder, slots, tokenizer):
        yield
        raise ZeroDivisionError("by hand")

    good = sequence()
    texts, [error] = run(runner(), [good, Job("letters", fail)])
    assert text_of(texts) == expected(good)
    assert isinstance(error, EngineError)
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_a_request_whose_logits_are_no_numbers_fails_alone_and_leaves_a_clean_slot(runner):
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


def test_ids_that_spell_nothing_are_never_chosen(runner):
    padded = random_model(LETTERS.vocab_size + 10, block_size=32, output_bias=True)
    padded.lm_head.bias[LETTERS.vocab_size :] = 100.0
    [segments] = run(runner(padded), [sequence()])
    assert segments[-1].finish_reason == "length"
    assert len(text_of(segments)) == 20


def test_a_prompt_that_cannot_be_read_fails_alone(runner, monkeypatch):
    here = runner(slots=2)
    good, bad = sequence(), sequence("a long prompt")
    logits = here.decoder.logits

    def refuse(rows, out):
        if len(rows) == len(bad.prompt) - 1:
            raise MemoryError("by hand")
        return logits(rows, out)

    monkeypatch.setattr(here.decoder, "logits", refuse)
    texts, [error] = run(here, [good, bad])
    assert isinstance(error, EngineError)
    assert isinstance(error.__cause__, MemoryError)
    assert text_of(texts) == expected(good)


# What the slots remember


def watch(here, monkeypatch):
    """The rows that a runner computes: how many in each step."""
    counts = []
    for name in ("logits", "step"):
        compute = getattr(here.decoder, name)

        def count(rows, *rest, compute=compute):
            counts.append(len(rows))
            return compute(rows, *rest)

        monkeypatch.setattr(here.decoder, name, count)
    if isinstance(here.decoder, EagerDecoder):  # whose step() calls its logits()
        here.decoder.step = lambda rows, out, choices, n: sample(
            torch.tensor(here.decoder.logits(rows, out)[:, :n]), choices
        )
    return counts


@pytest.fixture
def counted(runner, monkeypatch):
    """A runner, and the rows it computes."""
    here = runner()
    return here, watch(here, monkeypatch)


def test_going_on_reads_nothing_again(counted):
    here, counts = counted
    first = sequence(max_new_tokens=5)
    [segments] = run(here, [first])
    counts.clear()
    more = sequence(first.prompt + text_of(segments), max_new_tokens=1)
    assert text_of(run(here, [more])[0]) == expected(more)
    assert counts == [1]


def test_another_try_reads_only_its_last_token_again(counted):
    here, counts = counted
    run(here, [sequence(seed=1, max_new_tokens=5)])
    counts.clear()
    again = sequence(seed=2, max_new_tokens=1)
    assert text_of(run(here, [again])[0]) == expected(again)
    assert counts == [1]


def test_versions_of_one_prompt_read_it_once(counted):
    here, counts = counted
    versions = [sequence(seed=n, max_new_tokens=4) for n in range(3)]
    for made, segments in zip(versions, run(here, versions), strict=True):
        assert text_of(segments) == expected(made)
    assert sum(counts) == len(versions[0].prompt) - 1 + 3 * 4


def test_a_long_prompt_is_read_in_pieces_between_the_words_of_others(counted):
    here, counts = counted
    here.decoder.max_rows = 8
    writing, long = sequence("A", max_new_tokens=12), sequence("It was so dark, he said " * 2)
    texts = run(here, [writing, long], arrivals={1: 2})
    for made, segments in zip([writing, long], texts, strict=True):
        assert text_of(segments) == expected(made)
    assert counts[:8] == [1, 1, 8, 1, 8, 1, 8, 1]


def test_a_prompt_of_gpt2s_whole_context_keeps_nobody_waiting_for_more_than_a_piece(
    runner, monkeypatch
):
    """As it is served: 64 of 1,024 tokens at most are read between two words of somebody else."""
    here = runner(random_model(LETTERS.vocab_size, block_size=1024))
    counts = watch(here, monkeypatch)
    writing = sequence("A", max_new_tokens=30, loop_guard=False)
    long = sequence(("It was so dark, he said. " * 41)[:1020], max_new_tokens=1)
    run(here, [writing, long], arrivals={1: 2})
    pieces = [n for n, rows in enumerate(counts) if rows > 2]
    assert [counts[n] for n in pieces] == [64] * 15 + [59]  # and the last token, with a word
    assert all(counts[n + 1] <= 2 for n in pieces)


@pytest.mark.parametrize("seed", range(3))
def test_stories_that_begin_alike_and_share_few_slots_equal_the_oracle(runner, seed):
    chance, here, text = (
        random.Random(seed),
        runner(slots=3),
        "The night was dark, and she ran home",
    )
    for _ in range(25):
        made = [
            sequence(
                text[: chance.randint(1, len(text))] + chance.choice(["", "?", " so"]),
                seed=chance.randint(0, 3),
                max_new_tokens=chance.randint(1, 12),
            )
            for _ in range(chance.randint(1, 3))
        ]
        for one, segments in zip(made, run(here, made), strict=True):
            assert text_of(segments) == expected(one)
