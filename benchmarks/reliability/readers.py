"""Readers of what comes from outside, fed by atheris: only their own errors may come of it.

Run by fuzz.py: readers.py NAME [options of libFuzzer]
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["storygen"]):
    from storygen.checkpoints import stored, tensors
    from storygen.errors import CheckpointError, StoryError
    from storygen.story import archive, drafts
    from storygen.story.pandoc import Document

FOLDER = Path(tempfile.mkdtemp())  # in the one that fuzz.py removes
KINDS = ["txt", "md", "html", "rtf", "docx", "epub", "xyz"]


def not_pandoc(data: bytes, _: str) -> Document:
    """A document of one paragraph: pandoc is another program, and a fifth of a second."""
    paragraph = {"t": "Para", "c": [{"t": "Str", "c": data.decode("utf-8", "replace")}]}
    return Document({}, iter([paragraph]))


drafts.parse = not_pandoc


def read_tensors(data: bytes) -> None:
    """A safetensors file: its header, what it is made of, and each tensor."""
    path = FOLDER / "model.safetensors"
    # A header of any length is right in the length it claims, so that there is more to find.
    is_framed = data[:1] == b"{"
    path.write_bytes(len(data).to_bytes(8, "little") + data if is_framed else data)
    try:
        stored.read_shapes(path)
        for name in tensors.read_floats(path):
            tensors.read_tensor(path, name)
    except CheckpointError:
        pass


def read_draft(data: bytes) -> None:
    """A draft of any name."""
    if not data:
        return
    try:
        drafts.split(drafts.read(f"a.{KINDS[data[0] % len(KINDS)]}", data[1:]).text)
    except StoryError:
        pass


def read_archive(data: bytes) -> None:
    """A story whole."""
    try:
        archive.load(data)
    except StoryError:
        pass


READERS = {"tensors": read_tensors, "drafts": read_draft, "archives": read_archive}
SEEDS = {
    "tensors": [b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}', b'{"__metadata__":{}}'],
    "drafts": [b"\x00It began.\n\n***\n\nChapter 1", b"\x01# One\n\n*x*", b"\x03{\\rtf1 x}"],
    "archives": [
        b'{"storygen":1,"title":"","settings":{},"head":1,"passages":[{"number":1,'
        b'"role":"writer","text":"x","at":"2026-01-01T00:00:00Z"}]}'
    ],
}


def main() -> None:
    """Feed the reader that is named, from seeds that it takes."""
    name, *options = sys.argv[1:]
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[name]):
        (corpus / str(number)).write_bytes(seed)

    limits = [
        "-max_len=4096",
        "-timeout=5",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix={FOLDER}/",
    ]
    atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], READERS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
