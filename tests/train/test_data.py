"""Which windows are read, and in which order."""

import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from storygen.errors import TrainError
from storygen.train.data import Shards, Windows, load_corpus, spread_windows
from storygen.train.distributed import Group


def test_targets_are_inputs_one_token_later():
    x, y = Windows(np.arange(100, dtype=np.uint16), 8, 8, seed=0).batch(3, 4)
    assert x.shape == y.shape == (4, 8)
    assert (y == x + 1).all()
    assert (x[:, 1:] == x[:, :-1] + 1).all()


@given(
    n=st.integers(10, 200), block=st.integers(1, 9), stride=st.integers(1, 12), seed=st.integers(0)
)
def test_an_epoch_reads_each_window_once_and_none_beyond_the_end(n, block, stride, seed):
    windows = Windows(np.arange(n, dtype=np.uint16), block, stride, seed)
    x, y = windows.batch(0, windows.per_epoch)
    starts = sorted(x[:, 0].tolist())
    assert np.all(np.diff(starts) == stride)
    assert y.max() <= n - 1
    assert n - (starts[-1] + block + 1) <= 2 * stride  # little is left unread


def test_over_the_epochs_every_token_is_a_target():
    windows = Windows(np.arange(50, dtype=np.uint16), 8, 8, seed=0)
    seen = Counter(windows.batch(0, windows.per_epoch * 30)[1].flatten().tolist())
    assert set(seen) == set(range(1, 50))


def test_a_batch_is_a_function_of_its_number():
    ids = np.arange(500, dtype=np.uint16)
    one, other = Windows(ids, 8, 8, seed=5), Windows(ids, 8, 8, seed=5)
    for number in (0, 1, 40, 7):
        one.batch(number, 4)
    assert (one.batch(30, 4)[0] == other.batch(30, 4)[0]).all()
    assert (one.batch(30, 4)[0] != Windows(ids, 8, 8, seed=6).batch(30, 4)[0]).any()


@given(
    lengths=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    start=st.integers(0, 200),
    length=st.integers(0, 200),
)
def test_shards_are_read_as_one_array(lengths, start, length):
    ids = np.arange(sum(lengths), dtype=np.uint16)
    shards = Shards(np.split(ids, np.cumsum(lengths)[:-1]))
    assert len(shards) == len(ids)
    assert shards[start : start + length].tolist() == ids[start : start + length].tolist()
    assert np.asarray(shards).tolist() == ids.tolist()


def test_a_process_reads_the_rows_that_are_its_own_and_no_others():
    class Counted:
        """An array that remembers what was asked of it."""

        def __init__(self):
            self.read = []

        def __len__(self):
            return 10_000

        def __getitem__(self, where):
            self.read.append(where.start)
            return np.arange(where.start, where.stop, dtype=np.uint16)

    files = [Counted() for _ in range(3)]
    groups = [Group(torch.device("cpu"), rank, 3) for rank in range(3)]
    parts = [
        Windows(file, 8, 8, seed=1).batch(5, 12, group.share(12))
        for file, group in zip(files, groups, strict=True)
    ]
    whole = Windows(Counted(), 8, 8, seed=1).batch(5, 12)
    for n in (0, 1):
        assert torch.equal(torch.cat([part[n] for part in parts]), whole[n])
    assert [len(file.read) for file in files] == [4, 4, 4]
    assert len({start for file in files for start in file.read}) == 12


def test_a_corpus_may_lie_in_several_files(corpus_dir, tmp_path):
    split = tmp_path / "split"
    shutil.copytree(corpus_dir, split)
    data = (split / "train.bin").read_bytes()
    (split / "train.bin").unlink()
    for n, start in enumerate(range(0, len(data), 700)):
        (split / f"train-{n:05d}.bin").write_bytes(data[start : start + 700])
    one, several = load_corpus(corpus_dir, 16).train, load_corpus(split, 16).train
    assert np.array_equal(np.asarray(one), np.asarray(several))
    a, b = (Windows(ids, 16, 16, seed=3).batch(2, 8) for ids in (one, several))
    assert torch.equal(a[0], b[0])
    (split / "train-00001.bin").unlink()
    with pytest.raises(TrainError, match=r"where meta\.json says .*: a part is missing"):
        load_corpus(split, 16)


def test_validation_windows_reach_from_the_first_to_the_last_token():
    ids = np.arange(101, dtype=np.uint16)
    windows = list(spread_windows(ids, 10, 5))
    assert len(windows) == 5
    assert windows[0][0][0, 0] == 0
    assert windows[-1][1][0, -1] == 100


def test_a_corpus_smaller_than_a_window_is_refused(corpus_dir):
    with pytest.raises(TrainError, match=r"val\.bin has .* tokens: more than block_size 1,000"):
        load_corpus(corpus_dir, 1000)


def test_a_folder_that_is_no_corpus_says_how_to_make_one(tmp_path):
    with pytest.raises(TrainError, match=r"python -m storygen\.corpora prepare"):
        load_corpus(tmp_path, 8)
