"""Attention in blocks of rows against the library's."""

import pytest
import torch
from torch.nn import functional as F

from storygen.train.attention import blocked_attention


@pytest.mark.parametrize("T", [2, 127, 128, 300])
def test_it_and_its_gradients_equal_the_library_s(T):
    generator = torch.Generator().manual_seed(T)
    q, k, v = (torch.randn(2, 3, T, 8, generator=generator).double() for _ in range(3))
    upstream = torch.randn(2, 3, T, 8, generator=generator).double()
    found = []
    for attention in (blocked_attention, F.scaled_dot_product_attention):
        inputs = [t.clone().requires_grad_() for t in (q, k, v)]
        out = attention(*inputs, is_causal=True)
        out.backward(upstream)
        found.append((out.detach(), *(t.grad for t in inputs)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_dropout_leaves_out_weights_and_keeps_their_mean():
    torch.manual_seed(0)
    q, k = torch.zeros(1, 1, 64, 4), torch.zeros(1, 1, 64, 4)
    v = torch.eye(64)[None, None]  # so that the output is the weights
    weights = torch.stack([blocked_attention(q, k, v, dropout_p=0.25)[0, 0] for _ in range(200)])
    uniform = torch.ones(64, 64).tril() / torch.arange(1, 65)[:, None]
    assert (weights == 0)[:, uniform > 0].float().mean() == pytest.approx(0.25, abs=0.01)
    torch.testing.assert_close(weights.mean(0), uniform, rtol=0, atol=0.15)
