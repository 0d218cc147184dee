"""PyTorch in 8 bits: near the numbers it rounds, and the same for a row in any company."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from storygen.decode.choose import Arithmetic, arithmetic, open_decoder
from storygen.decode.interface import Token
from storygen.decode.scripted import ScriptedDecoder
from storygen.decode.whole import ENGINE, WholeLinear, in_whole_numbers, largest_input
from storygen.params import Row, SamplingParams
from tests.conftest import random_model

sizes = st.integers(1, 70)


@settings(max_examples=30, deadline=None)
@given(sizes, sizes, st.integers(1, 20), st.booleans(), st.sampled_from([63, 127]))
@torch.inference_mode()
def test_a_layer_is_off_by_what_its_roundings_allow(n_in, n_out, n_rows, bias, largest):
    torch.manual_seed(n_in + 71 * n_out)
    linear, x = nn.Linear(n_in, n_out, bias=bias), torch.randn(n_rows, n_in)
    weight = linear.weight
    of_weight = weight.abs().amax(1) / 127 / 2  # (n_out,), of each weight at most
    of_x = x.abs().amax(1, keepdim=True) / largest / 2  # (n_rows, 1)
    allowed = (
        of_weight * x.abs().sum(1, keepdim=True)
        + of_x * weight.abs().sum(1)
        + of_x * of_weight * n_in
    )
    layer = WholeLinear(linear)
    layer.largest = largest  # 63 on processors without VNNI
    assert ((layer(x) - linear(x)).abs() <= allowed * 1.001 + 1e-5).all()


@torch.inference_mode()
def test_whole_numbers_come_out_as_they_are():
    linear = nn.Linear(3, 2, bias=False)
    linear.weight.copy_(torch.tensor([[127.0, -3.0, 5.0], [0.0, 0.0, 0.0]]))
    x = torch.tensor([[1.0, largest_input(), -2.0], [0.0, 0.0, 0.0]])
    assert WholeLinear(linear)(x).tolist() == [
        [127.0 - 3 * largest_input() - 10, 0.0],
        [0.0, 0.0],
    ]


@torch.inference_mode()
def test_a_row_is_the_same_to_the_bit_in_any_company():
    torch.manual_seed(0)
    layer, x = WholeLinear(nn.Linear(96, 50)), torch.randn(64, 96)
    alone = torch.cat([layer(row[None]) for row in x])
    for n in (2, 7, 64):
        assert torch.equal(layer(x[:n]), alone[:n])


@torch.inference_mode()
def test_the_largest_products_there_are_come_out_as_they_are():
    """Processors without VNNI add two of them in 16 bits, of which 127 times 255 twice is more."""
    linear = nn.Linear(500, 33, bias=False)
    for sign in (1, -1):
        linear.weight.fill_(127)
        x = torch.full((7, 500), float(largest_input()) * sign)
        assert (WholeLinear(linear)(x) == 127 * 500 * largest_input() * sign).all()


def test_without_a_library_the_model_is_computed_in_8_bits():
    for dtype in ("auto", "int8", "int4"):
        by = arithmetic("cpu", dtype, None, None)
        assert (by.form, by.library) == ("int8", None)
    model = random_model(100, n_embd=64)
    here = open_decoder(by, model, 1, 1)
    assert isinstance(here, ScriptedDecoder)
    if ENGINE in torch.backends.quantized.supported_engines:
        assert isinstance(model.lm_head, WholeLinear)
        assert model.wte.weight.dtype == torch.float32
    row = Row(SamplingParams(seed=1), 1, ())
    assert here.step([Token(0, 0, 5)], [0], [row], 100)[0] in range(100)


def test_where_whole_numbers_are_slow_nothing_is_rounded(monkeypatch):
    monkeypatch.setattr("storygen.decode.whole.ENGINE", "none such")
    model = random_model(100)
    in_whole_numbers(model)
    assert isinstance(model.lm_head, nn.Linear)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=6))
def test_a_story_is_the_same_to_the_bit_in_any_company(lengths):
    def told(slots):
        decoder = open_decoder(Arithmetic("cpu", "int8"), model(), len(lengths), 1)
        for slot in slots:
            rows = [Token(slot, at, (slot + at * at) % 100) for at in range(lengths[slot])]
            decoder.logits(rows, [])
        found = []
        for step in range(3):
            rows = [Token(slot, lengths[slot] + step, 7 * slot + step) for slot in slots]
            found.append(dict(zip(slots, decoder.logits(rows, range(len(rows))), strict=True)))
        return found

    def model():
        return random_model(100, n_embd=48, n_head=3, n_layer=2, block_size=64)

    everybody = told(range(len(lengths)))
    for slot in range(len(lengths)):
        for step, logits in enumerate(told([slot])):
            assert (logits[slot] == everybody[step][slot]).all(), step


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_what_is_no_number_stays_none(poison):
    x = torch.randn(2, 8)
    x[1, 3] = poison
    y = WholeLinear(nn.Linear(8, 4))(x)
    assert y[0].isfinite().all()
    assert not y[1].isfinite().any()
