"""The scripted step against the network itself, whatever the shape."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from storygen.decode.interface import Token
from storygen.decode.scripted import ScriptedDecoder
from storygen.model import GPT
from tests.decode.test_native import shapes


@settings(max_examples=25)
@given(
    config=shapes,
    seed=st.integers(0, 99),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    begun=st.lists(st.integers(0, 40), min_size=1, max_size=4),
)
@torch.inference_mode()
def test_logits_are_those_of_the_network(config, seed, dtype, begun):
    """Stories of different lengths, read in pieces, go on side by side, a token each."""
    torch.manual_seed(seed)
    model = GPT(config).init_weights().eval().requires_grad_(False)
    for weight in model.parameters():
        weight.mul_(2).add_(torch.randn_like(weight) * 0.1)
    model.to(dtype)
    ids = torch.randint(config.vocab_size, (len(begun), config.block_size))
    lengths = [min(length, config.block_size - 1) for length in begun]
    expected = model(ids).float()
    here = ScriptedDecoder(model, len(begun))
    for slot, length in enumerate(lengths):
        if length:
            here.logits([Token(slot, at, int(ids[slot, at])) for at in range(length)], [])
    left, found, wanted = list(range(len(begun))), [], []
    while left := [slot for slot in left if lengths[slot] < config.block_size]:
        torch.manual_seed(seed + sum(lengths))
        order = [left[i] for i in torch.randperm(len(left))]
        rows = [Token(slot, lengths[slot], int(ids[slot, lengths[slot]])) for slot in order]
        found += torch.tensor(here.logits(rows, range(len(rows))))
        wanted += [expected[row.slot, row.position] for row in rows]
        for slot in left:
            lengths[slot] += 1
    off = (torch.stack(found) - torch.stack(wanted)).norm()
    allowed = 1e-3 if dtype == torch.float32 else 0.1  # norms of two numbers make much of roundings
    assert off <= allowed * torch.stack(wanted).norm() + 1e-6


@pytest.mark.parametrize("back", [0, 3, 9])
def test_a_slot_that_goes_back_forgets_what_came_after(tiny_model, back):
    here = ScriptedDecoder(tiny_model, 2)
    ids = [7 * n % 200 for n in range(12)]
    for at, token in enumerate(ids):
        here.logits([Token(1, at, token)], [])
    again = [torch.tensor(here.logits([Token(1, at, 5)], [0])) for at in range(back, back + 2)]
    expected = tiny_model(torch.tensor([[*ids[:back], 5, 5]]))[0, back:]
    assert torch.allclose(torch.cat(again), expected, rtol=1e-4, atol=1e-4)
