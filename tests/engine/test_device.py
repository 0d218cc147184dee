import pytest
import torch

from storygen.engine.device import choose_device_dtype
from storygen.errors import EngineError

T4, A100 = (7, 5), (8, 0)


@pytest.mark.parametrize(
    ("device", "dtype", "capability", "expected"),
    [
        ("auto", "auto", None, ("cpu", torch.float32)),
        ("auto", "auto", T4, ("cuda", torch.float16)),
        ("auto", "auto", A100, ("cuda", torch.bfloat16)),
        ("cuda", "auto", (9, 0), ("cuda", torch.bfloat16)),
        ("cpu", "auto", A100, ("cpu", torch.float32)),
        ("cpu", "bf16", None, ("cpu", torch.bfloat16)),
        ("auto", "fp32", A100, ("cuda", torch.float32)),
        ("cuda", "fp16", A100, ("cuda", torch.float16)),
    ],
)
def test_the_card_is_taken_when_it_is_there_and_in_its_own_numbers(
    device, dtype, capability, expected
):
    chosen, numbers = choose_device_dtype(device, dtype, capability)
    assert (chosen.type, numbers) == expected


def test_a_card_that_is_not_there_is_said_with_the_way_out():
    with pytest.raises(EngineError, match=r"STORYGEN_DEVICE is cuda.* auto or cpu"):
        choose_device_dtype("cuda", "auto", None)
