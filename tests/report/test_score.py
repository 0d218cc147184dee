"""Bits per byte on excerpts: the sum of score_text, and a price for unknown characters."""

import math

import pytest

from storygen import checkpoints
from storygen.report.score import UNICODE, score_excerpts
from storygen.tokenizers import readable
from storygen.train.evaluate import Score, score_text

TEXTS = ["once upon a time", "there was an owl—and a fox"]


def test_a_model_that_can_spell_everything_has_the_sum_of_its_scores(tiny_model, tiny_tokenizer):
    each = [score_text(tiny_model, tiny_tokenizer, text) for text in TEXTS]
    total = score_excerpts(tiny_model, tiny_tokenizer, TEXTS)
    assert total == each[0] + each[1]
    assert total.bytes == sum(len(text.encode()) for text in TEXTS)


def test_an_unknown_character_costs_its_place_and_its_name(tiny_weights):
    model, letters = checkpoints.load(tiny_weights / "letters")
    assert readable(letters, "an ēel ē") == "an el "
    read = score_text(model, letters, "an el ")
    # 2 of 8: one of 9 counts, one of 28 pairs of places, and two of all characters.
    told = math.log(9) + math.log(28) + 2 * math.log(UNICODE)
    found = score_excerpts(model, letters, ["an ēel ē"])
    assert found == Score(8, 10, pytest.approx(read.nats + told))


def test_a_text_of_which_nothing_is_known_has_a_score(tiny_weights):
    model, letters = checkpoints.load(tiny_weights / "letters")
    found = score_excerpts(model, letters, ["ēē"])
    assert found == Score(2, 4, pytest.approx(math.log(3) + 2 * math.log(UNICODE)))
