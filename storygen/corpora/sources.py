"""How the text of a registered work is made from the files of its repository.

Each kind of repository has its form: Standard Ebooks' is an EPUB in pieces, the others hold
Markdown, TEI, tables of paragraphs, or the plain text. Works gathered from several places have no
repository of their own and cannot be fetched.
"""

import csv
import json
import os
import re
import unicodedata
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from posixpath import basename, normpath
from xml.etree import ElementTree

from storygen.corpora.books import join_pages, spine
from storygen.corpora.download import Downloader, NotThereError
from storygen.corpora.markup import html_text, markdown_text, tei_text
from storygen.corpora.registry import Entry
from storygen.errors import TrainError
from storygen.tokenizers import END_OF_TEXT

Form = Callable[[Entry, Downloader], str]


def can_be_fetched(entry: Entry) -> bool:
    """Whether a work has a repository of a form that is known here."""
    return _form(entry) is not None


def fetch(entry: Entry, downloader: Downloader, folder: Path) -> bool:
    """Write a work's text into the folder of its genre, unless it is there already. True when it
    is the registered text to the letter."""
    target = folder / entry.file
    if not target.exists():
        form = _form(entry)
        assert form is not None, entry
        try:
            text = form(entry, downloader)
        except (UnicodeDecodeError, ElementTree.ParseError, ValueError, LookupError) as error:
            raise TrainError(f"{entry.repository} is not in the form it had: {error}.") from None
        folder.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name}.new")
        new.write_text(text, encoding="utf-8")
        os.replace(new, target)
    return sha256(target.read_bytes()).hexdigest() == entry.sha256


def _form(entry: Entry) -> Form | None:
    owner = entry.repository.partition("/")[0]
    return _FORMS.get(entry.repository) or _FORMS.get(owner)


def _standard_ebook(entry: Entry, downloader: Downloader) -> str:
    book = "src/epub"
    package = downloader.file(entry.repository, f"{book}/content.opf")
    pages = []
    for page in spine(ElementTree.fromstring(package.read_bytes())):
        if not _FRAME.search(basename(page)):
            path = downloader.file(entry.repository, normpath(f"{book}/{page}"))
            pages.append(html_text(path.read_text(encoding="utf-8")))
    return join_pages(pages)


def _markdown_book(entry: Entry, downloader: Downloader) -> str:
    path = downloader.file(entry.repository, _found(entry, downloader))
    return markdown_text(path.read_text(encoding="utf-8"))


def _tei_edition(entry: Entry, downloader: Downloader) -> str:
    path = downloader.file(entry.repository, _found(entry, downloader))
    return tei_text(path.read_text(encoding="utf-8"))


def _fairy_tales(entry: Entry, downloader: Downloader) -> str:
    """Stories of one collection, each a table of numbered sections, in order of their names."""
    names = [
        name
        for name in _names(entry.repository, downloader)
        if name.startswith(f"{entry.path}/") and name.endswith("-story.csv")
    ]
    if not names:
        raise NotThereError(f"{entry.repository} has no {entry.path} any more.")
    tales = []
    for name in sorted(names):
        path = downloader.file(entry.repository, name)
        with path.open(encoding="utf-8", newline="") as lines:
            paragraphs = "\n".join(row["text"] for row in csv.DictReader(lines)).split("\n")
        tales.append("\n\n".join(p.strip() for p in paragraphs if p.strip()))
    return f"\n\n{END_OF_TEXT}\n\n".join(tales) + "\n"


def _plain_file(entry: Entry, downloader: Downloader) -> str:
    return downloader.file(entry.repository, entry.path).read_text(encoding="utf-8")


def _found(entry: Entry, downloader: Downloader) -> str:
    """The path at which a work's file lies now: the registered one, but for spelling and folders
    above it, which change; the last by name where there are several."""
    wanted = _key(entry.path)
    keys = {name: f"-{_key(name)}" for name in _names(entry.repository, downloader)}
    names = [name for name, key in keys.items() if key.endswith(f"-{wanted}")]
    if not names:
        raise NotThereError(f"{entry.repository} has no {entry.path} any more.")
    return max(names)


def _names(repository: str, downloader: Downloader) -> list[str]:
    listing = json.loads(downloader.listing(repository).read_bytes())
    return [item["path"] for item in listing["tree"] if item["type"] == "blob"]


def _key(path: str) -> str:
    letters = unicodedata.normalize("NFKD", path).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", letters).strip("-")


_FORMS: dict[str, Form] = {
    "standardebooks": _standard_ebook,
    "mlschmitt/classic-books-markdown": _markdown_book,
    "COST-ELTeC/ELTeC-eng": _tei_edition,
    "uci-soe/FairytaleQAData": _fairy_tales,
    "rasbt/LLMs-from-scratch": _plain_file,
}
# Pages of Standard Ebooks that are not the work; their names are the same in every book.
_FRAME = re.compile(
    r"^(titlepage|imprint|halftitlepage|colophon|uncopyright|endnotes|loi|toc|dedication"
    r"|introduction|foreword|preface|dramatis-personae|characters|epigraph)\b"
)
