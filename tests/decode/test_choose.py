import pytest
import torch

from storygen.decode.choose import Arithmetic, choose, open_decoder
from storygen.decode.graphs import GraphDecoder
from storygen.decode.interface import Token
from storygen.errors import EngineError
from storygen.params import Row, SamplingParams
from tests.conftest import random_model

T4, A100 = (7, 5), (8, 0)


@pytest.mark.parametrize(
    ("device", "dtype", "capability", "expected"),
    [
        ("auto", "auto", None, ("cpu", "int8")),
        ("auto", "auto", T4, ("cuda", "fp16")),
        ("auto", "auto", A100, ("cuda", "bf16")),
        ("cuda", "auto", (9, 0), ("cuda", "bf16")),
        ("cpu", "auto", A100, ("cpu", "int8")),
        ("cpu", "int4", None, ("cpu", "int4")),
        ("cpu", "bf16", None, ("cpu", "bf16")),
        ("auto", "fp32", A100, ("cuda", "fp32")),
        ("cuda", "fp16", A100, ("cuda", "fp16")),
    ],
)
def test_the_card_is_taken_when_it_is_there_and_in_its_own_numbers(
    device, dtype, capability, expected
):
    chosen, form = choose(device, dtype, capability)
    assert (chosen, form) == expected


def test_a_card_that_is_not_there_is_said_with_the_way_out():
    with pytest.raises(EngineError, match=r"STORYGEN_DEVICE is cuda.* auto or cpu"):
        choose("cuda", "auto", None)


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_whole_numbers_on_a_card_are_refused_with_the_way_out(dtype):
    with pytest.raises(EngineError, match=rf"{dtype}, which only a CPU .* bf16 or fp16"):
        choose("auto", dtype, A100)


def test_a_card_gets_the_decoder_that_replays_its_steps():
    """Opened as for a card, over weights that are not on one."""
    model = random_model(30, block_size=16)
    decoder = open_decoder(Arithmetic("cuda", "fp32"), model, slots=2, threads=1)
    assert isinstance(decoder, GraphDecoder)
    assert decoder.n_slots == 4
    row = Row(SamplingParams(temperature=0.0), 1, ())
    expected = int(model(torch.tensor([[7]]))[0, -1].argmax())
    assert decoder.step([Token(0, 0, 7)], [0], [row], 30) == [expected]
