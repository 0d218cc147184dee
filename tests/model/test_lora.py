"""Low-rank changes: nothing at first, as the formula says later."""

import torch

from storygen.model.lora import add_lora, lora_matrices
from tests.conftest import random_model

IDX = torch.arange(24).view(2, 12)


def adapted(rank=3, alpha=6.0):
    model = add_lora(random_model(40), rank, alpha)
    for change in lora_matrices(model).values():
        torch.nn.init.normal_(change.B, std=0.1)
    return model


def test_a_new_adapter_changes_nothing():
    assert torch.equal(add_lora(random_model(40), 2, 4.0)(IDX), random_model(40)(IDX))


def test_every_matrix_of_the_blocks_is_changed_as_the_formula_says():
    model, base = adapted(), random_model(40)
    assert len(lora_matrices(model)) == 8  # 4 of each of 2 blocks
    for name, change in lora_matrices(model).items():
        wanted = base.get_submodule(name).weight + 6.0 / 3 * change.B @ change.A
        torch.testing.assert_close(model.get_submodule(name).weight, wanted)


def test_only_the_changes_are_trained():
    model = adapted()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trained = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == 2 * 3 * sum(
        (32 + 96, 32 + 32, 32 + 128, 128 + 32)  # rank * (in + out), of 2 blocks
    )
    model(IDX).square().mean().backward()
    torch.optim.SGD(trained, lr=1.0).step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {k for k in before if k.endswith((".A", ".B"))}
