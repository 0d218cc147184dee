"""EPUB and Word files, opened as what they are: zip archives of markup from strangers.

Sizes are bounded by what really comes out of the archive, not by what it says of itself.
"""

import posixpath
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

from storygen.corpora.markup import html_text
from storygen.errors import TrainError
from storygen.tokenizers import END_OF_TEXT

LARGEST_PART = 20_000_000  # bytes of one file in the archive; a long novel is 3 million
LARGEST_BOOK = 60_000_000
MOST_PARTS = 5_000

_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


def epub_text(path: Path) -> str:
    """The pages of an EPUB in reading order, without title page, contents and notes."""
    with _Archive(path) as archive:
        container = archive.xml("META-INF/container.xml")
        roots = [e.get("full-path", "") for e in container.iter() if e.tag.endswith("rootfile")]
        package = archive.xml(roots[0] if roots else "")
        folder = posixpath.dirname(roots[0])
        names = [posixpath.normpath(posixpath.join(folder, page)) for page in spine(package)]
        pages = [html_text(archive.text(name)) for name in names]
    return join_pages(pages)


def spine(package: ElementTree.Element) -> Iterator[str]:
    """The addresses of a book's pages in reading order, by its package document."""
    items = {e.get("id"): e for e in package.iter() if e.tag.endswith("}item")}
    for reference in package.iter():
        item = items.get(reference.get("idref"))
        if not reference.tag.endswith("}itemref") or item is None:
            continue
        is_page = "html" in item.get("media-type", "")
        if is_page and reference.get("linear") != "no" and "nav" not in item.get("properties", ""):
            yield unquote(item.get("href", "")).partition("#")[0]


def join_pages(pages: list[str]) -> str:
    """One text of a book's pages, <|endoftext|> between its stories and nowhere else."""
    stories = (story.strip() for story in "\n".join(pages).split(END_OF_TEXT))
    return f"\n\n{END_OF_TEXT}\n\n".join(story for story in stories if story) + "\n"


def docx_text(path: Path) -> str:
    """The paragraphs of a Word file; what is marked as deleted is left out."""
    with _Archive(path) as archive:
        document = archive.xml("word/document.xml")
    paragraphs = (_docx_paragraph(p) for p in document.iter(f"{_WORD}p"))
    return "\n\n".join(p for p in paragraphs if p) + "\n"


def _docx_paragraph(paragraph: ElementTree.Element) -> str:
    blanks = {f"{_WORD}tab": " ", f"{_WORD}br": "\n", f"{_WORD}cr": "\n"}
    inside = paragraph.iter()
    parts = (e.text or "" if e.tag == f"{_WORD}t" else blanks.get(e.tag, "") for e in inside)
    return "".join(parts).strip()


class _Archive:
    """A zip file read within bounds; everything wrong with it is one sentence."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def __enter__(self) -> "_Archive":
        try:
            self._zip = zipfile.ZipFile(self._path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise self._wrong(f"is no archive that can be opened: {error}") from None
        if len(self._zip.namelist()) > MOST_PARTS:
            self._zip.close()
            raise self._wrong(f"holds more than {MOST_PARTS:,} files")
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def xml(self, name: str) -> ElementTree.Element:
        """A part as XML; entities of its own, which can grow without end, are refused."""
        text = self.text(name)
        if "<!ENTITY" in text:
            raise self._wrong(f"defines XML entities in {name}")
        try:
            return ElementTree.fromstring(re.sub(r"\A<\?xml.*?\?>", "", text, flags=re.S))
        except ElementTree.ParseError as error:
            raise self._wrong(f"has no XML in {name}: {error}") from None

    def text(self, name: str) -> str:
        """A part as text in UTF-8, or in UTF-16 where it says so by its first bytes."""
        try:
            with self._zip.open(name) as part:
                data = part.read(LARGEST_PART + 1)
        except KeyError:
            raise self._wrong(f"has no {name or 'package document'}") from None
        except Exception as error:  # zlib, lzma, encryption: a damaged archive fails in many ways
            raise self._wrong(f"cannot be unpacked: {error}") from None
        self._read += len(data)
        if len(data) > LARGEST_PART or self._read > LARGEST_BOOK:
            raise self._wrong("unpacks to more than any book holds")
        is_utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        return data.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")

    def _wrong(self, what: str) -> TrainError:
        return TrainError(f"{self._path} {what}. Leave it out, or save it as .txt.")
