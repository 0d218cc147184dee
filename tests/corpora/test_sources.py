"""The text of a registered work is made from its repository's files, whatever their form."""

import hashlib
import json
from dataclasses import replace

import pytest

from storygen.corpora.download import NotThereError
from storygen.corpora.registry import Entry, entries, genres, works_of
from storygen.corpora.sources import can_be_fetched, fetch
from storygen.errors import TrainError
from storygen.tokenizers import END_OF_TEXT

PACKAGE = """<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf"><manifest>
<item id="t" href="text/titlepage.xhtml" media-type="application/xhtml+xml"/>
<item id="1" href="text/chapter-1.xhtml" media-type="application/xhtml+xml"/>
<item id="2" href="text/chapter-2.xhtml" media-type="application/xhtml+xml"/>
</manifest><spine><itemref idref="t"/><itemref idref="1"/><itemref idref="2"/></spine></package>"""


class Folder:
    """A downloader of files that are there already."""

    def __init__(self, root, files):
        self.root, self.asked = root, []
        for name, content in files.items():
            path = root / name.replace("/", "%")
            path.write_text(content, encoding="utf-8")

    def file(self, repository, path):
        self.asked.append(path)
        return self.root / f"{repository}/{path}".replace("/", "%")

    def listing(self, repository):
        prefix = f"{repository}/".replace("/", "%")
        names = [p.name.removeprefix(prefix).replace("%", "/") for p in self.root.glob("*%*")]
        tree = [{"path": name, "type": "blob"} for name in names]
        path = self.root / "listing.json"
        path.write_text(json.dumps({"tree": [*tree, {"path": "level1", "type": "tree"}]}))
        return path


def entry(repository, path=""):
    return Entry("g", "w.txt", "Title", "Author", repository, path, "PD", 1, 1, "0" * 64)


def fetched(tmp_path, entry, files):
    (tmp_path / "files").mkdir()
    folder = Folder(tmp_path / "files", {f"{entry.repository}/{k}": v for k, v in files.items()})
    assert not fetch(entry, folder, tmp_path / "g")
    return (tmp_path / "g" / "w.txt").read_text(encoding="utf-8"), folder


def test_a_standard_ebook_is_its_chapters_in_order(tmp_path):
    files = {
        "src/epub/content.opf": PACKAGE,
        "src/epub/text/chapter-1.xhtml": "<body><h2>I</h2><p>One.</p></body>",
        "src/epub/text/chapter-2.xhtml": "<body><h2>II</h2><p>Two.</p></body>",
    }
    text, folder = fetched(tmp_path, entry("standardebooks/a_b"), files)
    assert text == "I\n\nOne.\n\nII\n\nTwo.\n"
    assert "src/epub/text/titlepage.xhtml" not in folder.asked


def test_a_markdown_book_is_found_by_a_spelling_that_changed(tmp_path):
    wanted = entry("mlschmitt/classic-books-markdown", "Anne Brontë/Agnes Grey.md")
    files = {"Anne Bronte/Agnes Grey .md": "### I\n\nShe *came*.\n", "X/Grey.md": "no"}
    assert fetched(tmp_path, wanted, files)[0] == "I\n\nShe came.\n"


def test_an_edition_is_found_in_the_folder_it_moved_to(tmp_path):
    wanted = entry("COST-ELTeC/ELTeC-eng", "ENG1_X.xml")
    files = {
        "level0/ENG1_X.xml": "<text><p>Old.</p></text>",
        "level1/ENG1_X.xml": "<text><p>New.</p></text>",
        "level1/ENG11_X.xml": "<text><p>Other.</p></text>",
    }
    assert fetched(tmp_path, wanted, files)[0] == "New.\n"


def test_fairy_tales_of_a_folder_are_one_collection(tmp_path):
    wanted = entry("uci-soe/FairytaleQAData", "d/grimm")
    files = {
        "d/grimm/b-story.csv": 'section,text\n1,"B began.\nB said ""no""."\n2,B ended.\n',
        "d/grimm/a-story.csv": "section,text\n1,A.\n",
        "d/grimm/a-questions.csv": "section,text\n1,Why?\n",
        "d/irish/c-story.csv": "section,text\n1,C.\n",
    }
    assert fetched(tmp_path, wanted, files)[0] == (
        f'A.\n\n{END_OF_TEXT}\n\nB began.\n\nB said "no".\n\nB ended.\n'
    )


def test_a_registered_text_is_recognised_and_never_written_over(tmp_path):
    (tmp_path / "w.txt").write_text("Mine.\n")
    mine = entry("rasbt/LLMs-from-scratch", "x.txt")
    assert not fetch(mine, None, tmp_path)
    assert fetch(replace(mine, sha256=hashlib.sha256(b"Mine.\n").hexdigest()), None, tmp_path)
    assert (tmp_path / "w.txt").read_text() == "Mine.\n"


@pytest.mark.parametrize(
    ("repository", "path", "files", "kind"),
    [
        ("mlschmitt/classic-books-markdown", "A/B.md", {"A/C.md": "x"}, NotThereError),
        ("uci-soe/FairytaleQAData", "d/grimm", {"d/x.csv": "x"}, NotThereError),
        ("standardebooks/a_b", "", {"src/epub/content.opf": "<package>"}, TrainError),
        ("uci-soe/FairytaleQAData", "d", {"d/a-story.csv": "a,b\n1,2\n"}, TrainError),
    ],
)
def test_a_repository_of_another_form_is_one_sentence(tmp_path, repository, path, files, kind):
    with pytest.raises(kind, match=repository):
        fetched(tmp_path, entry(repository, path), files)
    assert not (tmp_path / "g" / "w.txt").exists()


def test_the_registry_has_every_fact_of_every_work():
    assert len(entries()) == len({(e.genre, e.file) for e in entries()}) == 622
    for work in entries():
        assert all((work.title, work.author, work.repository, work.licence)), work
        assert work.characters > work.words > 0, work
        assert len(work.sha256) == 64
    assert genres() == sorted(genres())


def test_all_books_can_be_fetched_and_gathered_data_cannot():
    cannot = {entry.genre for entry in entries() if not can_be_fetched(entry)}
    assert cannot == {"movie-plots", "tiny-stories"}


def test_an_unknown_genre_is_told_the_known_ones():
    with pytest.raises(TrainError, match=r"'romance' is no registered genre\. There are: drama"):
        works_of("romance")
