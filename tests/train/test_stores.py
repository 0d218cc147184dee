"""A run on a store that fails or goes away: what was saved stays, and training goes on."""

import errno
import os
import sys
from contextlib import contextmanager

import pytest
import torch

from storygen.errors import TrainError
from storygen.train.checkpoint import read_checkpoint, write_checkpoint
from storygen.train.metrics import METRICS, MetricsFile, read_metrics
from storygen.train.trainer import Trainer

CALLS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir")


class Store:
    """Whatever Python asks of a folder may fail: the calls of a range, counted from the start of
    a `with failing(...)`."""

    def __init__(self):
        self.folder, self.fails, self.calls = None, range(0), 0
        sys.addaudithook(self.hook)  # for good: hooks cannot be taken back

    def hook(self, event, arguments):
        if self.folder is None or event not in CALLS:
            return
        if str(arguments[0]).startswith(self.folder):
            self.calls += 1
            if self.calls in self.fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(arguments[0]))

    @contextmanager
    def failing(self, folder, calls):
        """Fail these calls under the folder, the first being number 1."""
        self.folder, self.fails, self.calls = str(folder), calls, 0
        try:
            yield
        finally:
            self.folder = None


@pytest.fixture(scope="module")
def store():
    return Store()


def tensors(step):
    return {"model.weight": torch.full((64,), float(step))}


def checkpoint(run, step):
    write_checkpoint(run, step, tensors(step), {"step": step})


def test_a_store_that_fails_in_any_call_costs_no_checkpoint_that_was_there(store, tmp_path):
    (tmp_path / "counted").mkdir()
    for step in (1, 2):
        checkpoint(tmp_path / "counted", step)
    with store.failing(tmp_path / "counted", range(0)):
        checkpoint(tmp_path / "counted", 3)
    count = store.calls
    assert count > 10
    told = 0
    for first in range(1, count + 1):
        for last in (first, 10 * count):  # that call alone, and all from there on
            run = tmp_path / f"{first}-{last}"
            run.mkdir()
            for step in (1, 2):
                checkpoint(run, step)
            said = ""
            with store.failing(run, range(first, last + 1)):
                try:
                    checkpoint(run, 3)
                except TrainError as error:
                    said = str(error)
            told += bool(said)
            found = read_checkpoint(run)
            step = found[1]["step"]
            assert step == 3 or (step == 2 and "step-0000003 could not be written" in said)
            assert torch.equal(found[0]["model.weight"], tensors(step)["model.weight"])
            assert found[2] == []
            checkpoint(run, 4)
            assert read_checkpoint(run)[1]["step"] == 4
            assert len(list(run.iterdir())) == 2
    assert told > count  # most of them


def test_metrics_that_the_store_did_not_take_come_with_the_next(store, tmp_path):
    metrics = MetricsFile(tmp_path)
    metrics.append({"step": 1})
    with store.failing(tmp_path, range(1, 99)):
        metrics.append({"step": 2})
        metrics.append({"step": 3})
    assert [m["step"] for m in read_metrics(tmp_path)] == [1]
    metrics.append({"step": 4})
    assert [m["step"] for m in read_metrics(tmp_path)] == [1, 2, 3, 4]


def test_training_goes_on_while_its_store_is_away(config, corpus, tmp_path, store):
    often = config.model_copy(update={"checkpoint_minutes": 1e-9})
    Trainer(often, corpus, tmp_path / "undisturbed").run()
    run, told = tmp_path / "run", []
    trainer = Trainer(often, corpus, run, on_trouble=told.append)

    def on_step(progress):
        if progress.step == 4:
            run.rename(tmp_path / "unmounted")
        if progress.step == 9:
            assert not run.exists()  # nothing is written to where the store is mounted
            (tmp_path / "unmounted").rename(run)

    trainer.on_step = on_step
    assert trainer.run()
    assert len(told) == 5
    assert "step-0000004 could not be written" in told[0]
    assert [m["step"] for m in read_metrics(run)] == list(range(1, 13))
    whole, through = (read_checkpoint(tmp_path / name)[0] for name in ("undisturbed", "run"))
    assert all(torch.equal(whole[name], through[name]) for name in whole)


def test_a_store_that_stays_away_ends_the_run_with_its_last_checkpoint(config, corpus, tmp_path):
    run = tmp_path / "run"
    trainer = Trainer(config.model_copy(update={"checkpoint_minutes": 1e-9}), corpus, run)

    def on_step(progress):
        if progress.step == 7:
            run.rename(tmp_path / "unmounted")

    trainer.on_step = on_step
    with pytest.raises(
        TrainError, match=r"step-0000012 could not be written .* kept, and --resume"
    ):
        trainer.run()
    (tmp_path / "unmounted").rename(run)
    again = Trainer(config, corpus, run)
    assert again.resume()
    assert again.step == 6
    assert again.run()
    Trainer(config, corpus, tmp_path / "unbroken").run()
    ours, theirs = (read_checkpoint(tmp_path / name)[0] for name in ("run", "unbroken"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_that_cannot_be_made_is_a_sentence(config, corpus, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TrainError, match=r"file/run cannot be made .* Choose another --out"):
        Trainer(config, corpus, tmp_path / "file" / "run")


def test_a_line_written_twice_counts_once(tmp_path):
    lines = '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.5}\n{"step": 2, "loss": 2.0}\n'
    (tmp_path / METRICS).write_text(lines)
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]
