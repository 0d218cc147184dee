"""Drafts are told by their content, read as plain text, and refused where they are a trap."""

import io
import struct
import threading
import time
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storygen.errors import StoryError
from storygen.story import drafts, leash, packed, pandoc
from storygen.story.drafts import Draft, read
from storygen.story.layout import SCENE_BREAK

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
CONTAINER = """<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">
<rootfiles><rootfile full-path="b.opf" media-type="application/oebps-package+xml"/></rootfiles>
</container>"""
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf" version="3.0"><metadata
 xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The Fog</dc:title></metadata><manifest>
<item id="b" href="b.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>
<item id="p" href="p.png" media-type="image/png"/></manifest>
<spine><itemref idref="a"/><itemref idref="b"/></spine></package>"""
PAGE = '<html xmlns="http://www.w3.org/1999/xhtml"><body>{}</body></html>'
OFFICE = "urn:oasis:names:tc:opendocument:xmlns"


def zipped(parts: dict[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return data.getvalue()


def docx(body: str, **parts: str | bytes) -> bytes:
    """A Word file with the fewest parts that are one."""
    types = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r" Type="{office}" Target="word/document.xml"/></Relationships>'
    )
    document = f'<w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    known = {"[Content_Types].xml": types, "_rels/.rels": relations, "word/document.xml": document}
    return zipped(known | parts)


def epub(first: str, second: str = "<p>Second.</p>", **parts: str | bytes) -> bytes:
    pages = {"a.xhtml": PAGE.format(first), "b.xhtml": PAGE.format(second)}
    known = {"META-INF/container.xml": CONTAINER, "b.opf": PACKAGE}
    return zipped({"mimetype": packed.EPUB} | known | pages | parts)


def odt(body: str) -> bytes:
    names = " ".join(f'xmlns:{name}="{OFFICE}:{name}:1.0"' for name in ("office", "text", "style"))
    content = (
        f'<office:document-content {names} office:version="1.3"><office:body><office:text>'
        f"{body}</office:text></office:body></office:document-content>"
    )
    styles = f"<office:document-styles {names}><office:styles/></office:document-styles>"
    return zipped({"mimetype": packed.ODT, "content.xml": content, "styles.xml": styles})


def paragraph(text: str) -> str:
    return f'<w:p><w:r><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'


TWO = "It was dark.\n\nRain fell."
DRAFTS = {
    "txt": TWO.encode(),
    "md": b"It was **dark**.\n\nRain\n_fell_.\n",
    "html": b"<!DOCTYPE html><p>It was <b>dark</b>.</p><p>Rain\n fell.</p>",
    "rtf": rb"{\rtf1\ansi It was {\b dark}.\par Rain fell.\par}",
    "docx": docx(paragraph("It was dark.") + paragraph("Rain fell.")),
    "odt": odt("<text:p>It was dark.</text:p><text:p>Rain fell.</text:p>"),
    "epub": epub("<p>It was <i>dark</i>.</p>", "<p>Rain fell.</p>"),
}


@pytest.mark.parametrize("kind", DRAFTS)
def test_every_kind_gives_its_paragraphs(kind: str) -> None:
    draft = read(f"C:\\drafts\\The Fog.{kind}", DRAFTS[kind])
    assert draft == Draft("The Fog", TWO)


@pytest.mark.parametrize("kind", ["html", "rtf", "docx", "odt", "epub"])
def test_content_says_what_a_file_is_whatever_its_name(kind: str) -> None:
    assert read("fog.txt", DRAFTS[kind]).text == TWO
    assert read("", DRAFTS[kind]).text == TWO


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("“Oui”, dit-elle…".encode("utf-8-sig"), "“Oui”, dit-elle…"),
        ("“Oui”, dit-elle…".encode("utf-16"), "“Oui”, dit-elle…"),
        ("“Oui”, dit-elle à moi".encode("utf-16-le"), "“Oui”, dit-elle à moi"),
        ("“Oui”, dit-elle à moi".encode("utf-16-be"), "“Oui”, dit-elle à moi"),
        ("“Oui”, dit-elle…".encode("utf-32"), "“Oui”, dit-elle…"),
        ("“Oui”, dit-elle…".encode("cp1252"), "“Oui”, dit-elle…"),
        ("é".encode() * 20 + b"\xe9", "é" * 20 + "\ufffd"),  # one slip in UTF-8
        (b"a\r\nb\rc\n", "a\nb\nc\n"),
    ],
)
def test_encodings_are_recognised(data: bytes, text: str) -> None:
    assert read("a.txt", data).text == text


@settings(max_examples=50)
@given(st.text(st.characters(codec="utf-8", categories=("L", "P", "Z", "N", "S")), min_size=1))
def test_plain_text_arrives_as_it_is(text: str) -> None:
    if text.strip() and not text.lower().lstrip().startswith(
        ("<html", "<!doctype", "{\\rtf", "%PDF")
    ):
        assert read("a.txt", text.encode()).text == text


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("# The Fog\n\nText.", "The Fog\n\nText."),
        ("One\n\n---\n\nTwo", f"One\n\n{SCENE_BREAK}\n\nTwo"),
        ("- “Hello.”\n- “You?”", "- “Hello.”\n- “You?”"),
        ("1984. A year.", "1984. A year."),
        ("    He had indented it.", "He had indented it."),
        ("Text[^1] goes on.\n\n[^1]: A note.", "Text goes on."),
        ("A [link](http://x.example) ![and](a.png)picture", "A link picture"),
        ("<b>Bold</b> <whispers> x < y &amp; z", "Bold <whispers> x < y & z"),
        ("<div>\nIn a box.\n</div>", "In a box."),
        ("Roses are red  \nviolets\\\nblue", "Roses are red\nviolets\nblue"),
        ("> Dear Ann,\n>\n> I am well.", "Dear Ann,\n\nI am well."),
    ],
)
def test_markdown_means_what_it_says(markdown: str, text: str) -> None:
    assert read("a.md", markdown.encode()).text == text


@pytest.mark.parametrize(
    ("matter", "title"),
    [
        ('---\ntitle: "A \\"Fog\\""\nauthor: x\n---\n', 'A "Fog"'),
        ("---\ntitle: 'Ann''s Fog'\n---\n\n", "Ann's Fog"),
        ("---\ntags:\n  - a\ntitle: Fog: a story\n...\n", "Fog: a story"),
        ("---\n\nNo matter.\n\n---\n\n", "a"),
    ],
)
def test_the_front_matter_of_markdown_holds_its_title(matter: str, title: str) -> None:
    draft = read("a.md", f"{matter}It was dark.".encode())
    assert draft.title == title
    assert draft.text.endswith("It was dark.")
    assert "title" not in draft.text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<h1>I</h1><p>One<br>two</p><hr><p>Three</p>", f"I\n\nOne\ntwo\n\n{SCENE_BREAK}\n\nThree"),
        ("<p>&nbsp;</p><p>&nbsp;&nbsp;In a&nbsp;box</p>", "  In a\xa0box"),
        ('<p>It<sup><a href="#n1">1</a></sup> was<a href="#n2">[2]</a>.</p>', "It was."),
        ("<script>x()</script><style>p{}</style><p>Text</p>", "Text"),
        ("<p>* * * * *</p>", SCENE_BREAK),
        ("<table><tr><td>ANN</td><td>Yes.</td></tr><tr><td>BOB</td></tr></table>", "ANN Yes.\nBOB"),
        ("<ol type=a><li>one<li>two</ol>", "a. one\nb. two"),
        ("<dl><dt>Fog</dt><dd>Wet.</dd></dl>", "Fog\n\nWet."),
        ("<p><q>Yes</q></p>", "“Yes”"),
    ],
)
def test_html_becomes_paragraphs(html: str, text: str) -> None:
    assert read("a.html", html.encode()).text == text


def test_what_programs_say_of_a_title_is_its_title() -> None:
    assert (
        read("a.html", b"<html><head><title>The  Fog</title></head><p>x</p></html>").title
        == "The Fog"
    )
    assert read("a.epub", epub("<p>x</p>")).title == "The Fog"
    assert read("dir/My draft v2.txt", b"x").title == "My draft v2"
    assert len(read("x" * 999 + ".txt", b"x").title) == drafts.MAX_TITLE


def test_word_files_lose_notes_and_pictures_and_what_was_deleted() -> None:
    body = (
        '<w:p><w:r><w:t>Kept</w:t></w:r><w:del w:id="1"><w:r><w:delText> gone</w:delText></w:r>'
        '</w:del><w:ins w:id="2" w:author="A" w:date="2026-01-01T00:00:00Z"><w:r>'
        '<w:t xml:space="preserve"> too</w:t></w:r></w:ins>'
        '<w:r><w:footnoteReference w:id="2"/></w:r></w:p>'
    )
    notes = f'<w:footnotes xmlns:w="{WORD}"><w:footnote w:id="2">{paragraph("Note")}</w:footnote>'
    parts = {"word/footnotes.xml": notes + "</w:footnotes>", "word/media/a.png": b"\x89PNG"}
    assert read("a.docx", docx(body, **parts)).text == "Kept too"


def test_rules_of_writer_are_scene_breaks() -> None:
    rule = '<text:p text:style-name="Horizontal_20_Line"/>'
    body = f"<text:p>One</text:p>{rule}<text:p>Two</text:p>"
    assert read("a.odt", odt(body)).text == f"One\n\n{SCENE_BREAK}\n\nTwo"


@pytest.mark.parametrize("fallback", ["?", "_", r"\'3f", " ", " ?"])
def test_rich_text_keeps_characters_of_two_halves(fallback: str) -> None:
    characters = "".join(rf"\u{number}{fallback}" for number in (-10179, -8704, 8217))
    rtf = rf"{{\rtf1\ansi\uc{1 - fallback.isspace()} a {characters}b\par}}"
    assert read("a.rtf", rtf.encode()).text == "a \N{GRINNING FACE}’b"


BOMB = zlib.compressobj(9, zlib.DEFLATED, -15)
ZEROS = BOMB.compress(b" " * 400_000_000) + BOMB.flush()  # 400 kB


def bomb() -> bytes:
    """An archive whose document says that it has 100 bytes."""
    name = b"word/document.xml"
    sizes = struct.pack("<LLL", zlib.crc32(b""), len(ZEROS), 100)
    entry = struct.pack("<4s5H", b"PK\x03\x04", 20, 0, 8, 0, 33) + sizes
    entry += struct.pack("<HH", len(name), 0) + name + ZEROS
    listed = struct.pack("<4s6H", b"PK\x01\x02", 20, 20, 0, 8, 0, 33) + sizes
    listed += struct.pack("<5HLL", len(name), 0, 0, 0, 0, 0, 0) + name
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, len(listed), len(entry), 0)
    return entry + listed + end


def encrypted() -> bytes:
    data = bytearray(docx(paragraph("secret")))
    at = -1
    while (at := data.find(b"PK\x01\x02", at + 1)) >= 0:
        data[at + 8] |= 1
    return bytes(data)


def many() -> bytes:
    return zipped({f"{number}.xml": b"" for number in range(packed.MOST_PARTS + 1)})


def endless_directory() -> bytes:
    return (
        b"PK\x03\x04"
        + b"\0" * 3_000_000
        + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 2_999_000, 4, 0)
    )


ENTITIES = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b SYSTEM "file:///etc/passwd">]>'
PROTECTED = "<manifest:manifest><manifest:encryption-data/></manifest:manifest>"
TRAPS = {
    "a bomb": (bomb(), "damaged"),
    "much of everything": (zipped({f"{n}.xml": b" " * 29_000_000 for n in "abc"}), "no document"),
    "a heavy book": (
        epub("<p>x</p>", **{f"{n}.xhtml": b" " * 29_000_000 for n in "xyz"}),
        "more than any book",
    ),
    "a heavy page": (epub(" " * 31_000_000), "more than any book"),
    "many files": (many(), "more than 5,000 files"),
    "a long directory": (endless_directory(), "more than 5,000 files"),
    "encrypted": (encrypted(), "encrypted"),
    "with a password": (
        zipped({"mimetype": packed.ODT, "META-INF/manifest.xml": PROTECTED}),
        "encrypted",
    ),
    "copy protected": (epub("x", **{"META-INF/encryption.xml": "<x/>"}), "encrypted"),
    "entities": (docx("", **{"word/styles.xml": ENTITIES}), "entities"),
    "wide entities": (docx("", **{"word/styles.xml": ENTITIES.encode("utf-16")}), "entities"),
    "lzma": (zipped({"word/document.xml": "<x/>"}, zipfile.ZIP_LZMA), "unusual"),
    "cut off": (DRAFTS["docx"][:-30], "damaged"),
    "an archive in an archive": (zipped({"fog.docx": DRAFTS["docx"]}), "unpack it"),
    "an empty archive": (zipped({}), "unpack it"),
    "no XML": (zipped({"word/document.xml": "no"}), "damaged"),
    "an old .doc": (b"\xd0\xcf\x11\xe0" + b"\0" * 512, "save it as .docx"),
    "a PDF": (b"%PDF-1.7\n", "PDF"),
    "a program": (b"MZ\x90\0\3\0\0\0" * 100, "no text"),
    "noise": (bytes(range(1, 256)) * 10, "no text"),
    "nothing": (b"", "no text"),
    "spaces": (b" \n\n ", "no text"),
    "too much": (b"x" * (drafts.MAX_FILE + 1), "cut it"),
    "too long": (b"x" * (drafts.MAX_TEXT + 1), "cut it"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_traps_are_refused_in_a_sentence_and_soon(
    trap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, reason = TRAPS[trap]
    if trap != "no XML":
        monkeypatch.setattr(pandoc, "_run", lambda *_: pytest.fail("pandoc saw it"))
    start = time.process_time()
    with pytest.raises(StoryError, match=rf"^'fog\.txt' was not read: .*{reason}.*(?<!\.)\.$"):
        read("fog.txt", data)
    assert time.process_time() - start < 2


def test_a_picture_is_never_unpacked() -> None:
    data = docx(paragraph("Text"), **{"word/media/image.png": b" " * 100_000_000})
    kind, archive = packed.repacked(data)
    assert (kind, len(archive) < 5000) == ("docx", True)
    assert read("a.docx", data).text == "Text"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("notes.docx", "no .docx file"),
        ("notes.xls", r"'.xls' is not"),
        ("x" * 999 + ".c", "taken"),
    ],
)
def test_what_is_not_taken_is_told_with_what_is(name: str, reason: str) -> None:
    with pytest.raises(StoryError, match=reason) as refused:
        read(name, b"just text")
    assert ".txt, .md, .docx, .odt, .epub, .rtf and .html" in str(refused.value)
    assert len(str(refused.value)) < 300


def test_what_is_nested_without_end_is_refused() -> None:
    for name, data in (
        ("a.html", b"<div>" * 5000 + b"x"),
        ("a.html", b"<i><b>" * 700 + b"x"),
        ("a.md", b"> " * 2000 + b"x"),
    ):
        with pytest.raises(StoryError, match=f"'{name}' was not read"):
            read(name, data)


def test_a_slow_conversion_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    page = b"<p>One word after another.</p>" * 300_000
    monkeypatch.setattr(pandoc, "SECONDS", 1)
    with pytest.raises(StoryError, match="takes longer than 1 s"):
        read("a.html", page)
    monkeypatch.setattr(pandoc, "PATIENCE", 0.0)
    with pytest.raises(StoryError, match="takes longer than 0 s"):
        read("a.docx", DRAFTS["docx"])


def test_a_stop_ends_conversions_and_lets_none_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leash, "stopping", threading.Event())
    threading.Timer(0.5, leash.stop).start()
    for data in (b"<p>One word after another.</p>" * 300_000, b"<p>Text.</p>"):
        with pytest.raises(StoryError, match="the server is being stopped"):
            read("a.html", data)
    assert not leash.running


def test_a_hungry_conversion_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pandoc, "MEMORY", "20m")
    with pytest.raises(StoryError, match="too much memory"):
        read("a.html", b"<p>One word after another.</p>" * 50_000)


def test_a_long_answer_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pandoc, "LARGEST_ANSWER", 10)
    with pytest.raises(StoryError, match="too much memory"):
        read("a.docx", DRAFTS["docx"])


def test_no_file_of_this_machine_is_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("canary")
    markup = f'<p>x</p><iframe src="{secret}"></iframe><object data="file://{secret}"></object>'
    assert "canary" not in read("a.html", markup.encode()).text


@settings(max_examples=30)
@given(st.binary(max_size=300), st.sampled_from([*DRAFTS, "json", "xyz"]), st.data())
def test_anything_else_is_text_or_refused(noise: bytes, kind: str, data: st.DataObject) -> None:
    known = DRAFTS.get(kind, b"")
    at = data.draw(st.integers(0, len(known)))
    with suppress(StoryError):
        read(f"a.{kind}", known[:at] + noise + known[at:])
