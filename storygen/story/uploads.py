"""A stranger's file as a story that is not stored yet, read by a process of its own.

    head, passages = the first line that it writes, and every other one

Whatever a file makes of its reader, be it slow, large or stuck, this process goes on: a call that
parses 64 MB would hold up everyone's words for seconds, in whichever thread. Only what was checked
comes back, passage by passage.
"""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

from storygen.errors import StoryError
from storygen.story import archive, drafts, leash
from storygen.story.archive import Whole
from storygen.story.tree import Mark, Passage

SECONDS = 30  # of a processor, for what Python does; pandoc has its own
PATIENCE = 100.0
MEMORY = 1_000_000_000  # bytes, of the process and of pandoc each

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
    head = json.loads(output.readline() or '{"error": ""}')
    if "error" in head:
        return str(head["error"])
    whole = Whole(**head)
    for line in output:
        values = json.loads(line)
        if mark := values.pop("mark", None):
            whole.marks[values["id"]] = Mark(**mark)
        moment = datetime.fromisoformat(values["created_at"])
        whole.passages.append(Passage(**values | {"created_at": moment}))
    return whole


def main() -> None:
    """The process: its input is a line with the file's name, and the file."""
    leash.share_group()
    name = json.loads(sys.stdin.buffer.readline())
    try:
        whole = _whole(name, sys.stdin.buffer.read())
        _write(vars(whole) | {"passages": [], "marks": {}})
        for passage in whole.passages:
            mark = whole.marks.get(passage.id)
            said = {"mark": asdict(mark)} if mark else {}
            _write(vars(passage) | {"created_at": passage.created_at.isoformat()} | said)
    except StoryError as error:
        _write({"error": str(error)})
    except MemoryError:
        sys.exit(_NO_MEMORY)


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
    sys.stdout.write(json.dumps(values) + "\n")


if __name__ == "__main__":
    main()
