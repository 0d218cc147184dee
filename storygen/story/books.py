"""Books: a manuscript as a file that readers and writers' programs open.

A book begins with its title and author; chapters begin with the headings of the manuscript (see
layout.py). Markdown is written here, because pandoc's leaves some characters unescaped; the other
formats are pandoc's work.
"""

import io
import json
import re
import zipfile
from datetime import UTC, datetime

from storygen.errors import StoryError
from storygen.story.layout import SCENE_BREAK, Block, blocks, printable
from storygen.story.pandoc import EPOCH, Node, render
from storygen.text import whole_characters

FORMATS = {
    "txt": "text/plain; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "epub": "application/epub+zip",
}
UNTITLED = "Untitled story"

_WRITERS = {
    "html": ("html5",),
    "docx": ("docx",),
    "epub": ("epub3", "--split-level=1", "--toc-depth=2"),
}
_HELD = re.compile("^ +| +(?= )")  # spaces that would be lost
# What means something in the midst of a Markdown line, and what only at its beginning.
_INLINE_MARK = re.compile(r"[\\`*_\[\]<~$|^]|&(?=#?\w{1,40};)")
_LINE_MARK = re.compile(r"(#{1,6}(?=\s|$)|[-+>=:]|\d{1,9}(?=[.)]))")


def book(
    form: str,
    text: str,
    *,
    title: str = "",
    author: str = "",
    lang: str = "en",
    story_id: str = "",
    at: datetime = datetime(2000, 1, 1, tzinfo=UTC),
) -> bytes:
    """A manuscript in one of FORMATS; raises StoryError for another, or where it is too long.

    As .txt it is the text and nothing else. story_id, a UUID, becomes the book's identifier, and
    `at` its date: the same story gives the same bytes.
    """
    if form == "txt":
        return whole_characters(text).encode()
    title, author = (" ".join(printable(name).split()) for name in (title, author))
    if form == "md":
        return _markdown(text, title, author).encode()
    if form not in _WRITERS:
        raise StoryError(f"{form[:20]!r} is no format of a book: choose {', '.join(FORMATS)}.")
    meta = {"title": title or UNTITLED, "lang": lang}
    if author:
        meta["author"] = author
    if story_id and form == "epub":
        meta["identifier"] = f"urn:uuid:{story_id}"
    writer, *options = _WRITERS[form]
    try:
        written = render([_node(block) for block in blocks(text)], meta, writer, *options)
    except StoryError as error:
        raise StoryError(
            f"This story cannot be written as .{form}: {error}. As .txt or .md it can."
        ) from error
    return written if form == "html" else _dated(written, at.astimezone(UTC))


def _node(block: Block) -> Node:
    """A block in pandoc's tree, where text is text and never markup."""
    match block.kind:
        case "break":
            return {"t": "HorizontalRule"}
        case "heading":
            return {"t": "Header", "c": [block.level, ["", [], []], _words(block.text)]}
    inlines: list[Node] = []
    for line in block.text.split("\n"):
        inlines += [{"t": "LineBreak"}] if inlines else []
        inlines += _words(_held(line))
    return {"t": "Para", "c": inlines}


def _dated(packed: bytes, at: datetime) -> bytes:
    """A packed document of this date, which pandoc cannot know."""
    dated = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(packed)) as old, zipfile.ZipFile(dated, "w") as new:
        for info in old.infolist():  # of an EPUB, the first must stay the first and not packed
            part = old.read(info)
            if info.filename in ("EPUB/content.opf", "docProps/core.xml"):
                part = part.replace(EPOCH, f"{at:%Y-%m-%dT%H:%M:%SZ}".encode())
            entry = zipfile.ZipInfo(info.filename, at.timetuple()[:6])
            entry.compress_type = info.compress_type
            new.writestr(entry, part)
    return dated.getvalue()


def _words(text: str) -> list[Node]:
    return [{"t": "Str", "c": text}]


def _markdown(text: str, title: str, author: str) -> str:
    """CommonMark below lines of YAML that name title and author."""
    names = {"title": title, "author": author}
    matter = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in names.items()]
    parts = ["\n".join(["---", *matter, "---"])]
    for block in blocks(text):
        match block.kind:
            case "break":
                parts.append(SCENE_BREAK)
            case "heading":
                parts.append(
                    f"{'#' * block.level} {_escaped(block.text).replace('#', chr(92) + '#')}"
                )
            case "paragraph":
                lines = (_escaped_line(_held(line)) for line in block.text.split("\n"))
                parts.append("\\\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _escaped_line(line: str) -> str:
    if mark := _LINE_MARK.match(line):
        digits = mark[1] if mark[1].isdigit() else ""
        return f"{digits}\\{_escaped(line[len(digits) :])}"
    return _escaped(line)


def _escaped(text: str) -> str:
    return _INLINE_MARK.sub(r"\\\g<0>", text)


def _held(line: str) -> str:
    """A line whose spaces at the beginning and in a row are no-break spaces, so that they stay."""
    line = line.replace("\t", "    ").rstrip(" \xa0")
    return _HELD.sub(lambda spaces: "\xa0" * len(spaces[0]), line)
