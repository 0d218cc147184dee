"""GPT against transformers' GPT-2, and the properties that a cache relies on."""

import pytest
import torch

from storygen.model import GPT, GPTConfig
from tests.conftest import random_model


def test_a_token_sees_those_before_it_and_none_after():
    model, idx = random_model(50), torch.randint(50, (1, 12))
    changed = idx.clone()
    changed[0, 7] = (idx[0, 7] + 1) % 50
    same, other = model(idx), model(changed)
    torch.testing.assert_close(same[:, :7], other[:, :7])
    assert (same[:, 7:] - other[:, 7:]).abs().amax(dim=-1).min() > 1e-3


def test_head_of_hidden_is_forward():
    model, idx = random_model(50), torch.randint(50, (2, 9))
    assert torch.equal(model.lm_head(model.hidden(idx)), model(idx))
    assert model.hidden(idx).shape == (2, 9, 32)


def test_all_of_the_context_can_be_read_and_no_more():
    model = random_model(50, block_size=8)
    assert model(torch.zeros(1, 8, dtype=torch.long)).shape == (1, 8, 50)
    with pytest.raises(AssertionError):
        model(torch.zeros(1, 9, dtype=torch.long))


def test_a_tied_head_is_the_embedding_and_counts_once():
    sizes = {"vocab_size": 50, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 4}
    tied, untied = GPT(GPTConfig(**sizes)), GPT(GPTConfig(**sizes, tied=False))
    assert tied.lm_head.weight is tied.wte.weight
    assert untied.n_params - tied.n_params == 50 * 4


def test_residual_projections_start_smaller():
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=50, block_size=8, n_layer=8, n_head=2, n_embd=64))
    model.init_weights()
    assert model.h[0].attn.c_attn.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.h[0].mlp.c_proj.weight.std().item() == pytest.approx(0.005, rel=0.1)
    assert not model.h[0].mlp.c_proj.bias.any()


@pytest.mark.parametrize(
    "wrong",
    [{"vocab_size": 0}, {"n_layer": 1.5}, {"n_head": 3}, {"activation": "swish"}, {"n_embd": True}],
)
def test_a_shape_that_cannot_be_built_is_refused(wrong):
    sizes = {"vocab_size": 50, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 4}
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GPTConfig(**sizes | wrong)
