"""Works are read from every form a writer or a data set has, and keep their side."""

import json

import pytest

from storygen.corpora.works import END_OF_PLOT, read_works, split_stories, stories
from storygen.errors import TrainError
from storygen.tokenizers import END_OF_TEXT

FILMS = [(f"Film {n}", f"Hero {n} loses the map.\n\nHe finds number {n}.") for n in range(200)]


def plots_csv(folder, films=FILMS):
    lines = ["Release Year,Title,Plot"]
    lines += [f'1990,"{title}","{plot}"' for title, plot in films]
    path = folder / "wiki_movie_plots_deduped.csv"
    path.write_text("\r\n".join(lines), encoding="utf-8")
    return path


def plots_jsonl(folder, films=FILMS):
    path = folder / "plots.jsonl"
    lines = [json.dumps({"title": title, "year": 1990, "plot": plot}) for title, plot in films]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("make", [plots_csv, plots_jsonl])
def test_a_plot_follows_the_line_that_will_ask_for_it(tmp_path, make):
    train, val = read_works(make(tmp_path))
    assert (train.held_out, val.held_out) == (False, True)
    told = sorted([*stories(train.text), *stories(val.text)])
    assert told == sorted(
        f"The plot summary of the movie named '{title}' is:\n"
        + plot.replace("\n\n", "\n")
        + f"\n{END_OF_PLOT}\n"
        for title, plot in FILMS
    )
    assert 10 <= len(list(stories(val.text))) <= 30


def test_a_plot_has_its_side_by_its_title_alone(tmp_path):
    held = {
        story.split("'")[1]
        for films in (FILMS, [(t.upper(), "Another plot.") for t, _ in FILMS[::-1]])
        for story in stories(read_works(plots_csv(tmp_path, films))[1].text)
    }
    assert len({title.upper() for title in held}) == len(held) / 2


def test_small_collections_have_both_sides_too():
    for n in range(2, 12):
        train, val = split_stories("x", "", [(str(k), f"Story {k}.") for k in range(n)])
        assert train.text
        assert val.text


def test_stories_of_one_title_stay_together():
    (work,) = split_stories("x", "", [("King Kong", "1933"), ("King  kong", "1976")])
    assert list(stories(work.text)) == ["1933\n", "1976\n"]


def test_office_lines_are_speaker_and_line_without_what_was_cut(tmp_path):
    path = tmp_path / "the-office-lines.csv"
    path.write_text(
        'id,season,episode,scene,line_text,speaker,deleted\n1,1,1,1,"Is it, though?",Ann,False\n'
        "2,1,1,1,No.,Ben,FALSE\n3,1,1,2,Never seen,Ann,TRUE\n4,1,2,1,Next  day.,Ben,False\n"
    )
    told = sorted(story for work in read_works(path) for story in stories(work.text))
    assert told == ["Ann: Is it, though?\nBen: No.\n", "Ben: Next day.\n"]
    path.write_text("speaker,line_text,deleted\nAnn,Hello.,False\nBen,Bye.,False\n")
    (work,) = read_works(path)
    assert (work.held_out, work.text) == (None, "Ann: Hello.\nBen: Bye.\n")


def test_a_folder_may_mix_forms_and_hides_what_is_hidden(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".sources").mkdir()
    (tmp_path / "a.txt").write_text("Plain.\n")
    (tmp_path / "sub" / "b.MD").write_text("## Mark\n\n*down*\n")
    (tmp_path / ".sources" / "c.txt").write_text("Hidden.\n")
    (tmp_path / "cover.jpg").write_bytes(b"\xff")
    works = read_works(tmp_path)
    assert [(w.name, w.text) for w in works] == [
        ("a.txt", "Plain.\n"),
        ("sub/b.MD", "Mark\n\ndown\n"),
    ]


def test_a_separator_line_ends_a_story_and_a_collection_is_split_between_them(tmp_path):
    path = tmp_path / "collection.txt"
    told = [f"Story {n}.\n" for n in range(100)]
    path.write_text("\n====\n\n".join(told))
    train, val = read_works(path, separator="====")
    assert sorted([*stories(train.text), *stories(val.text)]) == sorted(told)
    assert END_OF_TEXT in val.text


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", "who,what\n1,2\n", "has the columns what, who: Title and Plot are needed"),
        ("a.csv", "Title,Plot\n" + "x" * 200_000 + ",y\n", "is no table at line"),
        ("a.jsonl", '{"title": "T", "plot": 5}\n', "line 1 is no JSON object with title and plot"),
        ("a.jsonl", '{"title": "T", "plot": "P"}\nno\n', "line 2 is no JSON"),
        ("a.epub", "no zip", "is no archive"),
        ("a.txt", " \n", "holds no text"),
        ("a.jsonl", "", "holds no text"),
    ],
)
def test_a_file_of_another_form_is_one_sentence(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(TrainError, match=sentence) as caught:
        read_works(tmp_path)
    assert "\n" not in str(caught.value)


def test_half_a_character_is_read_as_a_character(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"title": "T\\ud800", "plot": "P"}')
    (work,) = read_works(tmp_path)
    assert "T\ufffd" in work.text
