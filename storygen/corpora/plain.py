"""Plain text as it comes: hard-wrapped lines made whole, Project Gutenberg's frame taken off."""

import re
from itertools import pairwise

_START = re.compile(r"^\*\*\* ?START OF TH(?:E|IS) PROJECT GUTENBERG.*?\*\*\*[ \t]*$", re.M | re.S)
_END = re.compile(r"^\*\*\* ?END OF TH(?:E|IS) PROJECT GUTENBERG", re.M)
_WIDEST = 90  # characters of a line that somebody wrapped
_VERSE = 48  # lines shorter than this on average are verse, or an address


def plain_text(text: str) -> str:
    """text with one paragraph a line, a blank line between; verse keeps its lines.

    A text that has paragraphs on single lines already comes back as it is.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if start := _START.search(text):
        text = text[start.end() :].lstrip("\n")
    if end := _END.search(text):
        text = text[: end.start()].rstrip() + "\n"
    return _unwrapped(text) if _is_wrapped(text) else text


def _is_wrapped(text: str) -> bool:
    lines = [line.rstrip() for line in text.split("\n")]
    follows = sum(bool(line and after) for line, after in pairwise(lines))
    widths = [len(line) for line in lines if line]
    full = sum(width > _VERSE for width in widths)
    some = len(widths) / 4  # a page of talk has few full lines
    return bool(widths) and max(widths) <= _WIDEST and follows > some and full > some


def _unwrapped(text: str) -> str:
    return "\n\n".join(_paragraph(block) for block in re.split(r"\n\s*\n", text.strip("\n"))) + "\n"


def _paragraph(block: str) -> str:
    lines = block.split("\n")
    body = lines[:-1] or lines
    is_verse = lines[-1][:1].isspace() or sum(map(len, body)) < _VERSE * len(body)
    return "\n".join(line.strip() for line in lines) if is_verse else " ".join(block.split())
