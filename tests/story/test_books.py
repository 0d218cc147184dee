"""Books hold every character of a manuscript, and programs for books can open them."""

import io
import random
import re
import shutil
import subprocess
import unicodedata
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storygen.errors import StoryError
from storygen.story import pandoc
from storygen.story.books import FORMATS, UNTITLED, book
from storygen.story.drafts import Draft, read
from storygen.story.layout import SCENE_BREAK, Block, blocks

MAY = datetime(2026, 5, 1, 12, tzinfo=UTC)
STORY = "42a14256-91c8-446e-92a7-ab6bf11055d3"
BOUND = [form for form in FORMATS if form != "txt"]

LINES = """“No,” he said; 'never'. "Why?" — “Because…”
    An indented line with  two   spaces   inside
1984. It was a bright cold day
12) not a list
(3) nor this
- a dash of dialogue
– an en dash
+ a plus
> a quotation
* a star
*emphasis* and **more** and ***most***
_under_ __score__ snake_case_name a_b_c
`code` ``` ~~~ ~~struck~~ H~2~O x^2^
<whispers> </b> <!-- comment --> <br> <script>alert(1)</script> a < b > c
&amp; &lt; &copy; &#65; &#x41; & AT&T; &nosuch;
[x](y) ![x](y) [x]: y [^1] [^1]: note [[wiki]] [ ] [x]
$a$ and $$b$$ and \\(c\\) and $5
back\\slash \\ \\* \\n C:\\path\\
| a | b | and |
--- and -- and ... and ===
===
---
~~~
```
#hashtag #1
# 
####### seven
#
: a colon
::: fenced
{.class #id} {{x}} {% raw %}
% percent
@cite @someone :smile: www.example.com http://a.example/b_c?d=e&f
😀 👨‍👩‍👧‍👦 🏳️‍🌈 é ñ ﬁ Å
שרה אמרה: "שלום" and عائشة went, then ‮right‬ to left
天地玄黄，宇宙洪荒。 日本語 한국어
no\u00a0break thin\u2009space em\u2003space ideo\u3000graphic zero\u200bwidth soft\u00adhyphen
non\u2011breaking \u2060joined \ufeffmark
Ends in a backslash \\
Ends in two stars **
Tom & Jerry’s “<b>big</b>” night
'Tis ‘quoted’ ‹so› «là»
1. e4 e5 2. Nf3
Chapter of accidents, part of the plan
a*b*c 2*3*4 * * and * here
trailing_ _leading mid_dle
%s {0} %(name)s
\u2028""".replace("\u2028", "").split("\n")


def difficult_text(count: int = 500, seed: int = 0) -> str:
    """Lines as above, in paragraphs of one to three, between scene breaks and chapters."""
    draw = random.Random(seed)
    paragraphs = []
    while count > 0:
        size = min(draw.choice((1, 1, 1, 2, 3)), count)
        paragraphs.append("\n".join(draw.choice(LINES[:-1]).rstrip() for _ in range(size)))
        count -= size
        if draw.random() < 0.05:
            paragraphs.append(draw.choice((SCENE_BREAK, f"CHAPTER {count}", "Part Two: Home")))
    return "\n\n".join(paragraphs)


def held(text: str, form: str = "") -> str:
    """A text as docs/files.md says that a book holds it; Markdown is read with accents composed."""
    return unicodedata.normalize("NFC", text) if form == "md" else text


@pytest.mark.parametrize("form", FORMATS)
def test_500_difficult_lines_come_back_word_for_word(form: str) -> None:
    text = difficult_text()
    draft = read(f"a.{form}", book(form, text, title="The *Fog* <1>", author="A. & B."))
    assert draft.text.split("\n") == held(text, form).split("\n")
    assert draft.title == ("a" if form == "txt" else "The *Fog* <1>")


characters = st.characters(codec="utf-8", categories=("L", "P", "S", "N", "M", "Zs"))
lines = st.text(st.sampled_from("ab1.*_#-+=>:<&;[]()`~\\|$^! \"'") | characters, max_size=12)


@settings(max_examples=40)
@given(st.lists(lines, min_size=1, max_size=40), st.sampled_from(BOUND))
def test_any_lines_come_back(written: list[str], form: str) -> None:
    # Beginning and ending in a word, for what stands at the ends is said to change (below).
    text = "\n".join(f"x{line}x" for line in written)
    text = re.sub(" \xa0|\xa0 |\xa0{2,}", " ", text)
    assert read(f"a.{form}", book(form, text)).text == held(text, form)


@settings(max_examples=40)
@given(st.lists(lines, min_size=1, max_size=40))
def test_no_line_is_markup_in_markdown(written: list[str]) -> None:
    text = "\n".join(line for line in written if line.strip())
    found = {block.kind for block in blocks(text)} <= {"paragraph"}
    markdown = book("md", text).decode().split("\n---\n", 1)[1]
    document = pandoc.parse(markdown.encode(), "commonmark+footnotes+pipe_tables+strikeout")
    kinds = {"Str", "Space", "LineBreak"}
    for block in document.blocks if found else []:
        assert block["t"] == "Para", markdown
        assert {inline["t"] for inline in block["c"]} <= kinds, markdown


@pytest.mark.parametrize("form", BOUND)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One\n\n\n \nTwo\n", "One\n\nTwo"),  # one blank line, whatever there was
        ("One\n***\nTwo", f"One\n\n{SCENE_BREAK}\n\nTwo"),
        ("One\n\n⁂\n\nTwo", f"One\n\n{SCENE_BREAK}\n\nTwo"),
        ("# The Fog ##\nText", "The Fog\n\nText"),
        ("Chapter 3", "Chapter 3"),
        ("a\tb  \n\tc", "a    b\n    c"),
        ("a\x07\x00b\x0bc\x85d\u2028e\u2029f\r\ng", "ab\nc\nd\ne\n\nf\ng"),
        ("lone \ud800 half", "lone \ufffd half"),
        ("\xa0\xa0In\xa0a box\xa0", "  In\xa0a box"),
    ],
)
def test_what_a_book_cannot_hold_changes_as_documented(form: str, text: str, expected: str) -> None:
    assert read(f"a.{form}", book(form, text, title="T")).text == expected


def test_a_text_file_is_the_text_and_nothing_else() -> None:
    text = " \ttwo\n\n\n# three \x07\r\n"
    assert book("txt", text, title="T", author="A") == text.encode()


@pytest.mark.parametrize(
    ("line", "level"),
    [
        *[(f"{'#' * n} The Fog", n) for n in range(1, 7)],
        ("CHAPTER III", 1),
        ("Chapter 3: The Fog", 1),
        ("chapter twenty-one. Home", 1),
        ("Part Two", 1),
        ("Prologue", 1),
        ("Chapter one was dull.", 0),
        ("Part of the house was dark.", 0),
        ("I", 0),
        ("#hashtag", 0),
        ("# " + "x" * 300, 0),
    ],
)
def test_headings_are_told_from_sentences(line: str, level: int) -> None:
    kind = "heading" if level else "paragraph"
    text = line.lstrip("# ") if level else line
    assert list(blocks(f"\n\n{line}\n\n")) == [Block(kind, text, level)]


@settings(max_examples=50)
@given(st.text())
def test_any_text_has_blocks(text: str) -> None:
    for block in blocks(text):
        assert block.text.strip()
        assert "\n\n" not in block.text


def test_an_epub_has_a_page_for_each_chapter_and_says_what_it_is() -> None:
    text = "Before.\n\nChapter 1\n\nOne.\n\n## Inside\n\nTwo.\n\nCHAPTER II\n\nThree."
    data = book("epub", text, title="Fog & Co", author="Ann", story_id=STORY, at=MAY)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist()[0] == "mimetype"
        pages = [name for name in archive.namelist() if re.search(r"/ch\d+\.xhtml", name)]
        assert len(pages) == 3
        package = ElementTree.fromstring(archive.read("EPUB/content.opf"))
        nav = archive.read("EPUB/nav.xhtml").decode()
    said = {e.tag.rpartition("}")[2]: e.text for e in package.iter() if "dc/elements" in e.tag}
    assert said == {
        "identifier": f"urn:uuid:{STORY}",
        "title": "Fog & Co",
        "language": "en",
        "creator": "Ann",
        "date": "2026-05-01T12:00:00Z",
    }
    assert all(name in nav for name in ("Chapter 1", "Inside", "CHAPTER II"))


def test_a_book_is_the_same_bytes_every_time() -> None:
    for form in FORMATS:
        made = {book(form, "It was dark.", story_id=STORY, at=MAY) for _ in range(2)}
        assert len(made) == 1, form


def test_a_story_without_a_title_has_a_name_in_its_book() -> None:
    assert read("a.epub", book("epub", "Text.")).title == UNTITLED
    assert read("a.html", book("html", "Text.")).text == "Text."


def test_a_web_page_asks_for_nothing_and_runs_nothing() -> None:
    page = book("html", "<script>x</script>\n\nhttp://a.example/b.png", title="</title><script>")
    assert b"<script" not in page
    assert not re.search(rb"(?:src|href)\s*=|@import|url\(", page)


def test_an_unknown_or_an_endless_book_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoryError, match="'pdf' is no format of a book: choose txt, md, html"):
        book("pdf", "Text.")
    monkeypatch.setattr(pandoc, "PATIENCE", 0.0)
    with pytest.raises(StoryError, match=r"cannot be written as \.epub: it takes longer.*\.txt"):
        book("epub", "Text.")


def test_a_title_reads_back_from_every_format() -> None:
    title = 'A "title" \\ with *marks* & <tags>, 天 and é'
    for form in BOUND:
        assert read(f"a.{form}", book(form, "Text.", title=f" {title}\n")) == Draft(title, "Text.")


@pytest.mark.skipif(not shutil.which("epubcheck"), reason="epubcheck is not installed")
def test_epubcheck_finds_nothing(tmp_path: Path) -> None:
    text = f"### Deep\n\n{difficult_text()}\n\n# One\n\n* * *"
    path = tmp_path / "fog.epub"
    path.write_bytes(book("epub", text, title="<Fog> & Co", author="A", story_id=STORY))
    program = shutil.which("epubcheck") or ""
    java = ["java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-jar"]
    start = java if zipfile.is_zipfile(program) else []  # Debian's is a jar
    checked = subprocess.run([*start, program, path], capture_output=True, text=True)
    assert "0 fatals / 0 errors / 0 warnings" in checked.stdout, checked.stdout + checked.stderr
