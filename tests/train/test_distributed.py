"""Two processes that torchrun starts train as one does: the same losses, the same weights."""

import json
import os
import socket
import subprocess
import sys

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from storygen.errors import TrainError
from storygen.train.config import TrainConfig
from storygen.train.distributed import Group
from storygen.train.metrics import read_metrics
from storygen.train.trainer import Trainer

from .conftest import RECIPE

PROGRAM = """
import json, pathlib, sys
import torch
from storygen.train.config import TrainConfig
from storygen.train.data import load_corpus
from storygen.train.distributed import join
from storygen.train.trainer import Trainer

torch.set_num_threads(1)
recipe, corpus, run, stops = sys.argv[1:]
config = TrainConfig.model_validate(json.loads(recipe))
group = join()
trainer = Trainer(config, load_corpus(pathlib.Path(corpus), 16), pathlib.Path(run), group)
if int(stops):  # some steps, a checkpoint, more steps that are lost, and on in a new trainer
    trainer.model.train()
    for step in range(1, int(stops) + 3):
        trainer._report(*trainer._timed_step())
        if step == int(stops):
            trainer.save()
    trainer = Trainer(config, load_corpus(pathlib.Path(corpus), 16), pathlib.Path(run), group)
    assert trainer.resume()
trainer.run()
group.leave()
"""


def recipe(**changes):
    exact = {"dropout": 0.0, "dtype": "fp32", "batch_size": 4}
    return {k: v for k, v in RECIPE.items() if k != "prompts"} | exact | changes


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def torchrun(content, corpus_dir, run, stops=0):
    """Run PROGRAM twice, as `torchrun --nproc-per-node 2` does, without its launcher's seconds."""
    port = free_port()
    command = [sys.executable, "-c", PROGRAM, json.dumps(content), str(corpus_dir), str(run)]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [*command, str(stops)],
            env=os.environ | common | {"RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    errors = [process.communicate(timeout=600)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors


def losses(run):
    return [(m["step"], m["loss"], m.get("val_loss", 0.0)) for m in read_metrics(run)]


def test_two_processes_give_the_curve_of_one(corpus, corpus_dir, tmp_path):
    torchrun(recipe(), corpus_dir, tmp_path / "two")
    alone = Trainer(TrainConfig.model_validate(recipe()), corpus, tmp_path / "one")
    alone.run()
    for two, one in zip(losses(tmp_path / "two"), losses(tmp_path / "one"), strict=True):
        assert two == pytest.approx(one, rel=1e-4)
    theirs, ours = (
        load_file(tmp_path / name / "step-0000012" / "state.safetensors") for name in ("two", "one")
    )
    for name in (n for n in ours if n.startswith("model.")):
        assert_close(theirs[name], ours[name], rtol=1e-3, atol=1e-4)


def test_two_processes_resume_with_their_own_random_numbers(corpus_dir, tmp_path):
    content = recipe(dropout=0.3)
    torchrun(content, corpus_dir, tmp_path / "whole")
    torchrun(content, corpus_dir, tmp_path / "cut", stops=5)
    whole, cut = ({m[0]: m[1] for m in losses(tmp_path / n)} for n in ("whole", "cut"))
    assert cut == whole


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(TrainError, match="A batch of 4 does not divide among 3 processes"):
        Group("cpu", rank=0, size=3).share(4)
    assert [Group("cpu", rank, 2).share(6) for rank in (0, 1)] == [slice(0, 3), slice(3, 6)]
