"""Which windows are read, and in which order."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.errors import TrainError
from storygen.train.data import Windows, load_corpus, spread_windows


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
