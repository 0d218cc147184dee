"""Pandoc, which reads and writes what writers' programs do: on a leash.

It sees no file but its input and no network, and ends when it wants too much memory or time.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from storygen.errors import StoryError
from storygen.story.leash import TOO_MUCH_MEMORY, leashed

SECONDS = 20  # of a processor's time
PATIENCE = 60.0  # seconds in all, on a machine that has much to do
MEMORY = "1g"  # of its heap; War and Peace takes 0.4 to 1
EPOCH = b"1970-01-01T00:00:00Z"
LARGEST_ANSWER = 160_000_000  # bytes; a document's tree is seven times its text

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
    head = json.dumps({"pandoc-api-version": _VERSION, "meta": strings})
    # Block by block: written all at once, a novel would hold up everyone else's words.
    parts = ",".join([json.dumps(block) for block in blocks])
    written = f'{head[:-1]}, "blocks": [{parts}]}}'.encode("ascii")
    return _run(written, "-f", "json", "-t", writer, "--standalone", "--wrap=none", *options)


def _run(data: bytes, *arguments: str) -> bytes:
    limits = ("+RTS", f"-M{MEMORY}", "-RTS", "--sandbox")
    command = [_program(), *limits, *arguments, "--output=-"]
    codes = {_HEAP_EXHAUSTED: TOO_MUCH_MEMORY}
    with leashed(command, data, seconds=SECONDS, patience=PATIENCE, codes=codes) as output:
        answer = output.read(LARGEST_ANSWER + 1)
        if len(answer) > LARGEST_ANSWER:
            raise StoryError(TOO_MUCH_MEMORY)
    return answer


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
