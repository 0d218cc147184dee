"""A place to import to, and pickles converted without starting a process for each of them.

The conversion itself is tested in test_pickles.py; here it would only be torch being imported again
and again.
"""

import runpy

import pytest
import torch

from storygen.checkpoints.importers import pickles


@pytest.fixture
def in_process(monkeypatch, capsys):
    """Run the child's code here, without its limits."""

    def run(path, target):
        main = runpy.run_path(pickles.unpickle.__file__)["main"]
        main.__globals__["_shut_in"] = lambda *_: None
        try:
            main(str(path), str(target))
        except SystemExit as exit:
            return exit.code, capsys.readouterr().err.splitlines()[-1]
        return 0, ""

    monkeypatch.setattr(pickles, "_run_child", run)


def scramble(model, seed=0):
    """Random numbers in every weight, biases and norms too, so that nothing lost goes unseen."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.4)
    return model.eval()
