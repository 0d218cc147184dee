"""From marked-up books to plain text: one paragraph a line, a blank line between paragraphs.

HTML (of EPUB, and Standard Ebooks' in particular), TEI and Markdown. Emphasis, notes, links and
the matter around a book go; headings, scene breaks and lines of verse stay; a play becomes one
`NAME: speech` a line, and a story of a collection begins with <|endoftext|>.
"""

import re
from html.parser import HTMLParser

from storygen.tokenizers import END_OF_TEXT

SCENE_BREAK = "* * *"


def html_text(html: str) -> str:
    """Text of an HTML or XHTML page."""
    return _text(html, _Page(_HTML_SKIPPED))


def tei_text(tei: str) -> str:
    """Text of a TEI edition without its header, front and back."""
    return _text(tei, _Page(_TEI_SKIPPED))


def markdown_text(markdown: str) -> str:
    """Text of a Markdown file."""
    text = markdown.replace("\r\n", "\n")
    for pattern, new in _MARKDOWN:
        text = pattern.sub(new, text)
    blocks = (_markdown_block(block) for block in re.split(r"\n[ \t]*\n", text))
    return _joined([block for block in blocks if block])


def _text(markup: str, page: "_Page") -> str:
    # The parser looks for the end of what nobody ended again and again: spare it that.
    markup = _COMMENT.sub("", markup)
    end = markup.rfind(">") + 1
    page.feed(markup[:end] + markup[end:].replace("<", " "))
    page.close()
    page.end_block()
    return _joined(page.blocks)


def _joined(blocks: list[str]) -> str:
    """Blocks with a blank line between, but the speeches of a play on lines that follow."""
    text = "".join(
        block.removeprefix(_SPEECH) + ("\n" if _is_speech(block) and _is_speech(after) else "\n\n")
        for block, after in zip(blocks, [*blocks[1:], ""], strict=False)
    )
    return text.strip() + "\n"


def _is_speech(block: str) -> bool:
    return block.startswith(_SPEECH)


_STAGE = "\x03\x04"  # around a stage direction, until its paragraph is done
_SPEECH = "\x02"  # begins the block of a speech until the page is done
_HTML_SKIPPED = frozenset({"head", "script", "style", "nav", "svg", "math", "rt", "rp"})
_TEI_SKIPPED = frozenset({"teiheader", "front", "back", "note"})
_BLOCKS = frozenset(
    "address article aside blockquote body br dd div dl dt figcaption figure footer h1 h2 h3 h4 h5"
    " h6 head header hgroup hr li main milestone ol p pre section table td th tr ul l lg ab".split()
)
_LINES = frozenset({"br", "l"})  # these end a line, not a paragraph
_GATHERING = frozenset({"hgroup", "h1", "h2", "h3", "h4", "h5", "h6", "tr"})  # one block each
_BREAKS = frozenset({"hr", "milestone"})
_VOID = frozenset({"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "milestone"})
# epub:type words of what is not the story
_AROUND = frozenset(
    "titlepage halftitlepage imprint colophon copyright-page toc landmarks loi dedication"
    " introduction foreword preface afterword endnotes footnotes endnote footnote rearnotes noteref"
    " backlink bibliography index acknowledgments dramatis-personae".split()
)


class _Page(HTMLParser):
    """Collects the blocks of a page. What is left out is counted by depth, so that it ends where
    it began; tags that nobody closes (<br>) have no depth."""

    def __init__(self, skipped: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self._skipped = skipped
        self._open: list[tuple[str, str]] = []  # (tag, epub:type)
        self._skip_from: int | None = None
        self._words: list[str] = []
        self._persona = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        kinds = dict(attrs).get("epub:type") or ""
        if len(self._open) > _DEEPEST or (self._open and self._open[-1][0] == tag == "p"):
            self.handle_endtag(self._open[-1][0])  # HTML need not close what it opens
        if tag not in _VOID:
            self._open.append((tag, kinds))
        if self._skip_from is not None:
            return
        if tag in self._skipped or _AROUND & set(kinds.split()) or _is_gutenberg(attrs):
            if tag not in _VOID:
                self._skip_from = len(self._open)
            return
        self._begin(tag, kinds)

    def _begin(self, tag: str, kinds: str) -> None:
        if tag in _LINES:
            self._words.append("\n")
        elif tag == "tr":
            self.end_block()
            self._persona = ""
        elif tag in _BREAKS:
            self.end_block()
            self.blocks.append(SCENE_BREAK)
        elif "stage-direction" in kinds:
            self._words.append(_STAGE[0])
        elif tag in _BLOCKS and not self._inside():
            self.end_block()
            if tag in ("section", "article") and "short-story" in kinds:
                self.blocks.append(END_OF_TEXT)
        elif tag in _BLOCKS and tag not in ("td", "th"):  # a number and its title are one heading
            self._words.append(" " if self._within("tr") else "\v")

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID or not any(name == tag for name, _ in self._open):
            return
        while self._open:
            name, kinds = self._open.pop()
            if self._skip_from is not None:
                if len(self._open) < self._skip_from:
                    self._skip_from = None
            else:
                self._end(name, kinds)
            if name == tag:
                break

    def _end(self, tag: str, kinds: str) -> None:
        if tag in ("td", "th"):
            self._end_cell(kinds)
        elif tag == "tr":
            self._end_row()
        elif "stage-direction" in kinds:
            self._words.append(_STAGE[1])
        elif tag in _LINES:
            return
        elif tag in _BLOCKS and not any(self._within(outer) for outer in _GATHERING):
            self.end_block()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        if self._skip_from is None:
            self._words.append(_SPACE.sub(" ", data))

    def end_block(self) -> None:
        """Close the paragraph that is being collected, if there is one."""
        block = _tidy("".join(self._words))
        self._words.clear()
        if block:
            self.blocks.append(block)

    def _end_cell(self, kinds: str) -> None:
        if "persona" in kinds:
            self._persona = _tidy("".join(self._words)).upper()
            self._words.clear()
        else:
            self._words.append(" ")

    def _end_row(self) -> None:
        """A speech with its speaker, or a stage direction on its own where nobody speaks."""
        speech = _tidy("".join(self._words)).replace("\n", " ")
        self._words.clear()
        if self._persona and speech:
            self.blocks.append(f"{_SPEECH}{self._persona}: {speech}")
        elif speech.startswith("(") and speech.find(")") == len(speech) - 1:
            self.blocks.append(f"{_SPEECH}[{speech[1:-1]}]")
        elif speech:
            self.blocks.append(speech)

    def _inside(self) -> bool:
        """Whether the element just opened is a part of a heading or a row, which are one block."""
        return any(tag in _GATHERING for tag, _ in self._open[:-1])

    def _within(self, tag: str) -> bool:
        return any(name == tag for name, _ in self._open)


def _is_gutenberg(attrs: list[tuple[str, str | None]]) -> bool:
    """Whether an element is what Project Gutenberg puts before and after a book."""
    return any(
        name in ("id", "class") and re.search(r"\bpg-(header|footer|boilerplate)", value or "")
        for name, value in attrs
    )


def _tidy(block: str) -> str:
    """Single spaces, lines without spaces at their ends, a heading's parts as "I. The Library"."""
    for mark, pattern, written in _MARKS:
        if mark in block:
            block = pattern.sub(written, block.strip(" \n\v"))
    return "\n".join(" ".join(line.split()) for line in block.split("\n")).strip()


_MARKS = [
    ("\v", re.compile(r"(?<=[.!?:])\s*\v\s*"), " "),
    ("\v", re.compile(r"\s*\v\s*"), ". "),
    (_STAGE[0], re.compile(rf"\s*{_STAGE[0]}\s*"), " ("),
    (_STAGE[1], re.compile(rf"\s*{_STAGE[1]}\s*"), ") "),
]
_DEEPEST = 100  # elements within elements
_SPACE = re.compile(r"[ \t\r\n]+")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
_MARKDOWN = [
    (re.compile(r"\A---\n.*?\n---\n", re.S), ""),  # front matter
    (_COMMENT, ""),
    (re.compile(r"^ {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,})$", re.M), f"\n{SCENE_BREAK}\n"),
    (re.compile(r"^\[\^[^][\n]+\]:.*(?:\n(?!\n).*)*", re.M), ""),  # footnotes, then their marks
    (re.compile(r"\[\^[^][\n]+\]"), ""),
    (re.compile(r"!\[[^][\n]*\]\([^()\n]*\)"), ""),
    (re.compile(r"\[([^][\n]+)\]\([^()\n]*\)"), r"\1"),
    (re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)[ \t#]*$", re.M), r"\n\2\n"),
    (re.compile(r"^(?: {0,3}> ?)+", re.M), ""),
    (re.compile(r"(?<![\\\w*])(\*{1,3})(?=\S)([^*]+?)(?<=\S)\1(?!\*)"), r"\2"),
    (re.compile(r"(?<![\\\w])(_{1,3})(?=\S)([^_]+?)(?<=\S)\1(?!\w)"), r"\2"),
    (re.compile(r"</?\w+[^<>\n]*>"), ""),
    (re.compile(r"\\([\\`*_{}\[\]()#+.!-])"), r"\1"),
]


def _markdown_block(block: str) -> str:
    """One paragraph on one line, but for the breaks that Markdown means."""
    block = re.sub(r"(?:  |\\)[ \t]*\n", "\v", block.strip("\n"))
    return "\n".join(" ".join(line.split()) for line in block.split("\v")).strip()
