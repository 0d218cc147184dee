import pytest

from storygen.decode.choose import choose
from storygen.errors import EngineError

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
