"""Preparation of a corpus: whole works held out, stories kept apart, the same every time."""

import hashlib
import json
import os
import subprocess
from dataclasses import asdict, replace

import numpy as np
import pytest

from storygen.checkpoints.hf import read_tokenizer
from storygen.corpora.__main__ import VOCABULARY, main
from storygen.corpora.prepare import prepare, split_by_work, tokenise
from storygen.corpora.registry import works_of
from storygen.corpora.vocabulary import train_bpe
from storygen.corpora.works import Work, read_works, stories
from storygen.errors import TrainError
from storygen.files import sha256
from storygen.tokenizers import CharTokenizer

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
        (lambda d: None, r"holds no \.txt"),
        (lambda d: (d / "a.txt").write_bytes(b"\xff\xfe\x00"), "is not UTF-8"),
    ],
)
def test_an_unusable_folder_is_one_sentence(tmp_path, make, sentence, capsys):
    make(tmp_path)
    with pytest.raises(TrainError, match=sentence):
        read_works(tmp_path)
    assert main(["prepare", "x", "--from", str(tmp_path), "--out", str(tmp_path / "o")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_few_works_of_each_genre_are_held_out_alone_and_beside_others():
    genre = {g: [Work(f"{g}-{n}.txt", "Text. " * 50) for n in range(30)] for g in "ab"}
    alone = {w.name for g in genre for w in split_by_work(genre[g]) if w.held_out}
    both = [replace(w, name=f"{g}/{w.name}") for g in genre for w in genre[g]]
    assert {w.name[2:] for w in split_by_work(both) if w.held_out} == alone


def test_a_side_that_is_decided_stays():
    decided = [Work("p", "a" * 50, False), Work("p", "b" * 5, True)]
    assert split_by_work(decided) == decided


def test_meta_json_has_all_that_makes_two_preparations_the_same(tmp_path):
    removed = prepare("tiny", works(*[50] * 20), TOKENIZER, tmp_path / "c", options={"from": "x"})
    meta = json.loads((tmp_path / "c" / "meta.json").read_text())
    assert meta["options"] == {"from": "x"}
    assert meta["duplicates"] == asdict(removed)
    written = {p.name: sha256(p) for p in (tmp_path / "c").iterdir() if p.name != "meta.json"}
    assert meta["files"] == written
    assert meta["works"][0]["sha256"] == hashlib.sha256(b"Story 0. " * 50).hexdigest()


def test_an_interrupted_preparation_leaves_what_was_there(tmp_path):
    prepare("tiny", works(*[50] * 20), TOKENIZER, tmp_path / "c")
    before = (tmp_path / "c" / "meta.json").read_bytes()

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("other", works(*[60] * 20), TOKENIZER, tmp_path / "c", interrupt)
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert (tmp_path / "c" / "meta.json").read_bytes() == before


def test_what_killed_preparations_left_is_swept_away(tmp_path):
    gone = subprocess.run(["sh", "-c", "echo $$"], capture_output=True, text=True, check=True)
    for name in (f"c.new-{int(gone.stdout)}", f"c.new-{os.getppid()}", "c.new-notes"):
        (tmp_path / name).mkdir()
    prepare("tiny", works(*[50] * 20), TOKENIZER, tmp_path / "c")
    assert {p.name for p in tmp_path.iterdir()} == {"c", f"c.new-{os.getppid()}", "c.new-notes"}


def test_a_text_without_a_second_side_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(TrainError, match="too small to hold a part of it out"):
        prepare("x", [Work("a", "One.")], TOKENIZER, tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_characters_and_the_end_of_each_plot_become_tokens(tmp_path):
    lines = [json.dumps({"title": f"Film {n}", "plot": f"Hero {n}."}) for n in range(60)]
    (tmp_path / "plots.jsonl").write_text("\n".join(lines))
    command = ["prepare", "plots", "--from", str(tmp_path / "plots.jsonl"), "--chars"]
    assert main([*command, "--out", str(tmp_path / "c")]) == 0
    tokenizer = read_tokenizer(tmp_path / "c")
    told = "".join(
        tokenizer.decode(np.fromfile(tmp_path / "c" / f"{side}.bin", np.uint16))
        for side in ("train", "val")
    )
    ends = told.split(tokenizer.characters[tokenizer.eot_id])
    assert ends.pop() == ""
    assert sorted(ends) == sorted(
        f"The plot summary of the movie named 'Film {n}' is:\nHero {n}.\nEND_OF_PLOT\n"
        for n in range(60)
    )


def test_typography_is_plain_for_a_vocabulary_that_does_not_see_to_it():
    tokenizer = CharTokenizer.from_text("'abc\n")
    assert tokenizer.decode(tokenise(Work("a", "a’b"), tokenizer)) == "a'b\n"


def test_a_registered_genre_is_prepared_from_where_it_was_downloaded(tmp_path, capsys):
    folder = tmp_path / "mystery"
    command = ["prepare", "mystery", "--corpora", str(tmp_path), "--out", str(tmp_path / "c")]
    assert main(command) == 1
    assert "python -m storygen.corpora download mystery" in capsys.readouterr().err
    folder.mkdir()
    for n, work in enumerate(works_of("mystery")[:12]):
        (folder / work.file).write_text(f"Case {n}. " * 40)
    (folder / "notes.txt").write_text("Not registered.")
    assert main(command) == 0
    assert "12 of 87 works are in" in capsys.readouterr().out
    meta = json.loads((tmp_path / "c" / "meta.json").read_text())
    assert [w["name"] for w in meta["works"]] == [w.file for w in works_of("mystery")[:12]]


def test_the_list_shows_works_words_and_licences(tmp_path, capsys):
    assert main(["list", "--corpora", str(tmp_path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["story", "1", "3,634", "0", "Public", "domain", "(US)"] in rows
    assert len(rows) == 9


def test_a_download_that_cannot_be_had_says_how_to_go_on(tmp_path, capsys):
    assert main(["download", "tiny-stories", "--corpora", str(tmp_path)]) == 1
    assert "--from" in capsys.readouterr().err
