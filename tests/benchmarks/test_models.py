import torch

from benchmarks.models import widened
from tests.conftest import random_model


def test_a_widened_network_computes_the_same():
    small = random_model(97, block_size=16)
    large = widened(small, 3, small.config.n_layer + 2)
    assert large.config.n_embd == 3 * small.config.n_embd
    idx = torch.randint(97, (2, 16), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(large(idx), small(idx), atol=1e-5, rtol=1e-4)
