"""What is measured on: held-out text only, the same every time, as much of every work."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.corpora.prepare import prepare
from storygen.errors import TrainError
from storygen.report.held_out import (
    PIECE,
    PROMPT_WORDS,
    Genre,
    excerpts,
    openings,
    read_genres,
    without_parts,
    without_wholes,
)
from storygen.train.travel import part

from .conftest import book


def test_excerpts_and_openings_are_of_held_out_works_and_training_text_is_not(genres):
    for genre in genres:
        held_out = {story for work in genre.works for story in work}
        training = list(genre.training_stories())
        assert held_out
        assert not held_out & set(training)
        assert len(held_out) + len(training) == 6 * len(genre.corpus.meta["works"])
        assert all(text in held_out for text in excerpts(genre, 10_000))
        assert all(any(o.prompt + o.rest in s for s in held_out) for o in openings(genre, 9))


def genre_of(*works: tuple[str, ...]) -> Genre:
    return Genre("made-up", None, works)  # type: ignore[arg-type]  # not asked for


def paragraphs(word: str, count: int) -> str:
    return "\n\n".join(f"{word}{n} " + "and so on " * 30 for n in range(count)).strip()


def test_every_work_has_about_as_many_bytes_however_long_it_is():
    genre = genre_of((paragraphs("a", 400),), (paragraphs("b", 60),))
    size = {"a": 0, "b": 0}
    for text in excerpts(genre, 30_000):
        assert len(text) <= PIECE
        size[text[0]] += len(text.encode())
    assert size["a"] == pytest.approx(15_000, rel=0.2)
    assert size["b"] == pytest.approx(15_000, rel=0.2)


@given(
    stories=st.lists(st.text("ab \né", max_size=50), min_size=1, max_size=5), more=st.integers(1)
)
def test_asking_for_more_than_there_is_gives_each_piece_once(stories, more):
    stories = [text.strip() for text in stories if text.strip()] or ["x"]
    assert excerpts(genre_of(tuple(stories)), 10_000 + more) == stories


def test_openings_are_the_first_words_of_paragraphs_and_their_authors_go_on():
    text = paragraphs("Word", 40)
    found = openings(genre_of((text,), (paragraphs("Other", 40), "Too short.")), 6)
    assert [o.prompt.startswith("Word") for o in found] == [True] * 3 + [False] * 3
    for opening in found:
        assert len(opening.prompt.split()) == PROMPT_WORDS
    assert all(o.prompt + o.rest in text for o in found[:3])
    assert len(set(found)) == 6


def test_the_opening_of_a_film_plot_is_its_title():
    title = "The plot summary of the movie named 'The Man Who Knew a Little Too Much' is:\n"
    plot = "A man comes to a town where nobody knows him, and so he stays for good.\nEND_OF_PLOT"
    (opening,) = set(openings(genre_of((title + plot,)), 3))
    assert (opening.prompt, opening.rest) == (title, plot)


def test_openings_repeat_where_a_work_has_too_few():
    found = openings(genre_of((paragraphs("Word", 2),)), 8)
    assert len(found) == 8
    assert len(set(found)) <= 2


def test_a_genre_without_a_whole_line_is_refused_in_a_sentence():
    with pytest.raises(TrainError, match=r"made-up have no line of more than 12 words"):
        openings(genre_of(("Too short.",)), 3)


def test_a_folder_without_corpora_says_how_to_make_one(tmp_path):
    with pytest.raises(TrainError, match=r"python -m storygen\.corpora prepare"):
        read_genres(tmp_path)


def edit_works(corpus, change):
    meta = json.loads((corpus / "meta.json").read_text(encoding="utf-8"))
    for work in meta["works"]:
        change(work)
    (corpus / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def test_a_work_that_another_genre_trains_on_is_passed_over(copied, tiny_tokenizer):
    tiny = next(g for g in read_genres(copied) if g.name == "tiny")
    works = tiny.corpus.meta["works"]
    (held_out,) = [work["name"] for work in works if work["split"] == "val"]
    everything = [replace(book(hero), name=f"all/{hero}.txt") for hero in ("toad", "newt")]
    prepare("all", everything, tiny_tokenizer, copied / "all")
    train = next(w for w in read_genres(copied)[0].corpus.meta["works"] if w["split"] == "train")
    edit_works(copied / "all", lambda w: w == train and w.update(name=f"all/{held_out}"))
    with pytest.raises(TrainError, match=rf"Every held-out work of tiny is in .*{held_out}"):
        read_genres(copied)
    edit_works(copied / "all", lambda w: w.update(name=f"all/{held_out}"))  # a collection
    assert [genre.passed_over for genre in read_genres(copied)] == [()] * 3


def test_a_base_is_no_genre_and_holds_the_training_text_of_its_parts(tmp_path, tiny_tokenizer):
    heroes = ("king/old", "king/young", "king/dead", "ship/old", "ship/new", "ship/wreck")
    works = [replace(book(hero), name=f"{hero}.txt") for hero in heroes]
    prepare("all", works, tiny_tokenizer, tmp_path / "all")
    for name in ("king", "ship"):
        part(tmp_path / "all", name, tmp_path / name)
    genres = read_genres(tmp_path)
    assert [(genre.name, genre.parts) for genre in genres] == [
        ("all", ("king", "ship")),
        ("king", ()),
        ("ship", ()),
    ]
    assert without_wholes(genres) == genres[1:]
    assert without_parts(genres) == genres[:1]


def test_a_corpus_that_disagrees_with_its_meta_is_refused(copied):
    edit_works(copied / "tiny", lambda work: work.update(tokens=work["tokens"] + 1))
    with pytest.raises(TrainError, match=r"of tiny have other lengths .* prepare the corpus again"):
        read_genres(copied)
