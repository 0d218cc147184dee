"""Cached logits against the uncached forward pass, however rows and calls are divided."""

from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from storygen.model import GPTConfig, KVCache
from tests.conftest import random_model

V, BLOCK = 50, 32
MODEL = random_model(V, BLOCK)


def ids(*shape, seed=0):
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed))


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


@settings(max_examples=40)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=6).filter(lambda n: sum(n) <= BLOCK))
def test_cached_logits_match_uncached_however_tokens_are_divided(lengths):
    idx, cache = ids(1, sum(lengths)), KVCache(MODEL.config)
    pieces = [MODEL(part, cache) for part in idx.split(lengths, dim=1)]
    close(torch.cat(pieces, dim=1), MODEL(idx))


@settings(max_examples=40)
@given(st.lists(st.integers(1, BLOCK - 4), min_size=1, max_size=5))
@example([1, 2])  # rows a step apart were once taken for rows of one length
def test_batched_logits_of_rows_of_any_length_match_each_alone(lengths):
    cache, rows = KVCache(MODEL.config, len(lengths)), []
    for slot, length in enumerate(lengths):
        rows.append(ids(1, length + 4, seed=slot))
        MODEL(rows[-1][:, :length], cache.rows(slot, slot + 1))
    for step in range(4):
        new = torch.cat([row[:, n + step, None] for n, row in zip(lengths, rows, strict=True)])
        logits = MODEL(new, cache)
        for slot, (row, n) in enumerate(zip(rows, lengths, strict=True)):
            close(logits[slot, 0], MODEL(row[:, : n + step + 1])[0, -1])


def test_several_tokens_for_rows_of_different_lengths_match_uncached():
    cache, lengths = KVCache(MODEL.config, 2), (3, 9)
    rows = [ids(1, n + 5, seed=n) for n in lengths]
    for slot, n in enumerate(lengths):
        MODEL(rows[slot][:, :n], cache.rows(slot, slot + 1))
    logits = MODEL(torch.cat([row[:, -5:] for row in rows]), cache)
    for slot, row in enumerate(rows):
        close(logits[slot], MODEL(row)[0, -5:])


def test_a_copied_row_goes_on_as_the_first():
    cache, idx, other = KVCache(MODEL.config, 3), ids(1, 10), ids(1, 3, seed=7)
    MODEL(ids(1, 20, seed=5), cache.rows(0, 1))  # longer: what is left of it must not be seen
    MODEL(idx, cache.rows(2, 3))
    cache.copy(2, 0, 6)
    expected = MODEL(torch.cat([idx[:, :6], other], dim=1))
    close(MODEL(other, cache.rows(0, 1)), expected[:, 6:])


def test_swapped_rows_go_on_where_they_were():
    cache, one, other = KVCache(MODEL.config, 3), ids(1, 10), ids(1, 21, seed=5)
    MODEL(one[:, :9], cache.rows(0, 1))
    MODEL(other[:, :20], cache.rows(2, 3))
    cache.swap(0, 2)
    close(MODEL(one[:, 9:], cache.rows(2, 3))[0, -1], MODEL(one)[0, -1])
    close(MODEL(other[:, 20:], cache.rows(0, 1))[0, -1], MODEL(other)[0, -1])


def test_a_truncated_row_goes_on_from_there():
    cache, idx, other = KVCache(MODEL.config), ids(1, 10), ids(1, 3, seed=7)
    MODEL(idx, cache)
    cache.truncate(0, 6)
    expected = MODEL(torch.cat([idx[:, :6], other], dim=1))
    close(MODEL(other, cache), expected[:, 6:])


def test_what_a_slot_forgets_leaves_nothing_behind():
    cache = KVCache(MODEL.config, 2)
    MODEL(ids(2, 7), cache)
    cache.k[:, 1, :, 3] = torch.nan
    cache.truncate(1, 2)
    assert cache.lengths.tolist() == [7, 2]
    assert cache.k[:, 0, :, 6].all()
    assert cache.k[:, 1, :, 1].all()
    assert not cache.k[:, 1, :, 2:].any()
    assert not cache.v[:, 1, :, 2:].any()


def test_a_full_cache_takes_no_more():
    cache = KVCache(MODEL.config)
    MODEL(ids(1, BLOCK), cache)
    with pytest.raises(AssertionError):
        MODEL(ids(1, 1), cache)


def test_memory_is_taken_where_something_is_written():
    def resident():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))  # kB

    before = resident()
    cache = KVCache(GPTConfig(vocab_size=V, block_size=1024, n_layer=8, n_head=8, n_embd=512), 8)
    assert cache.k.nbytes == cache.v.nbytes == 128 << 20
    assert resident() - before < 16 << 10
    cache.v[:] = 1
    assert resident() - before > 100 << 10
