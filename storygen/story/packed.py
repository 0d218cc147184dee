"""Zip archives of markup from strangers (.docx, .odt, .epub), repacked within bounds.

Whoever reads on sees an archive of our own making: a few files of markup, each once, not
compressed and not encrypted. What an archive says of its sizes is believed in nothing.
"""

import io
import re
import struct
import zipfile
from collections.abc import Iterator

from storygen.errors import StoryError
from storygen.story.layout import SCENE_BREAK

LARGEST_PART = 30_000_000  # bytes of one file in the archive; War and Peace in .odt is 4 million
LARGEST_WHOLE = 60_000_000
MOST_PARTS = 5_000

EPUB = "application/epub+zip"
ODT = "application/vnd.oasis.opendocument.text"

_DIRECTORY_END = struct.Struct("<4s4H2LH")
_LARGEST_DIRECTORY = 2_000_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # lzma's memory is its author's to choose
_KEPT = ("xml", "rels", "opf", "xhtml", "html", "htm", "ncx", "mimetype")
# A rule in .odt, which pandoc reads as an empty paragraph.
_RULE = re.compile(rb'<text:p text:style-name="Horizontal_20_Line"(?:/>|></text:p>)')
_SCENE_BREAK = f"<text:p>{SCENE_BREAK}</text:p>".encode()
_BROKEN = "it is damaged: save it anew"


def repacked(data: bytes) -> tuple[str, bytes]:
    """The kind of a document ("docx", "odt", "epub") and an archive of its markup alone.

    Raises StoryError, as the end of a sentence, for a bomb, a damaged or an encrypted file, and
    for one that is no document.
    """
    _check_directory(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            if len(names) > MOST_PARTS:
                raise StoryError(f"it holds more than {MOST_PARTS:,} files")
            kind = _kind(archive, names)
            return kind, _pack(_parts(archive, names))
    except StoryError:
        raise
    except Exception as error:  # zipfile and zlib have many ways to fail on damaged archives
        raise StoryError(_BROKEN) from error


def _check_directory(data: bytes) -> None:
    """Refuse a directory that would take long to list, which zipfile does before anything."""
    at = data.rfind(b"PK\x05\x06", max(0, len(data) - 65_600))
    if at < 0 or at + _DIRECTORY_END.size > len(data):
        raise StoryError(_BROKEN)
    size = _DIRECTORY_END.unpack_from(data, at)[5]
    if size > _LARGEST_DIRECTORY or data[at - 20 : at].startswith(b"PK\x06\x07"):
        raise StoryError(f"it holds more than {MOST_PARTS:,} files")


def _kind(archive: zipfile.ZipFile, names: set[str]) -> str:
    if "mimetype" in names:
        with archive.open("mimetype") as part:
            declared = part.read(100).decode("ascii", "replace").strip()
        if declared in (EPUB, ODT):
            return "epub" if declared == EPUB else "odt"
    if "word/document.xml" in names:
        return "docx"
    if "META-INF/container.xml" in names:
        return "epub"
    raise StoryError("it is an archive and no document: unpack it first")


def _parts(archive: zipfile.ZipFile, names: set[str]) -> Iterator[tuple[str, bytes]]:
    whole = 0
    for name in sorted(names, key=lambda name: (name != "mimetype", name)):
        if name.rpartition("/")[2].rpartition(".")[2].lower() not in _KEPT:
            continue
        info = archive.getinfo(name)
        if info.flag_bits & 1 or name == "META-INF/encryption.xml":
            raise StoryError("it is encrypted: save it without a password or copy protection")
        if info.compress_type not in _METHODS:
            raise StoryError("it is packed in an unusual way: save it anew")
        with archive.open(info) as part:
            data = part.read(LARGEST_PART + 1)
        whole += len(data)
        if len(data) > LARGEST_PART or whole > LARGEST_WHOLE:
            raise StoryError("it unpacks to more than any book holds")
        bare = data.replace(b"\0", b"")  # as it would be in UTF-8
        if b"<!ENTITY" in bare:
            raise StoryError("it defines XML entities, which may be a trap: save it anew")
        if b"manifest:encryption-data" in bare:
            raise StoryError("it is encrypted: save it without a password")
        yield name, _RULE.sub(_SCENE_BREAK, data)


def _pack(parts: Iterator[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in parts:
            archive.writestr(zipfile.ZipInfo(name), data)
    return packed.getvalue()
