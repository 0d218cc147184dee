"""Strangers' files: whatever one is, this process neither parses it nor waits for it."""

import json
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from storygen.errors import StoryError
from storygen.story import archive, drafts, leash, uploads
from tests.story.test_archive import WHOLE, branch_of

LISTS = b"[" + b"[]," * 5_000_000 + b"[]]"  # 16 MB that were 400 once parsed
BEGINNING = b'{"storygen": 1, "title": "", "settings": {}, "passages": '
SLOW = b"<p>One word after another.</p>" * 300_000


def test_a_story_comes_out_of_the_process_as_it_was_read_there() -> None:
    assert uploads.read("Fog.JSON", WHOLE) == archive.load(WHOLE)


def test_every_character_comes_out_of_the_process() -> None:
    told = {
        "number": 1,
        "role": "writer",
        "text": "\ud800 天\0\u2028\n😀",
        "at": "2026-01-01T00:00Z",
    }
    story = {"storygen": 1, "title": "\n", "settings": {}, "head": 1, "passages": [told]}
    data = json.dumps(story).encode()
    assert uploads.read("a.json", data) == archive.load(data)


def test_a_draft_comes_out_cut_into_a_branch() -> None:
    text = "\n\n".join(f"CHAPTER {n}\n\n" + "It was a dark night. " * 150 for n in range(1, 4))
    whole = uploads.read("My Fog.txt", text.encode())
    assert (whole.title, whole.settings, whole.marks) == ("My Fog", {}, {})
    assert [p.text for p in whole.passages] == drafts.split(text)
    assert [p.parent_id for p in whole.passages] == [None, "1", "2"]
    assert whole.head_id == "3"


def test_copies_come_out_of_the_process_once_and_share_their_text() -> None:
    story = json.loads(branch_of(50))
    story["passages"][0]["params"] = {"stop": ["xyz"]}
    del story["passages"][7]["source"]
    story["passages"][7]["text"] = "y"
    story["passages"][8]["source"] = 8
    data = json.dumps(story).encode()
    whole = uploads.read("a.json", data)
    assert whole == archive.load(data)
    assert len({id(passage.text) for passage in whole.passages}) == 2
    assert len({id(passage.params) for passage in whole.passages if passage.params}) == 1


def test_no_more_of_what_the_process_tells_is_read_than_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uploads, "MOST_TOLD", 1000)
    with pytest.raises(
        StoryError, match=r"^'a.json' was not read: what is in it takes more than 1,000 bytes\.$"
    ):
        uploads.read("a.json", branch_of(50))


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.json", b"[]", "This story was not read: the file is JSON, but no story."),
        ("a.pdf", b"%PDF-1.7", "'a.pdf' was not read: it is a PDF"),
        ("a.json", BEGINNING + LISTS + b"}", r"more than 3,000,000 values\.$"),
        ("", b"", "^This file was not read: there is no text in it.$"),
    ],
)
def test_what_is_wrong_is_said_in_the_same_words(name: str, data: bytes, sentence: str) -> None:
    with pytest.raises(StoryError, match=sentence):
        uploads.read(name, data)


def test_a_file_that_wants_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MEMORY", 100_000_000)
    with pytest.raises(StoryError, match=r"^'a.json' was not read: it takes too much memory\.$"):
        uploads.read("a.json", LISTS)


def test_a_file_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PATIENCE", 0.2)
    with pytest.raises(StoryError, match=r"^'a.html' was not read: it takes longer than 0 s\.$"):
        uploads.read("a.html", SLOW)


def living(group: int) -> list[str]:
    """The processes of a group that have not ended."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, of = status.read_text().rpartition(")")[2].split()[:3]
            found += [status.parent.name] if int(of) == group and state != "Z" else []
    return found


def test_a_stop_ends_the_process_and_what_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leash, "stopping", threading.Event())
    groups: list[int] = []

    def stop() -> None:
        groups.extend(process.pid for process in leash.running)
        leash.stop()

    threading.Timer(1.0, stop).start()
    with pytest.raises(StoryError, match="the server is being stopped"):
        uploads.read("a.html", SLOW)
    assert len(groups) == 1
    assert not leash.running
    until = time.monotonic() + 10  # a large process that was killed takes a moment to go
    while living(groups[0]):
        assert time.monotonic() < until
        time.sleep(0.01)
