"""A passage goes on after a mark as if it had never been interrupted."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from storygen.engine import marks
from storygen.engine.interface import Details, Segment
from storygen.engine.jobs import likeliest
from storygen.engine.marks import Mark
from storygen.engine.sequence import Sequence
from storygen.errors import ParamsError, PromptError
from storygen.params import SamplingParams
from storygen.tokenizers import StreamDecoder
from tests.engine.conftest import text_of, write

ALL = SamplingParams(max_new_tokens=30, seed=1)


class Pieces:
    """A vocabulary of whole characters, halves of them, and several at a time."""

    TOKENS = (
        b"a",
        b"b",
        b" ",
        b". ",
        b"ab",
        b" a",
        b"b a",
        b"\xc3",
        b"\xa9",
        b"\xe2\x82",
        b"\xacb",
    )
    tokens_per_word = 4
    plain = False
    vocab_size = len(TOKENS) + 1
    eot_id = len(TOKENS)

    def encode(self, text: str) -> list[int]:
        return [0 for _ in text]

    def decode(self, ids: list[int]) -> str:
        return b"".join(self.TOKENS[i] for i in ids).decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        return self.TOKENS[token]


def drawn(made: Sequence, chaos: int) -> int:
    """A token that depends on all before it, and on nothing else."""
    order = list(range(Pieces.vocab_size))
    random.Random(f"{made.ids}{chaos}").shuffle(order)
    forbidden = {token for token, _ in made.adjustments()}
    return next(token for token in order if token not in forbidden)


def written(params: SamplingParams, chaos: int, after: str = "") -> list[Segment]:
    """All segments of a passage, or of the rest of one."""
    made = Sequence("model", "ab", params, (), Details(after=after))
    made.begin(Pieces(), 64)
    segments: list[Segment] = []
    while not segments or segments[-1].finish_reason is None:
        segment = made.take(drawn(made, chaos))
        segments += [segment] if segment else []
    return segments


some = st.text(alphabet="ab .é€", min_size=1, max_size=4)
params = st.builds(
    SamplingParams,
    max_new_tokens=st.integers(1, 60),
    seed=st.just(1),
    stop=st.lists(some, max_size=3),
    banned=st.lists(some.filter(lambda text: bool(text.strip())), max_size=4),
    end_at_sentence=st.booleans(),
    loop_guard=st.booleans(),
)


@given(params, st.integers(0, 10**6))
@example(SamplingParams(max_new_tokens=60, seed=1, banned=("a", "ab", "b")), 5)
@example(SamplingParams(max_new_tokens=60, seed=1, stop=("b a.",), banned=("b", "a")), 7)
def test_a_passage_cut_anywhere_goes_on_as_if_it_had_not_been(params, chaos):
    whole = written(params, chaos)
    tokens = sum(segment.token_count for segment in whole)
    for n in range(1, len(whole)):
        before = whole[:n]
        after = "".join(segment.mark for segment in before)
        rest = written(params, chaos, after)
        assert text_of(before) + text_of(rest) == text_of(whole)
        assert rest[-1].finish_reason == whole[-1].finish_reason
        assert sum(s.token_count for s in [*before, *rest]) == tokens
        # And where that is cut again: marks join.
        if len(rest) > 1:
            again = written(params, chaos, after + rest[0].mark)
            assert text_of([*before, rest[0], *again]) == text_of(whole)


@given(
    st.lists(st.lists(st.integers(0, 2**31), max_size=5), min_size=1, max_size=5),
    st.integers(0, 9),
    st.dictionaries(st.integers(0, 99), st.integers(1, 50), max_size=3),
)
def test_marks_joined_are_one_mark(pieces, hidden, returns):
    last, tokens = len(pieces) - 1, [token for piece in pieces for token in piece]
    texts = [
        marks.written(Mark(p, hidden, returns) if n == last else Mark(p))
        for n, p in enumerate(pieces)
    ]
    assert marks.read("".join(texts)) == Mark(tokens, hidden, returns)


@given(st.text() | st.text(alphabet="AQgB-_=.").map(lambda text: text + "."))
def test_what_is_no_mark_is_a_sentence(after):
    """Whatever a mark says, nothing else than PromptError comes of it, at once or later."""
    params = SamplingParams(max_new_tokens=9, seed=1, banned=("a b", "ab"), stop=("b a",))
    try:
        written(params, 1, after)
    except PromptError:
        pass


@given(st.lists(st.integers(0, 11), max_size=12), st.integers(0, 3))
@example([9, 8, 9], 0)  # ends in half a character, where a phrase would begin in the next one
def test_forged_marks_break_nothing(tokens, hidden):
    params = SamplingParams(max_new_tokens=12, seed=1, banned=("a", "é b"), stop=("b a",))
    try:
        written(params, 1, marks.written(Mark(tokens, hidden)))
    except PromptError:
        pass


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (Mark([0] * 30), "has 30 tokens already"),
        (Mark([99]), "of no passage"),
        (Mark([Pieces.eot_id]), "of no passage"),
        (Mark([0], hidden=1), "of no passage"),
        (Mark([]), "of no passage"),
    ],
)
def test_marks_that_cannot_be_of_the_passage_are_a_sentence(mark, said):
    with pytest.raises(PromptError, match=said):
        written(ALL, 0, marks.written(mark))


# With real models


@pytest.mark.parametrize("model", ["tiny", "letters"])
@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 1.5},
        {"temperature": 1.0, "repetition_penalty": 1.3, "frequency_penalty": 0.5},
        {"temperature": 1.0, "dry_multiplier": 1.0, "stop": ("e",), "end_at_sentence": True},
        {"temperature": 0.0, "banned": ("a", "e", "th")},
    ],
)
async def test_an_engine_goes_on_exactly_there(make_engine, model, asked):
    """The window moves in between: the models read 32 and 64 tokens."""
    one, other = await make_engine(), await make_engine()
    more = {"model": model, "max_new_tokens": 70, "loop_guard": False, **asked}
    plain = await write(one, **more)
    whole = await write(one, details=Details(), **more)
    assert text_of(whole) == text_of(plain)
    for n in range(1, len(whole), 7):
        after = "".join(segment.mark for segment in whole[:n])
        rest = await write(other, details=Details(after=after), **more)
        assert text_of(whole[:n]) + text_of(rest) == text_of(whole)
        assert rest[-1].finish_reason == whole[-1].finish_reason


async def test_going_on_needs_the_seed(engine):
    with pytest.raises(ParamsError, match="seed"):
        await write(engine, seed=None, details=Details(after="AQA."))


# Log-probabilities


@pytest.mark.parametrize("model", ["tiny", "letters"])
async def test_log_probabilities_are_those_of_the_model_itself(engine, model):
    """However a token was drawn; and the passage is the one that it is without them."""
    prompt = "It was a dark night"
    asked = {"model": model, "temperature": 1.2, "top_k": 5, "repetition_penalty": 1.5}
    asked |= {"max_new_tokens": 9, "banned": ("a",), "prompt": prompt}
    plain = text_of(await write(engine, **asked))
    segments = await write(engine, details=Details(logprobs=3), **asked)
    tokens = [token for segment in segments for token in segment.tokens]
    assert [len(segment.tokens) for segment in segments] == [s.token_count for s in segments]
    assert text_of(segments) == plain
    if model == "letters":
        assert "".join(token.text for token in tokens) == plain
        scores = (await engine.score(model, prompt + plain, top=3))[-len(tokens) :]
        for token, score in zip(tokens, scores, strict=True):
            assert token.text == score.text
            assert token.logprob == pytest.approx(score.logprob, abs=1e-4)
            assert [t.text for t in token.top] == [t.text for t in score.top]
    for token in tokens:
        assert len(token.top) == 3
        assert token.top[0].logprob >= token.top[1].logprob >= token.top[2].logprob
        assert token.top[0].logprob >= token.logprob


async def test_scores_and_their_likeliest_equal_the_oracles(engine, tiny_model, tiny_tokenizer):
    text = "It was a dark and stormy"
    ids = tiny_tokenizer.encode(text)
    assert len(ids) < tiny_model.config.block_size
    logprobs = tiny_model(torch.tensor([[tiny_tokenizer.eot_id, *ids]]))[0].log_softmax(-1)
    scores = await engine.score("tiny", text, top=2)
    decoder = StreamDecoder(tiny_tokenizer)
    for token, score, row in zip(ids, scores, logprobs[:-1], strict=True):
        assert score.text == decoder.push(token)
        assert score.logprob == pytest.approx(float(row[token]), abs=1e-4)
        best = row.topk(2)
        assert [t.logprob for t in score.top] == pytest.approx(best.values.tolist(), abs=1e-4)
    after = tiny_model(torch.tensor([ids]))[0, -1].log_softmax(-1)
    drawn = await write(engine, text, temperature=0.0, max_new_tokens=1, details=Details(2))
    [token] = drawn[-1].tokens
    assert [t.logprob for t in token.top] == pytest.approx(after.topk(2).values.tolist(), abs=1e-4)
    assert token.logprob == token.top[0].logprob


@given(
    arrays(np.float32, st.integers(1, 40), elements=st.sampled_from([-1.0, -2.0, -2.5, -math.inf])),
    st.integers(1, 45),
)
def test_the_likeliest_are_the_first_of_all_sorted(logprobs, n):
    everything = sorted(enumerate(logprobs.tolist()), key=lambda pair: -pair[1])  # stable
    assert likeliest(logprobs, n) == everything[:n]


async def test_without_log_probabilities_there_are_no_tokens(engine):
    assert all(not s.tokens for s in await write(engine, details=Details()))
    assert all(not s.mark and not s.tokens for s in await write(engine))
