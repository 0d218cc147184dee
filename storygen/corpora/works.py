"""What a corpus is made of: works, read from whatever files a writer or a data set has.

A work is what the split keeps whole. A file is one work, but a table of plots or a collection in
a single file is many: there each story is a work of its own, and its hash decides its side.
"""

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from storygen.corpora.books import docx_text, epub_text
from storygen.corpora.markup import markdown_text
from storygen.corpora.plain import plain_text
from storygen.corpora.plays import name_speakers
from storygen.errors import TrainError
from storygen.files import sha256
from storygen.text import whole_characters
from storygen.tokenizers import END_OF_TEXT

HELD_OUT = 0.1
COLLECTION = 20  # stories from which on a single file is split between them
END_OF_PLOT = "END_OF_PLOT"
KINDS = (".txt", ".md", ".epub", ".docx", ".csv", ".jsonl")


@dataclass(frozen=True)
class Work:
    """A text by its file's name; held_out is None until somebody decides its side."""

    name: str
    text: str
    held_out: bool | None = None
    sha256: str = ""  # of the file


def read_works(source: Path, separator: str = END_OF_TEXT) -> list[Work]:
    """The works of a folder and the folders in it, or of one file; raises TrainError for none.

    separator is the line that stands between two stories of one text.
    """
    files = [source] if source.is_file() else sorted(_visible_files(source))
    if not files:
        raise TrainError(f"{source} holds no {', '.join(KINDS)} file: name your books with --from.")
    return read_files(files, source, separator)


def read_files(files: Sequence[Path], source: Path, separator: str = END_OF_TEXT) -> list[Work]:
    """The works of some files, named as they lie below source."""
    works = [work for file in files for work in _read(file, _name(file, source), separator)]
    if not any(work.text.strip() for work in works):
        raise TrainError(f"{source} holds no text: name your books with --from.")
    if len(works) == 1:
        texts = list(stories(works[0].text))
        if len(texts) >= COLLECTION:
            return split_stories(works[0].name, works[0].sha256, zip(texts, texts, strict=True))
    return works


def stories(text: str) -> Iterator[str]:
    """The stories of a work, which stand apart by <|endoftext|>."""
    for story in text.split(END_OF_TEXT):
        if story.strip():
            yield story.strip() + "\n"


def split_stories(name: str, digest: str, keyed: Iterable[tuple[str, str]]) -> list[Work]:
    """Two works of one file's (key, story) pairs: about a tenth of the keys are held out, by
    their hashes, so a story's side depends on its key alone; at least one key is on each side.
    Stories of one key stay together, and where there is no other key they are one work."""
    pairs = [(_fraction(key), story.strip() + "\n") for key, story in keyed]
    between = f"\n{END_OF_TEXT}\n\n"
    fractions = sorted({fraction for fraction, _ in pairs})
    if len(fractions) < 2:
        return [Work(name, between.join(story for _, story in pairs), None, digest)]
    cut = min(max(HELD_OUT, fractions[1]), fractions[-1])
    sides: dict[bool, list[str]] = {False: [], True: []}
    for fraction, story in pairs:
        sides[fraction < cut].append(story)
    return [Work(name, between.join(texts), held, digest) for held, texts in sides.items()]


def _fraction(key: str) -> float:
    """A number from 0 to 1 that is the same for the same key, in whatever case and spacing."""
    digest = hashlib.sha256(" ".join(key.casefold().split()).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _visible_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in KINDS and path.is_file() and not hidden:
            yield path


def _name(file: Path, source: Path) -> str:
    return file.name if file == source else file.relative_to(source).as_posix()


def _read(file: Path, name: str, separator: str) -> list[Work]:
    suffix = file.suffix.lower()
    try:
        digest = sha256(file)
        if suffix in (".csv", ".jsonl"):
            return split_stories(name, digest, _TABLES[suffix](file))
        text = _TEXTS.get(suffix, _plain)(file)
    except UnicodeDecodeError as error:
        raise TrainError(f"{file} is not UTF-8 text: {error}.") from None
    except OSError as error:
        raise TrainError(f"{file} cannot be read: {error.strerror}.") from None
    if separator != END_OF_TEXT:
        text = re.sub(rf"^[ \t]*{re.escape(separator)}[ \t]*$", END_OF_TEXT, text, flags=re.M)
    return [Work(name, name_speakers(text), None, digest)]


def _plain(file: Path) -> str:
    return plain_text(file.read_text(encoding="utf-8"))


def _markdown(file: Path) -> str:
    return markdown_text(file.read_text(encoding="utf-8-sig"))


def _csv_stories(file: Path) -> Iterator[tuple[str, str]]:
    """Stories of a table with the columns of the film plots, or of the Office's lines."""
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        rows = csv.DictReader(lines)
        columns = set(rows.fieldnames or ())
        try:
            if columns >= {"Title", "Plot"}:
                for row in rows:
                    yield from _plot(row["Title"], row["Plot"])
            elif columns >= {"speaker", "line_text", "deleted"}:
                yield from _scenes(rows)
            else:
                raise TrainError(
                    f"{file} has the columns {', '.join(sorted(columns))[:80] or 'of no table'}: "
                    "Title and Plot are needed, or speaker, line_text and deleted."
                )
        except csv.Error as error:
            raise TrainError(f"{file} is no table at line {rows.line_num}: {error}.") from None


def _jsonl_stories(file: Path) -> Iterator[tuple[str, str]]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                yield from _plot(record["title"], record["plot"])
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise TrainError(
                    f"{file}, line {number} is no JSON object with title and plot as texts."
                ) from None


def _plot(title: str, plot: str) -> Iterator[tuple[str, str]]:
    """A film's plot after the line that asks for it, as the model will be asked."""
    title = " ".join(whole_characters(title).split())
    plot = re.sub(r"\s*\n\s*", "\n", whole_characters(plot).strip())
    if title and plot:
        yield title, f"The plot summary of the movie named '{title}' is:\n{plot}\n{END_OF_PLOT}"


def _scenes(rows: Iterable[dict[str, str]]) -> Iterator[tuple[str, str]]:
    """`speaker: line` for each line that was not cut, an episode a story where it says so."""
    episodes: dict[str, list[str]] = {}
    for row in rows:
        line = " ".join((row["line_text"] or "").split())
        if line and (row["deleted"] or "").strip().lower() not in ("true", "1", "yes"):
            episode = f"season {row.get('season')} episode {row.get('episode')}"
            episodes.setdefault(episode, []).append(f"{(row['speaker'] or '').strip()}: {line}")
    for episode, lines in episodes.items():
        yield episode, "\n".join(lines)


_TEXTS: dict[str, Callable[[Path], str]] = {
    ".md": _markdown,
    ".epub": epub_text,
    ".docx": docx_text,
}
_TABLES = {".csv": _csv_stories, ".jsonl": _jsonl_stories}
