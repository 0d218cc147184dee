"""Packed matrices against the numbers they were made of."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from storygen.decode.pack import FORMATS, pack, unpack
from storygen.decode.weights import packed
from tests.conftest import random_model

shapes = st.tuples(st.integers(1, 70), st.integers(1, 150))


def matrix(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rounded(weight, form):
    """A matrix as its packed form has it."""
    return torch.from_numpy(unpack(pack(weight, form)))


@settings(max_examples=30)
@given(shapes)
def test_fp32_comes_back_as_it_was(shape):
    assert torch.equal(rounded(matrix(shape), "fp32"), matrix(shape))


@settings(max_examples=30)
@given(shapes)
def test_bf16_comes_back_rounded(shape):
    assert torch.equal(rounded(matrix(shape), "bf16"), matrix(shape).bfloat16().float())


@settings(max_examples=30)
@given(shapes)
def test_int8_is_off_by_half_a_127th_of_the_largest_of_its_64_inputs(shape):
    weight, found = matrix(shape), rounded(matrix(shape), "int8")
    for start in range(0, shape[1], 64):
        group = weight[:, start : start + 64]
        step = group.abs().amax(1, keepdim=True) / 127
        assert ((found[:, start : start + 64] - group).abs() <= step * 0.5001).all()


@settings(max_examples=30)
@given(shapes)
def test_int4_is_no_worse_than_a_scale_by_the_largest_weight(shape):
    weight, found = matrix(shape), rounded(matrix(shape), "int4")
    for start in range(0, shape[1], 32):
        group = weight[:, start : start + 32]
        extreme = group.gather(1, group.abs().argmax(1, keepdim=True))
        scale = (extreme / -8).bfloat16().float()  # q4_0 of llama.cpp, but for the 16 bits
        plain = (group / scale).round().clamp(-8, 7) * scale
        error = (found[:, start : start + 32] - group).square().sum(1)
        assert (error <= (plain - group).square().sum(1) * 1.0001 + 1e-12).all()


@pytest.mark.parametrize("form", FORMATS)
def test_zeros_stay_zeros(form):
    assert not unpack(pack(torch.zeros(20, 70), form)).any()


@pytest.mark.parametrize(
    ("form", "bits"), [("fp32", 32), ("bf16", 16), ("int8", 8.5), ("int4", 4.5)]
)
def test_a_weight_takes_the_bits_that_are_told(form, bits):
    assert pack(torch.zeros(64, 256), form).data.nbytes * 8 == bits * 64 * 256


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="Linux says what memory is")
def test_matrices_lie_in_memory_that_can_have_large_pages():
    """As long as it is the process' own: most systems give none to what could be shared."""
    model = random_model(300, n_embd=128)
    matrices = packed(model.config, model.state_dict(), "int8").values()
    address = min(matrix.data.ctypes.data for matrix in matrices)
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            here = begin <= address < end
            kind = rest[0] if here else ""
        elif here and first == "VmFlags:":
            assert kind == "rw-p"
            assert "hg" in rest
            return
    raise AssertionError("the address is in no mapping")
