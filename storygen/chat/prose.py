"""Prose as the page must show it: word for word.

The page draws a model's message as Markdown, where `said:wait` loses a word, `1984.` opens a list
and `![](...)` loads an image. Here every character that means something to Markdown is written as
a character reference, which Markdown decodes and never reads as structure. No line ends are left
either, so a passage is one paragraph, whose white space the page keeps. References are slow to
parse for a browser that does so twenty times a second, so there are no more than needed.
"""

import re

WORD_JOINER = "\u2060"

# What the page still acts on after references are decoded: its own cursor, its alerts, bare links,
# and white space beside a line end, which it drops. In a code span it does not look.
_SPANS = re.compile(
    r"(?:[\u200b\v]|:::|://|@|www\.|(?<=[\n\r])[ \t]|[ \t](?=[\n\r]))+", re.IGNORECASE
)
# As a model begins a passage in the middle of a paragraph.
_STARTS_WITH_ITS_SPACE = re.compile(r" (?!www\.)[\w\"'“‘(—…]", re.IGNORECASE)
# What means something inside a paragraph. A table, since a call for each character of a long text
# that is nothing else would hold up everyone's words for seconds.
_SPECIAL = str.maketrans({mark: f"&#{ord(mark)};" for mark in "\\`*_[]<>&~:\t\n\f\r"})


def verbatim(text: str, start: int = 0) -> str:
    """Markdown that is displayed as exactly this text, or as the part of it from start on.

    Parts may be encoded one by one as they are written, and the results joined.

    >>> verbatim("# said:wait")
    '&#35; said&#58;wait'
    """
    if start == 0 and _STARTS_WITH_ITS_SPACE.match(text):
        # Strong, so that public/storygen.css can keep the space from showing at the left margin.
        return f"**&#32;**{_reference(text[1])}{verbatim(text, 2)}"
    encoded: list[str] = []
    here = start
    for span in _SPANS.finditer(text, start):
        encoded += [text[here : span.start()].translate(_SPECIAL), _code(span[0])]
        here = span.end()
    encoded.append(text[here:].translate(_SPECIAL))
    return _with_firm_ends("".join(encoded), is_beginning=start == 0)


def typed(text: str) -> str:
    """A writer's own words for the page, which shows them plainly but without white space at the
    ends: an invisible word joiner keeps the indentation of the first line."""
    return WORD_JOINER + text if text[:1].isspace() else text


def untyped(text: str) -> str:
    """What typed() was given, when the page sends it back to be edited."""
    return text.removeprefix(WORD_JOINER)


def sentence(text: str) -> str:
    """Markdown for a sentence of ours, which may quote anything the writer typed.

    The emphasis is what tells it from prose: public/storygen.css shows it as a notice.
    """
    return f"*{verbatim(' '.join(text.split()))}*"


def _code(text: str) -> str:
    """A code span of text without backticks. One space at both ends would be taken for padding."""
    is_padded = text.startswith(" ") and text.endswith(" ") and text.strip(" ")
    return f"` {text} `" if is_padded else f"`{text}`"


def _with_firm_ends(encoded: str, is_beginning: bool) -> str:
    """The same with a reference at either end: what opens a block does so at the beginning only,
    and white space is dropped at the ends only."""
    if not encoded or not is_beginning or encoded[0] in "&`":
        first, rest = "", encoded
    else:
        first, rest = _reference(encoded[0]), encoded[1:]
    if rest and rest[-1].isspace():
        rest = rest[:-1] + _reference(rest[-1])
    return first + rest


def _reference(character: str) -> str:
    """A character reference. Controls and noncharacters, to which none is defined, mean nothing
    to Markdown either and stay as they are."""
    code = ord(character)
    is_control = character not in "\t\n\f\r" and (code < 32 or 127 <= code < 160)
    is_noncharacter = 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    return character if is_control or is_noncharacter else f"&#{code};"
