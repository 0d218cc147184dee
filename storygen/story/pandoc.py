"""Pandoc, which reads and writes what writers' programs do: in a process of its own, on a leash.

It sees no file but its input and no network, and ends when it wants too much memory or time.
"""

import json
import resource
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, Any

from storygen.errors import StoryError

SECONDS = 20  # of a processor's time
PATIENCE = 60.0  # seconds in all, on a machine that has much to do
MEMORY = "1g"  # of its heap; War and Peace takes 0.4 to 1
EPOCH = b"1970-01-01T00:00:00Z"
LARGEST_ANSWER = 160_000_000  # bytes; a document's tree is seven times its text

_running: set[Popen[bytes]] = set()
_stopping = threading.Event()
_ENVIRONMENT = {"LANG": "C.UTF-8"}
_HEAP_EXHAUSTED = 251
_VERSION = [1, 23, 1]  # of the tree

Node = dict[str, Any]


@dataclass(frozen=True)
class Document:
    """What a document says of itself, and its blocks, which are read as they are asked for."""

    meta: Node
    blocks: Iterator[Node]


def parse(data: bytes, reader: str) -> Document:
    """Pandoc's tree of a document; raises StoryError for one that it cannot read."""
    head, found, blocks = _run(data, "-f", reader, "-t", "json").decode().partition('"blocks":[')
    assert found, head[:200]
    return Document(json.loads(f'{head}"blocks":[]}}')["meta"], _each(blocks))


def stop() -> None:
    """End every conversion, and begin none any more: the server is to end."""
    _stopping.set()
    for process in list(_running):
        process.kill()


def _each(blocks: str) -> Iterator[Node]:
    """Values with commas between up to a bracket. Parsed all at once, a novel would hold up
    everyone else's words for a second."""
    decoder = json.JSONDecoder()
    at = 0
    while blocks[at] != "]":
        block, at = decoder.raw_decode(blocks, at)
        at += blocks[at] == ","
        yield block


def render(blocks: list[Node], meta: dict[str, str], writer: str, *options: str) -> bytes:
    """A document of these blocks in another format, dated at EPOCH: it sees no clock either."""
    strings = {name: {"t": "MetaString", "c": value} for name, value in meta.items()}
    tree = {"pandoc-api-version": _VERSION, "meta": strings, "blocks": blocks}
    written = json.dumps(tree).encode("ascii")
    return _run(written, "-f", "json", "-t", writer, "--standalone", "--wrap=none", *options)


def _run(data: bytes, *arguments: str) -> bytes:
    limits = ("+RTS", f"-M{MEMORY}", "-RTS", "--sandbox")
    command = [_program(), *limits, *arguments, "--output=-"]
    with Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env=_ENVIRONMENT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        killed = threading.Event()

        def kill() -> None:
            killed.set()
            process.kill()

        if hasattr(resource, "prlimit"):  # on Linux
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        _running.add(process)
        timer = threading.Timer(0.0 if _stopping.is_set() else PATIENCE, kill)
        feeder = threading.Thread(target=_feed, args=(process.stdin, data))
        timer.start()
        feeder.start()
        try:
            answer = process.stdout.read(LARGEST_ANSWER + 1)
            if len(answer) > LARGEST_ANSWER:
                process.kill()
            code = process.wait()
        finally:
            process.kill()
            timer.cancel()
            feeder.join()
            _running.discard(process)
    if _stopping.is_set():
        raise StoryError("the server is being stopped, so try again later")
    if killed.is_set() or code == -signal.SIGXCPU:
        raise StoryError(f"it takes longer than {PATIENCE if killed.is_set() else SECONDS:.0f} s")
    if code == _HEAP_EXHAUSTED or len(answer) > LARGEST_ANSWER:
        raise StoryError("it takes too much memory")
    if code != 0:
        raise StoryError("it is damaged, or not what it says it is")
    return answer


def _feed(pipe: IO[bytes], data: bytes) -> None:
    """Write what the process reads; it may end before it has read all."""
    try:
        with pipe:
            pipe.write(data)
    except BrokenPipeError:
        return


@cache
def _program() -> str:
    """The pandoc that requirements.txt names, whatever others there are on this machine."""
    package = find_spec("pypandoc")
    places = package.submodule_search_locations if package else None
    for place in places or ():
        for name in ("pandoc", "pandoc.exe"):
            path = Path(place) / "files" / name
            if path.is_file():
                return str(path)
    raise StoryError("pandoc is missing: install pypandoc_binary as requirements.txt names it")
