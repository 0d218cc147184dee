"""A document's tree, as pandoc gives it, as plain text: paragraphs with a blank line between.

Emphasis, links, pictures and notes go. Headings and list items are paragraphs, line breaks stay.
"""

import html
import re
from collections.abc import Iterable, Iterator
from typing import Any

from storygen.errors import StoryError
from storygen.story.layout import SCENE_BREAK, is_scene_break
from storygen.story.pandoc import Document, Node

_HELD_SPACES = re.compile("^[ \xa0]+|[ \xa0]{2,}", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{2,}")
_NOTE_MARK = re.compile(r"\s*[\[(]?(?:\d{1,4}|[*†‡§]{1,3}|↩︎?|↑)[\])]?\s*")
_TAG = re.compile(r"<!--.*?-->|</?([A-Za-z][A-Za-z0-9]*)\b[^<>]*>|<[!?][^<>]*>", re.DOTALL)
# What is a tag in a Markdown file. <whispers> is not, so it was meant to be read.
_TAGS = frozenset(
    "a abbr b big blockquote br center code del div em font h1 h2 h3 h4 h5 h6 hr i img ins li ol p"
    " pre q s section small span strike strong sub sup table tbody td th tr tt u ul".split()
)
_SKIPPED = {"footnotes", "endnotes", "toc", "title-block-header"}


def title_of(document: Document) -> str:
    """The title that a document gives itself, empty where it has none."""
    title = document.meta.get("title", {})
    inlines = title.get("c") if title.get("t") == "MetaInlines" else []
    return " ".join(_inlines(inlines).split()) if isinstance(inlines, list) else ""


def text_of(document: Document) -> str:
    """The text of a document."""
    try:
        paragraphs = [_tidy(text) for text in _blocks(document.blocks, title_of(document))]
    except RecursionError:
        raise StoryError("its parts are nested too deeply") from None
    return "\n\n".join(text for text in paragraphs if text)


def _blocks(blocks: Iterable[Node], title: str = "") -> Iterator[str]:
    for block in blocks:
        kind, content = block["t"], block.get("c", [])
        match kind:
            case "Plain" | "Para":
                yield _inlines(content)
            case "Header":
                # pandoc's EPUBs begin with their title where no chapter begins.
                text = _inlines(content[2])
                if text != title or "unnumbered" not in content[1][1]:
                    yield text
            case "LineBlock":
                yield "\n".join(_inlines(line) for line in content)
            case "CodeBlock":
                yield content[1]
            case "RawBlock":
                yield _without_tags(content[1]) if content[0] == "html" else ""
            case "HorizontalRule":
                yield SCENE_BREAK
            case "BlockQuote":
                yield from _blocks(content)
            case "Div" if not _is_skipped(block):
                yield from _blocks(content[1], title)
            case "BulletList":
                yield from _items(["-"] * len(content), content)
            case "OrderedList":
                (first, style, delimiter), items = content
                marks = [_number(first + n, style["t"], delimiter["t"]) for n in range(len(items))]
                yield from _items(marks, items)
            case "DefinitionList":
                for term, definitions in content:
                    yield _inlines(term)
                    for definition in definitions:
                        yield from _blocks(definition)
            case "Figure":
                yield from _blocks(content[1][1])
            case "Table":
                yield _table(content)


def _items(marks: list[str], items: list[list[Node]]) -> Iterator[str]:
    """The items of a list as the paragraphs they look like, or as lines where they are tight."""
    written = []
    for mark, item in zip(marks, items, strict=True):
        texts = [text for text in _blocks(item) if text.strip()] or [""]
        written.append("\n\n".join([f"{mark} {texts[0]}", *texts[1:]]))
    is_tight = all(item[0]["t"] == "Plain" for item in items if item)
    yield ("\n" if is_tight else "\n\n").join(written)


def _number(number: int, style: str, delimiter: str) -> str:
    letters = {"LowerAlpha": "a", "UpperAlpha": "A"}
    written = str(number)
    if style in letters and 1 <= number <= 26:
        written = chr(ord(letters[style]) + number - 1)
    before, after = {"OneParen": ("", ")"), "TwoParens": ("(", ")")}.get(delimiter, ("", "."))
    return f"{before}{written}{after}"


def _table(content: list[Any]) -> str:
    """The rows of a table as lines, its cells with a space between."""
    _, _, _, head, bodies, foot = content
    rows = [*head[1], *(row for body in bodies for row in [*body[2], *body[3]]), *foot[1]]
    cells = [[" ".join(_blocks(cell[4])) for cell in row[1]] for row in rows]
    return "\n".join(" ".join(row) for row in cells)


def _inlines(inlines: list[Node]) -> str:
    return "".join(_inline(inline) for inline in inlines)


def _inline(inline: Node) -> str:
    kind, content = inline["t"], inline.get("c", [])
    match kind:
        case "Str":
            return content
        case "Space" | "SoftBreak":
            return " "
        case "LineBreak":
            return "\n"
        case "Emph" | "Strong" | "Underline" | "Strikeout" | "SmallCaps" | "Subscript":
            return _inlines(content)
        case "Superscript":
            text = _inlines(content)
            is_note = any(part["t"] == "Link" for part in content) and _NOTE_MARK.fullmatch(text)
            return "" if is_note else text
        case "Quoted":
            before, after = ("‘", "’") if content[0]["t"] == "SingleQuote" else ("“", "”")
            return f"{before}{_inlines(content[1])}{after}"
        case "Code" | "Math":
            return content[1]
        case "Link":
            text = _inlines(content[1])
            return "" if content[2][0].startswith("#") and _NOTE_MARK.fullmatch(text) else text
        case "Cite" | "Span":
            return _inlines(content[1])
        case "RawInline":
            return _without_tags(content[1]) if content[0] == "html" else ""
    return ""  # a picture or a note


def _without_tags(markup: str) -> str:
    def text(tag: re.Match[str]) -> str:
        name = (tag[1] or "!").lower()
        if name in ("br", "p", "div", "hr"):
            return "\n"
        return "" if name in _TAGS or name == "!" else tag[0]

    return html.unescape(_TAG.sub(text, markup))


def _is_skipped(block: Node) -> bool:
    """Whether a block is a part around the story: its notes, its contents, its title."""
    if block["t"] != "Div":
        return False
    identifier, classes, _ = block["c"][0]
    return not _SKIPPED.isdisjoint({identifier, *classes})


def _tidy(text: str) -> str:
    """A paragraph with plain spaces where others only held their place, and none at line ends."""
    text = _HELD_SPACES.sub(lambda spaces: " " * len(spaces[0]), text)
    lines = (line.rstrip(" \t\xa0") for line in text.split("\n"))
    text = _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip("\n")
    return SCENE_BREAK if is_scene_break(text) else text
