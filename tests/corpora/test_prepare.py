"""Preparation of a corpus: whole works held out, stories kept apart, the same every time."""

import json

import numpy as np
import pytest

from storygen.checkpoints.hf import read_tokenizer
from storygen.corpora.__main__ import VOCABULARY, main
from storygen.corpora.prepare import Work, prepare, read_works, split_by_work, stories, tokenise
from storygen.corpora.vocabulary import train_bpe
from storygen.errors import TrainError

TOKENIZER = read_tokenizer(VOCABULARY)


def works(*sizes):
    return [Work(f"book-{n}.txt", f"Story {n}. " * size) for n, size in enumerate(sizes)]


def test_about_a_tenth_is_held_out_in_whole_works():
    split = split_by_work(works(*[100] * 50))
    held = [work for work in split if work.held_out]
    assert 5 <= len(held) <= 7
    assert [(w.name, w.text) for w in split] == [(w.name, w.text) for w in works(*[100] * 50)]


def test_a_work_keeps_its_side_when_others_are_added():
    before = {w.name for w in split_by_work(works(*[100] * 50)) if w.held_out}
    after = {w.name for w in split_by_work(works(*[100] * 60)) if w.held_out}
    assert before <= after


def test_a_huge_work_is_not_held_out_for_lack_of_a_small_one():
    split = split_by_work([Work("huge.txt", "x" * 10_000), *works(*[10] * 40)])
    assert not next(w for w in split if w.name == "huge.txt").held_out


@pytest.mark.parametrize("n", range(2, 11))
def test_of_few_works_one_is_held_out(n):
    split = split_by_work(works(*[100 + n for n in range(n)]))
    assert sum(work.held_out for work in split) == 1


def test_of_a_single_work_the_end_is_held_out():
    train, val = split_by_work([Work("one.txt", "abcdefghij")])
    assert (train.text, train.held_out) == ("abcdefghi", False)
    assert (val.text, val.held_out) == ("j", True)


def test_each_story_ends_with_the_end_of_text_token():
    text = "\nOne.\n\n<|endoftext|>\n\nTwo.\n\n<|endoftext|>\n\n"
    assert list(stories(text)) == ["One.\n", "Two.\n"]
    ids = tokenise(Work("a", text), TOKENIZER)
    expected = [*TOKENIZER.encode("One.\n"), TOKENIZER.eot_id]
    expected += [*TOKENIZER.encode("Two.\n"), TOKENIZER.eot_id]
    assert ids.tolist() == expected


def test_a_prepared_corpus_holds_every_token_once_and_says_so(tmp_path):
    prepare("tiny", works(*[50] * 20), TOKENIZER, tmp_path / "c")
    meta = json.loads((tmp_path / "c" / "meta.json").read_text())
    for split in ("train", "val"):
        ids = np.fromfile(tmp_path / "c" / f"{split}.bin", np.uint16)
        listed = [work for work in meta["works"] if work["split"] == split]
        assert len(ids) == meta[f"{split}_tokens"] == sum(work["tokens"] for work in listed)
        assert (ids == TOKENIZER.eot_id).sum() == len(listed) > 0
    assert read_tokenizer(tmp_path / "c").vocab == TOKENIZER.vocab


def test_preparing_twice_gives_the_same_files(tmp_path):
    for name in ("a", "b"):
        prepare("tiny", works(*[50] * 20), TOKENIZER, tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_vocabulary_learns_frequent_words_whole():
    tokenizer = train_bpe(["the owl and the owl and the cat"] * 9, 256 + 1 + 12)
    assert tokenizer.vocab_size == 269
    assert len(tokenizer.encode(" owl")) == 1
    assert tokenizer.decode(tokenizer.encode("öwl \n😀")) == "öwl \n😀"


def test_a_vocabulary_larger_than_its_text_is_refused():
    with pytest.raises(TrainError, match="not 5,000"):
        train_bpe(["a small text"], 5000)


def test_the_shared_vocabulary_has_8192_tokens_and_knows_book_typography():
    assert TOKENIZER.vocab_size == 8192
    assert TOKENIZER.eot_id is not None
    assert all(len(TOKENIZER.encode(text)) == 1 for text in (" the", "”", "—", " said"))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda d: None, r"holds no \.txt files"),
        (lambda d: (d / "a.txt").write_bytes(b"\xff\xfe\x00"), "is not UTF-8"),
    ],
)
def test_an_unusable_folder_is_one_sentence(tmp_path, make, sentence, capsys):
    make(tmp_path)
    with pytest.raises(TrainError, match=sentence):
        read_works(tmp_path)
    assert main(["prepare", "x", "--from", str(tmp_path), "--out", str(tmp_path / "o")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
