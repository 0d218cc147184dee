"""The card's benchmark at toy size on the CPU: every part of it runs, and counts what it says."""

import csv

import pytest
import torch

from benchmarks.gpu import TOY, Passages, main, operations, ours
from benchmarks.models import random_model
from storygen.decode.eager import EagerDecoder
from storygen.decode.graphs import GraphDecoder
from storygen.train.config import load_recipe


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_part_runs_at_toy_size(tmp_path, capsys):
    sizes = ["--batches", "1", "2", "--rounds", "2", "--models", "toy", "--steps", "5"]
    train = ["--train", "eager", "fp16"]
    assert main(["--toy", "--device", "cpu", "--out", str(tmp_path), *sizes, *train]) == 0
    agreed = rows(tmp_path / "agree.csv")
    assert [row["dtype"] for row in agreed] == ["float32", "bfloat16", "float16"]
    assert float(agreed[0]["error"]) < 1e-5
    decoded = rows(tmp_path / "decode.csv")
    assert [(row["passages"], row["system"]) for row in decoded] == [
        (n, system) for n in "12" for system in ("graph", "eager", "transformers")
    ]
    for row in decoded:
        share = float(row["tokens_per_second"]) / float(row["bound"])
        assert float(row["of_bound"]) == pytest.approx(share)
    assert [row["how"] for row in rows(tmp_path / "train.csv")] == ["eager", "fp16"]
    for part in ("agree", "decode", "train"):
        assert "\n| --- |" in (tmp_path / f"{part}.md").read_text()


def test_both_decoders_write_the_same_passages():
    model, of = random_model(TOY), Passages(3, 16, 40, TOY.vocab_size)
    assert ours(GraphDecoder(model, 3), of, 1) == ours(EagerDecoder(model, 3), of, 1)


def test_the_operations_of_base_large_are_those_counted_by_hand():
    """12 layers of 768: 85 million weights in blocks, 6.3 million in the head, 1,024 tokens."""
    by_hand = 6 * (12 * 12 * 768 * 768 + 8192 * 768) + 6 * 12 * 768 * 1024
    assert operations(load_recipe("base-large"), 8192) == by_hand


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 1
    assert "no CUDA card here" in capsys.readouterr().err
