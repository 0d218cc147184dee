"""decode.c against PyTorch: its numbers, whatever the shape, and the same bits in any company."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from storygen.decode.interface import Token
from storygen.decode.native import NativeDecoder
from storygen.decode.pack import FORMATS, pack, unpack
from storygen.decode.weights import form_of
from storygen.model import GPT, GPTConfig
from storygen.model.gpt import CausalSelfAttention
from storygen.params import Row, SamplingParams
from storygen.sampling import sample
from tests.conftest import random_model

# Largest difference of all logits together, as a share of them. Rounding twice the same number, of
# which one is off in the seventh place, may give neighbours, and a deep network makes more of that.
TOLERANCE = {"fp32": 1e-5, "bf16": 0.02, "int8": 0.08, "int4": 0.08}


def rounded(model, form):
    """The network that decode.c computes, by PyTorch: the weights, what the matrices are given, and
    keys and values are rounded as it rounds them."""
    same = GPT(model.config).eval().requires_grad_(False)
    same.load_state_dict(model.state_dict())
    for name, weight in same.named_parameters():
        if weight.dim() == 2 and name != "wpe.weight":
            weight.copy_(torch.from_numpy(unpack(pack(weight, form_of(name, form)))))
    for module in same.modules():
        if isinstance(module, torch.nn.Linear) and form != "fp32":
            few = form == "bf16"
            module.register_forward_pre_hook(
                lambda _, inputs, few=few: (
                    inputs[0].bfloat16().float() if few else in_8_bits(*inputs)
                )
            )
        if isinstance(module, CausalSelfAttention) and form != "fp32":
            module.attend = attend_in_bf16
    return same


def in_8_bits(x):
    """Each 64 of the last dimension rounded to 127ths of the largest."""
    groups = F.pad(x, (0, -x.shape[-1] % 64)).unflatten(-1, (-1, 64))
    most = groups.abs().amax(-1, keepdim=True)
    inverse = torch.where(most > 0, 127 / most, 0)
    return ((groups * inverse).round() * (most / 127)).flatten(-2)[..., : x.shape[-1]]


def attend_in_bf16(q, k, v, **options):
    return F.scaled_dot_product_attention(q, k.bfloat16().float(), v.bfloat16().float(), **options)


def decoder(library, model, form, n_slots=3, n_threads=1):
    return NativeDecoder(library, model.config, model.state_dict(), form, n_slots, n_threads)


def tokens(ids, slot=0, start=0):
    return [Token(slot, start + n, int(i)) for n, i in enumerate(ids)]


shapes = st.builds(
    lambda heads, head, **sizes: GPTConfig(n_head=heads, n_embd=heads * head, **sizes),
    heads=st.integers(1, 5),
    head=st.integers(1, 40),
    n_layer=st.integers(1, 3),
    n_inner=st.none() | st.integers(1, 150),
    vocab_size=st.integers(2, 90),
    block_size=st.integers(1, 70),
    activation=st.sampled_from(["gelu_new", "gelu", "relu"]),
    tied=st.booleans(),
    output_bias=st.booleans(),
)


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=40)
@given(config=shapes, seed=st.integers(0, 99), n_threads=st.integers(1, 3), cut=st.integers(1, 64))
def test_logits_are_those_of_the_network(library, form, config, seed, n_threads, cut):
    torch.manual_seed(seed)
    model = GPT(config).init_weights().eval().requires_grad_(False)
    for weight in model.parameters():
        weight.mul_(2).add_(torch.randn_like(weight) * 0.1)
    ids = torch.randint(config.vocab_size, (config.block_size,))
    expected = rounded(model, form)(ids[None])[0]
    here = decoder(library, model, form, n_threads=n_threads)
    for slot in range(3):  # as pieces of any size
        rows, found = tokens(ids, slot), []
        for start in range(0, len(rows), cut):
            piece = rows[start : start + cut]
            found.append(torch.tensor(here.logits(piece, range(len(piece)))))
        error = (torch.cat(found) - expected).norm() / expected.norm()
        assert error <= TOLERANCE[form]
    here.close()


@pytest.fixture(scope="module")
def model():
    return random_model(100, block_size=64, n_embd=96, n_head=2)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_row_is_the_same_to_the_bit_in_any_company(library, model, form, n_threads):
    here = decoder(library, model, form, n_slots=20, n_threads=n_threads)
    ids = torch.randint(100, (20, 40), generator=torch.Generator().manual_seed(1)).tolist()
    alone = [[here.logits([row], [0])[0].copy() for row in tokens(story)] for story in ids]
    for n_rows in (1, 2, 3, 5, 7, 16, 20):  # stories side by side
        for position in range(40):
            rows = [Token(s, position, ids[s][position]) for s in range(n_rows)]
            found = here.logits(rows, range(n_rows))
            assert all(np.array_equal(found[s], alone[s][position]) for s in range(n_rows))
    for size in (2, 6, 13, 40):  # and one story, read in pieces
        for start in range(0, 40, size):
            rows = tokens(ids[0][start : start + size], start=start)
            found = here.logits(rows, range(len(rows)))
            assert all(np.array_equal(found[n], alone[0][start + n]) for n in range(len(rows)))
    here.close()


@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_a_copied_slot_goes_on_as_the_first(library, model, form):
    here = decoder(library, model, form)
    ids = list(range(50))
    here.logits(tokens(ids[:30]), [])
    here.logits(tokens(reversed(ids), slot=2), [])
    here.copy(0, 2, 21)
    expected = here.logits(tokens(ids[21:50], start=21), range(29)).copy()
    assert np.array_equal(here.logits(tokens(ids[21:50], slot=2, start=21), range(29)), expected)
    here.close()


def test_what_comes_later_in_a_slot_is_not_seen(library, model):
    here = decoder(library, model, "int8")
    before = here.logits(tokens([5, 6, 7]), [2]).copy()
    here.logits(tokens([5, 6, 7, *range(50)]), [])
    assert np.array_equal(here.logits(tokens([5, 6, 7]), [2]), before)
    here.close()


# Drawing


class Fixed:
    """A model whose logits are the bias of its head, whatever it reads."""

    def __init__(self, library, logits):
        config = GPTConfig(
            vocab_size=len(logits),
            block_size=8,
            n_layer=1,
            n_head=1,
            n_embd=16,
            tied=False,
            output_bias=True,
        )
        model = GPT(config).init_weights().requires_grad_(False)
        model.lm_head.weight.zero_()
        model.lm_head.bias.copy_(torch.as_tensor(logits))
        self.decoder = NativeDecoder(library, config, model.state_dict(), "fp32", 1, 1)

    def draw(self, row, n_tokens=None):
        n_tokens = n_tokens or self.decoder.config.vocab_size
        return self.decoder.step([Token(0, 0, 0)], [0], [row], n_tokens)[0]


settings_of_a_draw = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.1, 0.8, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 2, 5, 40, 100_000]),
    top_p=st.sampled_from([0.01, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 2.0]),
    seed=st.integers(0, 2**63 - 1),
)
logits_of_a_draw = st.lists(
    st.sampled_from([-30.0, -1.0, 0.0, 0.5, 0.75, 3.0]) | st.floats(-20, 20, width=32),
    min_size=1,
    max_size=70,
)


def some_adjustments(n_tokens):
    """By token; the last one is never forbidden."""
    return st.dictionaries(
        st.integers(0, n_tokens - 1),
        st.sampled_from([-math.inf, -3.0, -0.25, 0.5]) | st.floats(-9, 9, width=32),
        max_size=6,
    ).filter(lambda found: found.get(n_tokens - 1, 0.0) > -math.inf)


@settings(max_examples=300)
@given(logits_of_a_draw, settings_of_a_draw, st.integers(0, 5000), st.data())
def test_the_token_is_the_one_that_sampling_draws(library, logits, params, position, data):
    n_tokens = data.draw(st.integers(1, len(logits)))
    context = data.draw(st.lists(st.integers(0, n_tokens - 1), max_size=9))
    adjustments = data.draw(some_adjustments(n_tokens))
    row = Row(params, position, context, tuple(adjustments.items()))
    expected = sample(torch.tensor([logits])[:, :n_tokens], [row])
    fixed = Fixed(library, logits)
    found = fixed.draw(row, n_tokens)
    fixed.decoder.close()
    if params.temperature == 0:  # of equals, sampling may take any
        penalised = torch.tensor(logits).double()
        for token in set(context) if params.repetition_penalty != 1 else ():
            by = params.repetition_penalty
            penalised[token] *= by if penalised[token] <= 0 else 1 / by
        for token, added in adjustments.items():
            penalised[token] += added
        assert penalised[found] == pytest.approx(float(penalised[expected[0]]), abs=1e-5)
    else:
        assert [found] == expected


def test_many_draws_over_a_large_vocabulary_are_those_of_sampling(library):
    logits = torch.randn(5000, generator=torch.Generator().manual_seed(3)) * 3
    fixed = Fixed(library, logits)
    for seed in range(150):
        for params in (
            SamplingParams(seed=seed),
            SamplingParams(seed=seed, top_k=0),
            SamplingParams(seed=seed, top_k=0, top_p=0.9),
            SamplingParams(seed=seed, top_k=0, top_p=0.95, temperature=2.0),
            SamplingParams(seed=seed, top_k=0, min_p=0.02),
            SamplingParams(seed=seed, top_k=700, min_p=0.02, repetition_penalty=1.2),
        ):
            for adjustments in ((), [(n, -0.01 * n) for n in range(0, 5000, 3)]):
                row = Row(params, 10 + seed, range(0, 5000, 7), adjustments)
                assert [fixed.draw(row)] == sample(logits[None], [row])


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_no_number_draws_nothing(library, poison):
    fixed = Fixed(library, [0.0, poison, 1.0])
    assert fixed.draw(Row(SamplingParams(seed=1), 0, ())) is None
    assert fixed.draw(Row(SamplingParams(seed=1), 0, ()), n_tokens=1) == 0  # a padded vocabulary
