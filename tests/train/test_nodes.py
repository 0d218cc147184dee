"""Two machines that torchrun brings together, here two addresses of one, go on with a run that one
process began, and give the curve that it would have given.

The second has no store: it needs neither the checkpoints nor the metrics of the first.
"""

import json
import os
import signal
import subprocess
import sys

import pytest

from storygen.train.__main__ import main
from storygen.train.metrics import read_metrics

from .conftest import RECIPE
from .test_distributed import free_port, recipe

ADDRESSES = ("127.0.0.1", "127.0.0.2")


@pytest.fixture
def toml(tmp_path):
    """The tiny recipe as a file, its numbers exact."""
    card = "".join(f"{k} = {json.dumps(v)}\n" for k, v in RECIPE["card"].items())
    top = "".join(f"{k} = {json.dumps(v)}\n" for k, v in recipe().items() if k != "card")
    (tmp_path / "tiny.toml").write_text(f"{top}[card]\n{card}")
    return str(tmp_path / "tiny.toml")


def together(commands):
    """Run two commands at the same time; exit codes and what was printed."""
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            env=os.environ | {"OMP_NUM_THREADS": "1"} | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for command, more in commands
    ]
    said = [process.communicate(timeout=600)[0] for process in started]
    return [process.returncode for process in started], said


def curve(run):
    return [(m["step"], m["loss"], m.get("val_loss", 0.0)) for m in read_metrics(run)]


def test_two_nodes_go_on_with_the_run_of_one_process(toml, corpus_dir, tmp_path, monkeypatch):
    def stop_at_5(bar, task, progress):
        if progress.step == 5:
            signal.raise_signal(signal.SIGTERM)

    train = [toml, "--corpus", str(corpus_dir), "--out"]
    assert main([*train, str(tmp_path / "one")]) == 0
    monkeypatch.setattr("storygen.train.__main__._show", stop_at_5)
    assert main([*train, str(tmp_path / "node-0")]) == 0
    port, commands = str(free_port()), []
    for rank, address in enumerate(ADDRESSES):
        launch = ["-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank)]
        launch += ["--master-addr", ADDRESSES[0], "--master-port", port, "--local-addr", address]
        out = [str(tmp_path / f"node-{rank}"), "--resume"]
        commands.append(([*launch, "-m", "storygen.train", *train, *out], {}))
    codes, said = together(commands)
    assert codes == [0, 0], said
    assert (tmp_path / "node-0" / "model" / "model.safetensors").is_file()
    assert not (tmp_path / "node-1").exists()
    for two, one in zip(curve(tmp_path / "node-0"), curve(tmp_path / "one"), strict=True):
        assert two == pytest.approx(one, rel=1e-4)


def test_a_mistake_on_the_first_node_is_a_sentence_on_both(toml, corpus_dir, tmp_path):
    (tmp_path / "node-0").mkdir()
    (tmp_path / "node-0" / "metrics.jsonl").touch()
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(free_port())}
    train = ["-m", "storygen.train", toml, "--corpus", str(corpus_dir), "--out"]
    codes, said = together(
        ([*train, str(tmp_path / f"node-{rank}")], common | {"RANK": str(rank)}) for rank in (0, 1)
    )
    assert codes == [1, 1]
    for text in said:
        assert "node-0 holds an earlier run: add --resume" in text
        assert "Traceback" not in text


def two_processes(toml, corpus_dir, run, second):
    """Train in two processes, in the second of which each loss is this expression, loss(*a) being
    the usual one."""
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": str(free_port())}
    arguments = [toml, "--corpus", str(corpus_dir), "--out", str(run)]
    program = "import os, signal, storygen.train.trainer as t; loss = t.mean_loss\n"
    program += "signals = [signal.SIGTERM]\n"
    program += f"t.mean_loss = lambda *a: {second}\n"
    program += "from storygen.train.__main__ import main; main()"
    first = (["-m", "storygen.train", *arguments], common | {"RANK": "0"})
    return together([first, (["-c", program, *arguments], common | {"RANK": "1"})])


def test_a_process_that_is_gone_ends_the_others_with_a_sentence(toml, corpus_dir, tmp_path):
    codes, said = two_processes(toml, corpus_dir, tmp_path, "os._exit(9)")
    assert codes == [1, 9], said
    assert "Another process of this training has ended" in said[0]
    assert "Traceback" not in said[0]


def test_a_signal_to_one_process_ends_all_with_a_checkpoint(toml, corpus_dir, tmp_path):
    ended = "(signals and signal.raise_signal(signals.pop()), loss(*a))[1]"
    codes, said = two_processes(toml, corpus_dir, tmp_path, ended)
    assert codes == [0, 0], said
    assert "Stopped at step 1. Go on with --resume." in said[0]
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "step-0000001").is_dir()
