"""Static shapes against the network and the plain draw; on a card the same as graphs."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from storygen.decode.draw import NO_NUMBER, UNSURE, Choices, Kind, draw
from storygen.decode.eager import EagerDecoder
from storygen.decode.graphs import GraphDecoder
from storygen.decode.interface import Token
from storygen.model import GPT, GPTConfig
from storygen.params import Row, SamplingParams
from storygen.sampling import sample
from tests.conftest import random_model

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(
            not torch.cuda.is_available(), reason="no CUDA card: graphs are not recorded here"
        ),
    ),
]
on_each_device = pytest.mark.parametrize("device", DEVICES)
GREEDY = SamplingParams(temperature=0.0)


def tokens(ids, slot=0, start=0):
    return [Token(slot, start + n, int(i)) for n, i in enumerate(ids)]


def choices(n, params=GREEDY, position=0):
    return [Row(params, position, ()) for _ in range(n)]


def stories(n, length, vocab_size):
    chance = torch.Generator().manual_seed(n)
    return torch.randint(vocab_size, (n, length), generator=chance).tolist()


# The network

shapes = st.builds(
    lambda heads, head, **sizes: GPTConfig(n_head=heads, n_embd=heads * head, **sizes),
    heads=st.integers(1, 3),
    head=st.integers(1, 20),
    n_layer=st.integers(1, 2),
    n_inner=st.none() | st.integers(1, 50),
    vocab_size=st.integers(2, 60),
    block_size=st.integers(1, 40),
    activation=st.sampled_from(["gelu_new", "gelu", "relu"]),
    tied=st.booleans(),
    output_bias=st.booleans(),
)


@settings(max_examples=25)
@given(config=shapes, n_slots=st.integers(1, 5), read=st.integers(0, 39))
def test_the_logits_of_each_step_are_the_networks(config, n_slots, read):
    torch.manual_seed(0)
    model = GPT(config).init_weights().eval().requires_grad_(False)
    for weight in model.parameters():
        weight.mul_(2).add_(torch.randn_like(weight) * 0.1)
    here = GraphDecoder(model, n_slots)
    ids = stories(n_slots, config.block_size, config.vocab_size)
    read = min(read, config.block_size - 1)
    for slot in range(n_slots):
        if read:
            here.logits(tokens(ids[slot][:read], slot), [])
    for position in range(read, config.block_size):
        rows = [Token(slot, position, ids[slot][position]) for slot in range(n_slots)]
        here.step(rows, range(n_slots), choices(n_slots), config.vocab_size)
    expected = model(torch.tensor(ids))[:, -1]
    torch.testing.assert_close(here.scores[here._places], expected, rtol=1e-4, atol=1e-4)


@on_each_device
def test_stories_at_different_places_share_a_step(device):
    """Of 300 positions, so that the spans of 128, 256 and all are used, filled up to 4 rows."""
    model = random_model(50, block_size=300).to(device)
    here, ids = GraphDecoder(model, 4), stories(3, 300, 50)
    for slot, length in ((2, 20), (0, 126), (1, 280)):
        here.logits(tokens(ids[slot][:length], slot), [])
    at = {0: 126, 1: 280, 2: 20}
    for turn in range(15):
        rows = [Token(slot, at[slot] + turn, ids[slot][at[slot] + turn]) for slot in (1, 2, 0)]
        drawn = here.step(rows, range(3), choices(3), 50)
        for row, token in zip(rows, drawn, strict=True):
            seen = torch.tensor([ids[row.slot][: row.position + 1]], device=device)
            assert token == int(model(seen)[0, -1].argmax())


@on_each_device
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_in_any_company_but_for_rounding(device, dtype):
    model = random_model(64, block_size=64).to(device, dtype)
    ids = stories(5, 40, 64)

    def last(company):
        here = GraphDecoder(model, 8)
        for position in range(40):
            rows = [Token(slot, position, ids[slot][position]) for slot in company]
            here.step(rows, range(len(rows)), choices(len(rows)), 64)
        return here.scores[here._places[0]].clone()

    alone = last([0])
    for company in ([0, 1], [3, 0, 2], [4, 3, 2, 1, 0]):
        error = (last(company) - alone).norm() / alone.norm()
        assert error < (1e-5 if dtype is torch.float32 else 0.05)


@on_each_device
def test_what_a_slot_forgot_does_no_harm_even_if_it_was_no_number(device):
    model = random_model(30, block_size=32).to(device)
    here, ids = GraphDecoder(model, 2), stories(2, 32, 30)
    here.logits(tokens(ids[0]), [])
    here._cache.k[:, here._places[0], :, 5:] = math.nan
    here._cache.v[:, here._places[0], :, 5:] = math.nan
    here.logits(tokens(ids[1][:9], slot=1), [])
    rows = [Token(0, 5, ids[0][5]), Token(1, 9, ids[1][9])]
    drawn = here.step(rows, range(2), choices(2), 30)
    for row, token in zip(rows, drawn, strict=True):
        seen = torch.tensor([ids[row.slot][: row.position + 1]], device=device)
        assert token == int(model(seen)[0, -1].argmax())


@on_each_device
def test_the_last_place_of_the_context_is_used(device):
    model = random_model(30, block_size=16).to(device)
    here, ids = GraphDecoder(model, 3), stories(1, 16, 30)
    here.logits(tokens(ids[0][:15]), [])
    drawn = here.step([Token(0, 15, ids[0][15])], [0], choices(1), 30)
    assert drawn == [int(model(torch.tensor(ids, device=device))[0, -1].argmax())]


@on_each_device
def test_a_network_that_computes_no_numbers_says_so_for_its_row_alone(device):
    model = random_model(30, block_size=16).to(device)
    here = GraphDecoder(model, 2)
    model.wpe.weight[3] = math.nan
    here.logits(tokens([1, 2, 3]), [])
    rows = [Token(0, 3, 7), Token(1, 0, 7)]
    broken, sound = here.step(rows, [0, 1], choices(2), 30)
    assert broken is None
    assert sound == int(model(torch.tensor([[7]], device=device))[0, -1].argmax())


@on_each_device
def test_warming_up_changes_no_story(device):
    model = random_model(30, block_size=200).to(device)
    plain, warmed = GraphDecoder(model, 4), GraphDecoder(model, 4)
    ids = stories(2, 200, 30)
    for here in (plain, warmed):
        for slot in range(2):
            here.logits(tokens(ids[slot][:150], slot), [])
    warmed.warm(rows=3, n_tokens=30)
    assert {key[0] for key in warmed._recorded} == {1, 2, 4}
    params = SamplingParams(seed=3)
    for position in range(150, 190):
        rows = [Token(slot, position, ids[slot][position]) for slot in range(2)]
        settings = choices(2, params, position)
        drawn = [here.step(rows, range(2), settings, 30) for here in (plain, warmed)]
        assert drawn[0] == drawn[1]


# The draw

row_settings = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_k=st.sampled_from([0, 0, 1, 5, 50, 126, 127, 128, 200, 999]),
    top_p=st.sampled_from([1.0, 1.0, 0.9, 0.3, 1e-9]),
    min_p=st.sampled_from([0.0, 0.0, 0.05, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3]),
    seed=st.integers(0, 2**63 - 1),
)


class Told(torch.nn.Module):
    """A head whose logits are what it is told, whatever it sees."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return self.logits[: len(x)]


def telling(logits):
    """A network with that head, one slot for each row and as much context."""
    config = GPTConfig(logits.shape[1], len(logits), n_layer=1, n_head=1, n_embd=1, tied=False)
    model = GPT(config).init_weights().requires_grad_(False)
    model.lm_head = Told(logits)
    return model


@settings(max_examples=100)
@given(
    st.lists(row_settings, min_size=1, max_size=5),
    st.sampled_from([3, 60, 300]),
    st.integers(0, 999),
    st.integers(0, 10**6),
    st.booleans(),
)
def test_tokens_are_those_of_the_plain_draw(params, vocab, seed, position, adjusts):
    chance = random.Random(seed)
    logits = torch.randn(len(params), vocab, generator=torch.Generator().manual_seed(seed)) * 4
    n_tokens = chance.choice([vocab, vocab - 1])
    rows = [
        Row(
            one,
            position + n,
            chance.choices(range(n_tokens), k=chance.randint(1, len(params))),
            [
                (token, chance.choice([-math.inf, -1.5, 2.0]))
                for token in chance.sample(range(n_tokens), chance.randint(0, n_tokens - 1))
            ]
            if adjusts and chance.random() < 0.7
            else (),
        )
        for n, one in enumerate(params)
    ]
    here = GraphDecoder(telling(logits), len(params))
    given_rows = [Token(n, 0, 0) for n in range(len(params))]
    found = here.step(given_rows, range(len(rows)), rows, n_tokens)
    assert found == sample(logits[:, :n_tokens], rows)


@pytest.mark.parametrize("tied", [127, 128, 129, 300])
def test_equal_logits_share_one_fate_however_many_they_are(tied):
    """Top-k of 5 among logits of which so many share the largest: all of them stay."""
    logits = torch.zeros(1, 300)
    logits[:, tied:] = -3.0
    here, drawn = GraphDecoder(telling(logits), 1), set()
    for seed in range(200):
        row = Row(SamplingParams(temperature=1.0, top_k=5, seed=seed), 0, ())
        [token] = here.step([Token(0, 0, 0)], [0], [row], 300)
        assert [token] == sample(logits, [row])
        drawn.add(token)
    assert max(drawn) < tied
    assert len(drawn) > tied / 3


def test_what_cannot_be_decided_by_the_width_is_said():
    column = torch.ones(1, dtype=torch.float64)
    of = Choices(
        temperature=column,
        top_p=column,
        min_p=0 * column,
        penalty=column,
        seed=column.long(),
        position=column.long(),
        top_k=2 * column.long(),
        context=torch.zeros(1, 0, dtype=torch.long),
        ids=torch.zeros(1, 0, dtype=torch.long),
        added=torch.zeros(1, 0, dtype=torch.float64),
    )
    flat, broken = torch.zeros(1, 9), torch.full((1, 9), math.nan)
    assert draw(flat, of, Kind(9, width=4)).tolist() == [UNSURE]
    assert draw(flat, of, Kind(9, width=9)).tolist() != [UNSURE]
    assert draw(broken, of, Kind(9, width=4)).tolist() == [NO_NUMBER]
    assert draw(flat, of._replace(temperature=0 * column), Kind(9, width=4)).tolist() == [0]


def test_more_adjustments_than_there_is_room_for_are_drawn_the_plain_way():
    model = random_model(300, block_size=8)
    rows = [Row(SamplingParams(seed=1), 1, (), [(token, -math.inf) for token in range(1, 300)])]
    assert GraphDecoder(model, 1).step([Token(0, 0, 5)], [0], rows, 300) == [0]
    assert EagerDecoder(model, 1).step([Token(0, 0, 5)], [0], rows, 300) == [0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card to compare with")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_a_card_computes_the_cpus_logits(dtype, tolerance):
    model = random_model(500, block_size=128, n_layer=4, n_embd=128, n_head=4)
    ids = stories(1, 100, 500)
    expected = model(torch.tensor(ids))[0, -1]
    here = GraphDecoder(model.to("cuda", getattr(torch, dtype)), 4)
    here.logits(tokens(ids[0][:99]), [])
    here.step([Token(0, 99, ids[0][99])], [0], choices(1), 500)
    error = (here.scores[0].cpu() - expected).norm() / expected.norm()
    assert error < tolerance
