"""EPUB and Word files: read in order, and refused in a sentence when they are bombs or broken."""

import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storygen.corpora import books
from storygen.corpora.books import docx_text, epub_text
from storygen.errors import TrainError
from storygen.tokenizers import END_OF_TEXT

CONTAINER = '<container xmlns="c"><rootfiles><rootfile full-path="{}"/></rootfiles></container>'
PACKAGE = """<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf"><manifest>
<item id="b" href="text/b.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="text/a%20a.xhtml" media-type="application/xhtml+xml"/>
<item id="n" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>
<item id="c" href="cover.svg" media-type="image/svg+xml"/></manifest>
<spine><itemref idref="c"/><itemref idref="n"/><itemref idref="a"/><itemref idref="b"/></spine>
</package>"""
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def archive(path, parts, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in parts.items():
            file.writestr(name, content)
    return path


def epub(path, first="<p>First.</p>", second="<p>Second.</p>"):
    return archive(
        path,
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER.format("OPS/book.opf"),
            "OPS/book.opf": PACKAGE,
            "OPS/nav.xhtml": "<nav>Contents</nav>",
            "OPS/text/a a.xhtml": f"<html><body>{first}</body></html>",
            "OPS/text/b.xhtml": f"<html><body>{second}</body></html>",
        },
    )


def docx(path, body):
    document = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    return archive(path, {"word/document.xml": document})


def test_an_epub_is_read_in_the_order_of_its_spine(tmp_path):
    assert epub_text(epub(tmp_path / "b.epub")) == "First.\n\nSecond.\n"


def test_stories_on_pages_of_their_own_stand_apart(tmp_path):
    story = '<section epub:type="z3998:short-story"><p>{}</p></section>'
    path = epub(tmp_path / "b.epub", story.format("One."), story.format("Two."))
    assert epub_text(path) == f"One.\n\n{END_OF_TEXT}\n\nTwo.\n"


def test_a_word_file_gives_its_paragraphs_without_what_was_deleted(tmp_path):
    body = (
        "<w:p><w:r><w:t>The </w:t></w:r><w:r><w:t>owl</w:t><w:tab/><w:t>slept.</w:t></w:r></w:p>"
        "<w:p/><w:p><w:del><w:r><w:delText>No</w:delText></w:r></w:del>"
        "<w:ins><w:r><w:t>Yes</w:t><w:br/><w:t>sir.</w:t></w:r></w:ins></w:p>"
    )
    assert docx_text(docx(tmp_path / "d.docx", body)) == "The owl slept.\n\nYes\nsir.\n"


def test_a_zip_bomb_is_refused_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(books, "LARGEST_PART", 10_000)
    path = docx(tmp_path / "d.docx", "<w:p/>" * 10_000)
    assert path.stat().st_size < 2_000
    with pytest.raises(TrainError, match="more than any book"):
        docx_text(path)


def test_many_small_parts_are_a_bomb_too(tmp_path, monkeypatch):
    monkeypatch.setattr(books, "LARGEST_BOOK", 500)
    with pytest.raises(TrainError, match="more than any book"):
        epub_text(epub(tmp_path / "b.epub"))
    monkeypatch.setattr(books, "MOST_PARTS", 3)
    with pytest.raises(TrainError, match="more than 3 files"):
        epub_text(epub(tmp_path / "b.epub"))


def test_entities_that_multiply_are_refused(tmp_path):
    bomb = '<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><d>&b;</d>'
    with pytest.raises(TrainError, match="XML entities"):
        docx_text(archive(tmp_path / "d.docx", {"word/document.xml": bomb}))


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"other": "x"}, "has no META-INF/container.xml"),
        ({"META-INF/container.xml": "<c/>"}, "has no package document"),
        ({"META-INF/container.xml": CONTAINER.format("gone.opf")}, "has no gone.opf"),
        ({"META-INF/container.xml": "<c>"}, "has no XML"),
    ],
)
def test_an_epub_without_its_parts_is_one_sentence(tmp_path, parts, sentence):
    with pytest.raises(TrainError, match=sentence):
        epub_text(archive(tmp_path / "b.epub", parts))


@settings(max_examples=60)
@given(cut=st.integers(0, 1_200), flip=st.integers(0, 1_200), byte=st.integers(0, 255))
def test_a_damaged_archive_is_read_or_refused(tmp_path_factory, cut, flip, byte):
    folder = tmp_path_factory.getbasetemp()
    data = bytearray(epub(folder / "damaged.epub").read_bytes())
    data[flip % len(data)] = byte
    (folder / "damaged.epub").write_bytes(data[cut:] if cut < 40 else data)
    with suppress(TrainError):
        epub_text(folder / "damaged.epub")
