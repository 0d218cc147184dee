"""What travels arrives as it was, or is refused; a genre is cut out of its base."""

import filecmp
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storygen.corpora.prepare import Work, prepare
from storygen.errors import TrainError
from storygen.tokenizers import CharTokenizer
from storygen.train.data import load_corpus
from storygen.train.travel import main, pack, part, unpack

TEXT = "once upon a time there was an owl.\n"


@settings(max_examples=30)
@given(st.lists(st.binary(max_size=300), max_size=4), st.integers(500, 20_000), st.booleans())
def test_folders_arrive_as_they_were(tmp_path_factory, contents, piece, compress):
    here = tmp_path_factory.mktemp("travel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        (here / "data/sub").mkdir(parents=True)
        for n, content in enumerate(contents):
            (here / "data/sub" / f"{n}.bin").write_bytes(content)
        n = pack([(here / "data").relative_to(here)], here / "parcel", piece, compress)
        pieces = sorted(path for path in (here / "parcel").iterdir() if path.name != "SHA256SUMS")
        assert len(pieces) == n
        assert all(path.stat().st_size == piece for path in pieces[:-1])
        unpack(here / "parcel", here / "there")
    same = filecmp.dircmp(here / "data/sub", here / "there/data/sub")
    assert [*same.left_only, *same.right_only, *same.diff_files] == []
    assert len(same.same_files) == len(contents)


def test_tokens_take_less_room(corpus_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(corpus_dir.parent)
    pack([corpus_dir.relative_to(corpus_dir.parent)], tmp_path / "parcel")
    travels = sum(path.stat().st_size for path in (tmp_path / "parcel").iterdir())
    assert travels < sum(path.stat().st_size for path in corpus_dir.iterdir()) / 2


@pytest.mark.parametrize("harm", ["lost", "changed", "cut"])
def test_a_piece_that_is_not_what_it_was_is_named(tmp_path, monkeypatch, harm, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_bytes(bytes(range(256)) * 20)
    assert main(["pack", "data", "--out", "parcel", "--piece", "1000", "--plain"]) == 0
    piece = tmp_path / "parcel/001"
    content = piece.read_bytes()
    piece.write_bytes({"changed": b"x" + content[1:], "cut": content[:-1]}.get(harm, b""))
    if harm == "lost":
        piece.unlink()
    assert main(["unpack", "parcel", "--out", "there"]) == 1
    assert "parcel/001 is missing or damaged: bring it once more." in capsys.readouterr().err
    assert not (tmp_path / "there").exists()


def test_what_is_no_parcel_or_no_folder_is_said(tmp_path):
    with pytest.raises(TrainError, match="holds no pieces"):
        unpack(tmp_path, tmp_path / "there")
    with pytest.raises(TrainError, match=r"none does not exist: nothing was packed"):
        pack([tmp_path / "none"], tmp_path / "parcel")


@pytest.fixture
def base(tmp_path):
    """A corpus of two folders, each with a work held out."""
    texts = {f"{genre}/{n}.txt": f"{genre} {n}. {TEXT}" * 9 for genre in "ab" for n in range(12)}
    works = [Work(name, text) for name, text in sorted(texts.items())]
    prepare("base", works, CharTokenizer.from_text("".join(texts.values())), tmp_path / "base")
    return tmp_path / "base"


def test_a_genre_of_a_base_is_its_works_and_nothing_else(base, tmp_path):
    assert part(base, "b", tmp_path / "b") == 12
    found = load_corpus(tmp_path / "b", 16)
    whole = load_corpus(base, 16)
    for side in ("train", "val"):
        ids = getattr(found, side)
        works = [work for work in found.meta["works"] if work["split"] == side]
        text = found.tokenizer.decode(np.asarray(ids).tolist())
        assert len(ids) == sum(work["tokens"] for work in works) == found.meta[f"{side}_tokens"]
        assert text in whole.tokenizer.decode(np.asarray(getattr(whole, side)).tolist())
        assert all(work["name"].startswith("b/") for work in works)
        assert "a 1" not in text
        assert text.count("b ") == 9 * len(works)


def test_a_genre_that_is_not_there_is_said(base, tmp_path):
    with pytest.raises(TrainError, match=r"no works of 'c' on both sides. Folders: a, b\."):
        part(base, "c", tmp_path / "c")
    meta = json.loads((base / "meta.json").read_text())
    meta["works"][0]["tokens"] += 1
    (base / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(TrainError, match="describes other token files"):
        part(base, "a", tmp_path / "a")
