"""The baselines against counting by hand, a slow model, and what a compressor must show."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.report.baselines import ByteModel, tail, xz_bits_per_byte

BYTES = st.text("ab\né", min_size=1, max_size=60).map(str.encode)


def slow_probabilities(training: bytes, text: bytes, order: int) -> list[float]:
    """Witten and Bell's interpolation, one byte and one dictionary at a time."""
    seen: dict[bytes, Counter[int]] = defaultdict(Counter)
    for k in range(order + 1):
        for i in range(k, len(training)):
            seen[training[i - k : i]][training[i]] += 1
    found = []
    for i in range(len(text)):
        p = 1 / 256
        for k in range(min(order, i) + 1):
            after = seen.get(text[i - k : i])
            if after:
                p = (after[text[i]] + len(after) * p) / (after.total() + len(after))
        found.append(p)
    return found


def test_probabilities_worked_by_hand():
    # In "abab" a and b stand twice each, two kinds among four: (2 + 2/256) / 6. After a comes b
    # only, twice: (2 + 1 * p(b)) / 3, and p(b) is p(a).
    p = (2 + 2 / 256) / 6
    assert ByteModel(b"abab", order=1).probabilities(b"ab") == pytest.approx([p, (2 + p) / 3])


@given(training=BYTES, text=BYTES, order=st.integers(0, 6))
def test_probabilities_are_those_of_the_slow_model(training, text, order):
    fast = ByteModel(training, order).probabilities(text)
    assert fast == pytest.approx(slow_probabilities(training, text, order))


@pytest.mark.parametrize("context", ["", "t", "the c", "he ca", "zzzzz", "e \n-é"])
def test_probabilities_of_all_next_bytes_sum_to_one(context):
    model = ByteModel(("the cat saw the other cat—and thus the café. " * 9).encode())
    ends = [model.probabilities(context.encode() + bytes([byte]))[-1] for byte in range(256)]
    assert math.fsum(ends) == pytest.approx(1)
    assert min(ends) > 0


def test_each_excerpt_is_read_from_its_beginning():
    model = ByteModel(b"abcabcabd" * 5)
    one, other = b"abca", b"dabc"
    bits = -np.log2(np.append(model.probabilities(one), model.probabilities(other))).sum()
    assert model.bits_per_byte([one, other]) == pytest.approx(bits / 8)


def test_xz_takes_almost_nothing_for_what_it_has_read_and_the_entropy_of_what_is_new():
    letters = np.random.default_rng(0).choice([*b"abcdefgh"], 60_000).astype(np.uint8).tobytes()
    known, new = letters[:40_000], letters[40_000:]
    assert xz_bits_per_byte(known, [known[5_000:10_000], known[20_000:25_000]]) < 0.1
    assert 3 < xz_bits_per_byte(known, [new]) < 3.7  # one of eight letters is 3 bits


def test_training_text_is_cut_at_its_beginning():
    assert tail(["one", "two", "three"], limit=8) == b"o\n\nthree"
    assert tail(["one", "two"]) == b"one\n\ntwo"
