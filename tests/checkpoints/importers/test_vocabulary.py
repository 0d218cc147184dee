"""Which tokenizer an imported model gets, and what is said where none can be had."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.checkpoints.hf import write_tokenizer
from storygen.checkpoints.importers.network import Asked
from storygen.checkpoints.importers.vocabulary import (
    choose_tokenizer,
    from_ranks,
    read_plain_pickle,
)
from storygen.errors import CheckpointError

CHECKPOINT = "model.pth"


def chosen(tmp_path, vocab_size, **asked):
    return choose_tokenizer(tmp_path / CHECKPOINT, vocab_size, Asked(**asked))


def test_line_ends_of_a_training_text_are_read_as_python_reads_them(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"ab\r\na\r")
    found = chosen(tmp_path, 3, chars=tmp_path / "t.txt")
    assert found.characters == ["\n", "a", "b"]
    assert chosen(tmp_path, 4, chars=tmp_path / "t.txt").characters == ["\n", "\r", "a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        ["b", "a"],
        {"characters": ["b", "a"]},
        {"stoi": {"b": 0, "a": 1}},
        {"b": 0, "a": 1},
        {"0": "b", "1": "a"},
    ],
)
def test_a_list_of_characters_keeps_its_order(tmp_path, content):
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert chosen(tmp_path, 2, chars=tmp_path / "c.json").characters == ["b", "a"]


def test_characters_of_another_text_are_refused(tmp_path):
    (tmp_path / "t.txt").write_text("abc")
    with pytest.raises(CheckpointError, match="has 3 different characters and the model 65"):
        chosen(tmp_path, 65, chars=tmp_path / "t.txt")


def test_a_named_tokenizer_comes_before_those_beside(tmp_path, tiny_tokenizer):
    (tmp_path / "named").mkdir()
    write_tokenizer(tmp_path / "named", tiny_tokenizer)
    (tmp_path / "vocab.json").write_text("not to be read")
    found = chosen(tmp_path, 300, tokenizer=tmp_path / "named")
    assert found.vocab == tiny_tokenizer.vocab


def test_a_tokenizer_with_too_many_tokens_is_refused(tmp_path, tiny_tokenizer):
    write_tokenizer(tmp_path, tiny_tokenizer)
    with pytest.raises(CheckpointError, match=r"has 264 tokens and .* only 263"):
        chosen(tmp_path, 263)


def test_nothing_beside_an_unknown_size_asks_for_it(tmp_path):
    with pytest.raises(CheckpointError, match=r"65 tokens are: add --chars .* or --tokenizer"):
        chosen(tmp_path, 65)


@pytest.mark.parametrize("vocab_size", [50_257, 50_304])
def test_without_a_network_gpt2_needs_its_files(tmp_path, vocab_size):
    def offline():
        raise ConnectionError("no route")

    with pytest.raises(CheckpointError, match=r"could not be fetched .* add --tokenizer"):
        choose_tokenizer(tmp_path / CHECKPOINT, vocab_size, Asked(), gpt2=offline)


def test_merges_come_back_from_tiktokens_ranks(tiny_tokenizer):
    ranks = {tiny_tokenizer.token_bytes(n): n for n in range(tiny_tokenizer.eot_id)}
    found = from_ranks(ranks)
    assert found.merges == tiny_tokenizer.merges
    assert found.vocab == tiny_tokenizer.vocab


@given(st.dictionaries(st.text(max_size=3), st.integers(-(2**40), 2**40)), st.integers(0, 5))
def test_a_plain_pickle_says_what_pickle_says(tmp_path_factory, found, protocol):
    path = tmp_path_factory.mktemp("p") / "meta.pkl"
    value = {"stoi": found, "itos": {v: k for k, v in found.items()}, "again": found}
    path.write_bytes(pickle.dumps(value, max(protocol, 2)))
    assert read_plain_pickle(path) == value


class Bomb:
    def __reduce__(self):
        return print, ("opened",)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"stoi": Bomb()}),
        pickle.dumps([1]),
        pickle.dumps({"stoi": {"a": 1}}),
        pickle.dumps({"stoi": {"a": 0, "b": 0}}),
        pickle.dumps({"stoi": {"abc": 0}}),
        pickle.dumps({"a": 1})[:-1],
        b"\x80\x04r\xff\xff\xff\x7f.",
        b"\x80\x02}" + b"q\x00h\x00" * 9 + b"s.",
        b"",
        b"\x00" * 99,
    ],
)
def test_any_other_pickle_is_a_sentence(tmp_path, content, capsys):
    (tmp_path / "meta.pkl").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"meta\.pkl|single, distinct"):
        chosen(tmp_path, 65)
    assert capsys.readouterr().out == ""
