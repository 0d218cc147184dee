"""The held-out score of a prepared split: all of it, or evenly spaced stretches."""

import numpy as np
import pytest

from storygen.train import evaluate
from storygen.train.evaluate import Score, score_tokens

A, B, C = 4, 5, 6


@pytest.mark.parametrize(
    ("limit", "scored"),
    [
        (None, [[A] * 10, [B] * 3, [C] * 4]),
        (20, [[A] * 10, [B] * 3, [C] * 4]),  # all there is, ends included
        (10, [[A] * 4, [A] * 2, [C] * 3]),  # every second stretch of four, an end among them
        (5, [[A] * 4, [C] * 3]),  # every fourth
    ],
)
def test_a_long_split_is_scored_in_evenly_spaced_stretches(
    tiny_model, tiny_tokenizer, monkeypatch, limit, scored
):
    monkeypatch.setattr(evaluate, "STRETCH", 4)
    end, seen = tiny_tokenizer.eot_id, []

    def noted(model, ids, size, eot_id):
        seen.append(ids)
        return Score(len(ids), size, 0.0)

    monkeypatch.setattr(evaluate, "_score", noted)
    split = np.array([*[A] * 10, end, *[B] * 3, end, *[C] * 4, end], dtype=np.uint16)
    found = score_tokens(tiny_model, tiny_tokenizer, split, limit)
    assert seen == scored
    assert found.tokens == sum(map(len, scored))
