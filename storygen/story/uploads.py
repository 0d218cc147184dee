"""A stranger's file as a story that is not stored yet, read by a process of its own.

    head, passages = the first line that it writes, and every other one

Whatever a file makes of its reader, be it slow, large or stuck, this process goes on: a call that
parses 64 MB would hold up everyone's words for seconds, in whichever thread. Only what was checked
comes back, passage by passage.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from storygen.errors import StoryError
from storygen.story import archive, drafts, leash
from storygen.story.archive import OWN, Whole
from storygen.story.tree import Mark, Passage

SECONDS = 30  # of a processor, for what Python does; pandoc has its own
PATIENCE = 100.0
MEMORY = 1_000_000_000  # bytes, of the process and of pandoc each
MOST_TOLD = 2 * archive.MAX_FILE  # bytes of what it writes

_NO_MEMORY: Final = 3  # how it exits
_ROOT: Final = Path(__file__).resolve().parents[2]
_COMMAND: Final = (sys.executable, "-E", "-s", "-m", "storygen.story.uploads")


def read(name: str, data: bytes | bytearray) -> Whole:
    """The story in a file; raises StoryError, in a sentence, for what cannot be read."""
    named = json.dumps(name).encode() + b"\n"
    try:
        with leash.leashed(
            _COMMAND,
            named,
            data,
            seconds=SECONDS,
            patience=PATIENCE,
            memory=MEMORY,
            cwd=str(_ROOT),
            codes={_NO_MEMORY: leash.TOO_MUCH_MEMORY},
        ) as output:
            told = _told(output)
    except StoryError as error:
        raise StoryError(f"{drafts.shown(name)} was not read: {error}.") from error
    if isinstance(told, str):
        raise StoryError(told)
    return told


def _told(output: IO[bytes]) -> Whole | str:
    """What the process writes: a story, or why there is none."""
    lines = _lines(output)
    head = json.loads(next(lines, '{"error": ""}'))
    if "error" in head:
        return str(head["error"])
    whole = Whole(**head)
    for line in lines:
        values = json.loads(line)
        if "text" not in values:
            source = whole.passages[int(values["source_id"]) - 1]
            values |= {name: getattr(source, name) for name in OWN}
        if mark := values.pop("mark", None):
            whole.marks[values["id"]] = Mark(**mark)
        moment = datetime.fromisoformat(values["created_at"])
        whole.passages.append(Passage(**values | {"created_at": moment}))
    return whole


def _lines(output: IO[bytes]) -> Iterator[bytes]:
    """The lines that the process writes, of which no more than MOST_TOLD bytes are ever read."""
    left = MOST_TOLD
    while line := output.readline(left + 1):
        left -= len(line)
        if left < 0:
            raise StoryError(f"what is in it takes more than {MOST_TOLD:,} bytes")
        yield line


def main() -> None:
    """The process: its input is a line with the file's name, and the file."""
    leash.share_group()
    name = json.loads(sys.stdin.buffer.readline())
    try:
        whole = _whole(name, sys.stdin.buffer.read())
        _write(vars(whole) | {"passages": [], "marks": {}})
        for passage in whole.passages:
            _write(_line(passage, whole))
    except StoryError as error:
        _write({"error": str(error)})
    except MemoryError:
        sys.exit(_NO_MEMORY)


def _line(passage: Passage, whole: Whole) -> dict[str, Any]:
    """A passage as it is told: what a copy has from its source is told once, and kept once."""
    source = whole.passages[int(passage.source_id) - 1] if passage.source_id else None
    place = {name: value for name, value in vars(passage).items() if name not in OWN}
    mark = whole.marks.get(passage.id)
    said = {"mark": asdict(mark)} if mark else {}
    moment = {"created_at": passage.created_at.isoformat()}
    return place | archive.own(passage, source) | moment | said


def _whole(name: str, data: bytes) -> Whole:
    """A story whole, or a draft cut into passages."""
    if is_whole(name):
        return archive.load(data)
    draft = drafts.read(name, data)
    now = datetime.now(UTC)
    passages = [
        Passage(str(number), "", str(number - 1) if number > 1 else None, "writer", text, now)
        for number, text in enumerate(drafts.split(draft.text), 1)
    ]
    return Whole(draft.title, {}, passages[-1].id, passages)


def is_whole(name: str) -> bool:
    """Whether a file of this name should be a story that was written out here."""
    return name.lower().endswith(".json")


def _write(values: dict[str, Any]) -> None:
    line = json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass")
    sys.stdout.buffer.write(line + b"\n")


if __name__ == "__main__":
    main()
