"""Drafts as writers' programs save them: a file's bytes and name in, a title and plain text out.

What a file is, its content says; the name tells only kinds of text apart. Paragraphs stand apart
by blank lines, scene breaks are `* * *`, headings are paragraphs.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from storygen.errors import StoryError
from storygen.story.flatten import text_of, title_of
from storygen.story.packed import repacked
from storygen.story.pandoc import parse
from storygen.story.pieces import split

__all__ = ["KINDS", "MAX_FILE", "Draft", "read", "shown", "split"]

KINDS = (".txt", ".md", ".docx", ".odt", ".epub", ".rtf", ".html")
MAX_FILE = 20_000_000  # bytes
MAX_TEXT = 10_000_000  # characters
MAX_TITLE = 200

_TAKEN = f"{', '.join(KINDS[:-1])} and {KINDS[-1]} files are taken"
_NAMES = {
    "text": ("", ".txt", ".text"),
    "markdown": (".md", ".markdown"),
    "html": (".html", ".htm", ".xhtml"),
}
_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
# What a file begins with: why it is not taken.
_OTHERS = {
    b"%PDF": "it is a PDF, which holds pages and no paragraphs: save the draft as .docx or .txt",
    b"\xd0\xcf\x11\xe0": "it is an old .doc, or has a password: save it as .docx without one",
}
_HTML = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+)?html\b", re.IGNORECASE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_MATTER = r"(?:[\w-]+:.*\n|[ \t]+.*\n|-[ \t].*\n|#.*\n|\n)"  # a line of YAML, roughly
_FRONT_MATTER = re.compile(rf"---\n({_MATTER}+?)(?:---|\.\.\.)(?:\n+|\Z)")
_TITLE_LINE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_CONTROL = re.compile("[\x00-\x08\x0e-\x19\x1c-\x1f]")
# A character of RTF whose number is followed at once by what older programs show in its place:
# of that, pandoc would take one letter too many.
_RTF_UNDELIMITED = re.compile(rb"(?<!\\)(\\u-?\d{1,5})(?=[^\s\\{}\d])")
# Two halves of a character in RTF, each with what older programs show in its place.
_HALF = r"\\u(-?\d{1,5})( ?(?:\\'[0-9a-fA-F]{2}|[^\s\\{}\d])?)"
_RTF_PAIR = re.compile(rf"{_HALF}{_HALF}".encode())
_RTF_WHOLE = re.compile("\ue000([0-9a-f]{5,6})\ue001")


@dataclass(frozen=True)
class Draft:
    """A text and what it is called."""

    title: str
    text: str


def read(name: str, data: bytes) -> Draft:
    """The draft in a file; raises StoryError, in a sentence, for what cannot be read."""
    try:
        return _read(name, data)
    except StoryError as error:
        raise StoryError(f"{shown(name)} was not read: {error}.") from error


def shown(name: str) -> str:
    """A file as a sentence names it."""
    return repr(_base(name)[:80]) if _base(name) else "This file"


def _read(name: str, data: bytes) -> Draft:
    if len(data) > MAX_FILE:
        raise StoryError(
            f"it has {len(data):,} bytes and {MAX_FILE:,} can be taken: cut it in parts"
        )
    for beginning, why in _OTHERS.items():
        if data.startswith(beginning):
            raise StoryError(why)
    title, text = (
        _packed(data) if data.startswith((b"PK\3\4", b"PK\5\6")) else _unpacked(name, data)
    )
    if len(text) > MAX_TEXT:
        raise StoryError(
            f"it has {len(text):,} characters and {MAX_TEXT:,} can be taken: cut it in parts"
        )
    if not text.strip():
        raise StoryError("there is no text in it")
    return Draft(_title(title) or _title(PurePosixPath(_base(name)).stem), text)


def _packed(data: bytes) -> tuple[str, str]:
    kind, archive = repacked(data)
    document = parse(archive, kind)
    return title_of(document), text_of(document)


def _unpacked(name: str, data: bytes) -> tuple[str, str]:
    if data.startswith(b"{\\rtf"):
        delimited = _RTF_UNDELIMITED.sub(rb"\1 ", data)
        document = parse(_RTF_PAIR.sub(_marked_pair, delimited), "rtf")
        text = _RTF_WHOLE.sub(lambda marked: chr(int(marked[1], 16)), text_of(document))
        return title_of(document), text
    text = _decoded(data)
    kind = _kind(name, text)
    if kind == "text":
        return "", text
    title = ""
    if kind == "markdown":
        title, text = _front_matter(text)
    document = parse(text.encode(), "html" if kind == "html" else "commonmark+footnotes")
    return title or title_of(document), text_of(document)


def _kind(name: str, text: str) -> str:
    """What kind of text this is: HTML that says so is HTML whatever its name."""
    if _HTML.match(_COMMENT.sub("", text[:2000])):
        return "html"
    suffix = PurePosixPath(_base(name)).suffix.lower()
    for kind, suffixes in _NAMES.items():
        if suffix in suffixes:
            return kind
    if suffix in KINDS:
        raise StoryError(f"it is no {suffix} file but something else; {_TAKEN}")
    raise StoryError(f"{_TAKEN}, {suffix[:20]!r} is not")


def _decoded(data: bytes) -> str:
    """The characters of a text file, with plain line ends."""
    text = _characters(data)
    if "\0" in text or len(_CONTROL.findall(text)) > len(text) // 1000:
        raise StoryError(f"it is no text; {_TAKEN}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _characters(data: bytes) -> str:
    """UTF-16 or UTF-32 where the file looks like it, else UTF-8, else what Windows had before."""
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    zeros = [data[half:2000:2].count(0) for half in (0, 1)]
    if max(zeros) > len(data[:2000]) // 4 and min(zeros) * 4 < max(zeros):
        return data.decode("utf-16-le" if zeros[1] > zeros[0] else "utf-16-be", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("utf-8-sig", "replace")
    beyond_ascii = len(data.translate(None, bytes(range(128))))
    if text.count("\ufffd") * 20 > beyond_ascii:  # more than a slip
        return data.decode("cp1252", "replace")
    return text


def _front_matter(text: str) -> tuple[str, str]:
    """The title in the lines between --- that a Markdown file may begin with, and what follows."""
    found = _FRONT_MATTER.match(text[:20_000])
    if found is None:
        return "", text
    line = _TITLE_LINE.search(found[1])
    title = line[1] if line else ""
    if len(title) > 1 and title[0] == title[-1] == '"':
        title = re.sub(r"\\(.)", r"\1", title[1:-1])
    elif len(title) > 1 and title[0] == title[-1] == "'":
        title = title[1:-1].replace("''", "'")
    return title, text[found.end() :]


def _marked_pair(pair: re.Match[bytes]) -> bytes:
    """One character of RTF that pandoc would take for two halves, as its number between marks."""
    high, low = int(pair[1]) % 65_536, int(pair[3]) % 65_536
    if not (0xD800 <= high < 0xDC00 <= low < 0xE000):
        return pair[0]
    number = 0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00
    return b"\\u-8192%b%05x\\u-8191%b" % (pair[2] or b" ", number, pair[4] or b" ")


def _base(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2].strip()


def _title(title: str) -> str:
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", title).split())[:MAX_TITLE]
