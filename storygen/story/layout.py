"""What the lines of a manuscript are: headings, scene breaks, paragraphs.

A blank line ends a paragraph, a single line end stays one. A heading is a line that Markdown would
call so (`# The Fog`), or a paragraph such as "CHAPTER III", "Part Two: Home" or "Epilogue".
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from storygen.text import whole_characters

SCENE_BREAK = "* * *"
LONGEST_HEADING = 200  # characters

_TENS = "ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen|twenty|thirty|forty|fifty"
_ONES = "one|two|three|four|five|six|seven|eight|nine"
_NUMBER = rf"(?:\d{{1,4}}|[ivxlc]{{1,8}}|(?:(?:{_TENS})[ -]?)?(?:{_ONES})|{_TENS})"
_CHAPTER = re.compile(
    rf"(?:(?:chapter|part|book|act|scene|canto)\s+{_NUMBER}(?:\s*[.:–—-]+(?:\s+\S.{{0,80}})?)?"
    r"|prologue|epilogue|interlude|preface|foreword|afterword|the end)\.?",
    re.IGNORECASE,
)
_HASHES = re.compile(r"(#{1,6})[ \t]+([^\s#].*?)(?:[ \t]+#+)?[ \t]*")
_SCENE_BREAK = re.compile(r"[ \t]*(?:\*[ \t]*){3,}|[ \t]*⁂[ \t]*")
_BLANK = re.compile(r"\n[ \t\xa0]*(?:\n[ \t\xa0]*)*\n")
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028]")
_UNPRINTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufffe\uffff]")


@dataclass(frozen=True)
class Block:
    """A heading of a level from 1 on, a scene break, or a paragraph of one or more lines."""

    kind: Literal["heading", "break", "paragraph"]
    text: str
    level: int = 0


def blocks(text: str) -> Iterator[Block]:
    """A manuscript block by block, without the characters that no book can hold."""
    for paragraph in _BLANK.split(printable(text).strip("\n")):
        lines = paragraph.split("\n")
        if len(lines) == 1 and _is_chapter(paragraph):
            yield Block("heading", paragraph.strip(), 1)
            continue
        kept: list[str] = []
        for line in lines:
            block = _line_block(line)
            if block is None:
                kept.append(line)
                continue
            yield from _paragraph(kept)
            kept = []
            yield block
        yield from _paragraph(kept)


def printable(text: str) -> str:
    """text without control characters; every kind of line end as a plain one."""
    text = _LINE_END.sub("\n", whole_characters(text)).replace("\u2029", "\n\n")
    return _UNPRINTED.sub("", text)


def is_scene_break(line: str) -> bool:
    """Whether a line is made of three asterisks or more, or is an asterism.

    >>> is_scene_break("***"), is_scene_break("* * *"), is_scene_break("* note")
    (True, True, False)
    """
    return len(line) <= LONGEST_HEADING and _SCENE_BREAK.fullmatch(line) is not None


def begins_part(line: str) -> bool:
    """Whether something new begins with this line: a heading, or a scene after its break."""
    return _line_block(line) is not None or _is_chapter(line)


def _is_chapter(line: str) -> bool:
    return len(line) <= LONGEST_HEADING and _CHAPTER.fullmatch(line.strip()) is not None


def _line_block(line: str) -> Block | None:
    if is_scene_break(line):
        return Block("break", SCENE_BREAK)
    if len(line) <= LONGEST_HEADING and (match := _HASHES.fullmatch(line)):
        return Block("heading", match[2], len(match[1]))
    return None


def _paragraph(lines: list[str]) -> Iterator[Block]:
    if any(line.strip() for line in lines):
        yield Block("paragraph", "\n".join(lines).strip("\n"))
