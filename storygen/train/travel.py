"""What moves between here and a machine that is lent for an hour: folders in pieces with sums.

    python -m storygen.train.travel pack data/base --out parcels
    python -m storygen.train.travel unpack parcels --out .
    python -m storygen.train.travel part data/base fantasy --out data/fantasy

Pieces are of a size that may be carried, and SHA256SUMS says when one is missing or damaged. A
genre whose folder the base was made of need not travel: it is a part of the base.
"""

import argparse
import io
import json
import lzma
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np

from storygen.errors import StorygenError, TrainError
from storygen.files import atomic_directory, sha256, write_sums, wrong_sum

MEGABYTE = 2**20
PIECE = 16 * MEGABYTE
# Tokens are pairs of bytes, the lower first: so looked at, they take a tenth less.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 3, "lp": 1, "pb": 1}]
TOKENIZER = ("vocab.json", "merges.txt", "characters.json", "tokenizer_config.json")


def pack(folders: Sequence[Path], out: Path, piece: int = PIECE, compress: bool = True) -> int:
    """Write folders as pieces 000, 001 ... of so many bytes; how many. Weights, which are noise to
    a compressor, are better left as they are."""
    missing = [folder for folder in folders if not folder.exists()]
    if missing:
        raise TrainError(f"{missing[0]} does not exist: nothing was packed.")
    with atomic_directory(out) as new:
        with _Pieces(new, piece) as pieces:
            if compress:
                with lzma.LZMAFile(cast(Any, pieces), "w", filters=FILTERS) as squeezed:
                    _write_archive(folders, squeezed)
            else:
                _write_archive(folders, pieces)
        write_sums(new)
    return pieces.n


def unpack(parcel: Path, out: Path) -> None:
    """Put back what pack() wrote, below out. Raises TrainError for a piece that is missing or not
    what it was; nothing is written then."""
    paths = [path for path in parcel.glob("*") if path.name.isdecimal()]
    if not paths or not (parcel / "SHA256SUMS").is_file():
        raise TrainError(f"{parcel} holds no pieces with SHA256SUMS: pack a folder first.")
    wrong = wrong_sum(parcel)
    if wrong is not None:
        raise TrainError(f"{parcel / wrong} is missing or damaged: bring it once more.")
    paths.sort(key=lambda path: int(path.name))
    with io.BufferedReader(_Joined(paths)) as whole:
        is_compressed = whole.peek(6).startswith(b"\xfd7zXZ\0")
        stream = lzma.LZMAFile(whole) if is_compressed else whole
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            archive.extractall(out, filter="data")


def part(corpus: Path, folder: str, out: Path) -> int:
    """The works of one folder of a prepared corpus, as one of its own; how many.

    Raises TrainError where the corpus has none, or where its files are not those it describes.
    """
    try:
        meta = json.loads((corpus / "meta.json").read_text(encoding="utf-8"))
        ids = {s: np.memmap(corpus / f"{s}.bin", np.uint16, "r") for s in ("train", "val")}
        works = [
            work | {"folder": str(PurePosixPath(work["name"]).parent)} for work in meta["works"]
        ]
        totals = {s: sum(w["tokens"] for w in works if w["split"] == s) for s in ids}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainError(f"{corpus} is no prepared corpus ({error}).") from None
    if totals != {side: len(of) for side, of in ids.items()}:
        raise TrainError(f"{corpus / 'meta.json'} describes other token files. Prepare it anew.")
    chosen = [work for work in works if work["folder"] == folder]
    if {work["split"] for work in chosen} != {"train", "val"}:
        known = ", ".join(sorted({work["folder"] for work in works}))
        raise TrainError(f"{corpus} has no works of {folder!r} on both sides. Folders: {known}.")
    with atomic_directory(out) as new:
        for side, of in ids.items():
            here = [work for work in works if work["split"] == side]
            ends = np.cumsum([work["tokens"] for work in here])
            with (new / f"{side}.bin").open("wb") as file:
                for work, end in zip(here, ends, strict=True):
                    if work["folder"] == folder:
                        of[end - work["tokens"] : end].tofile(file)
        for name in TOKENIZER:
            if (corpus / name).is_file():
                (new / name).write_bytes((corpus / name).read_bytes())
        found = meta | {
            "name": folder,
            "train_tokens": sum(w["tokens"] for w in chosen if w["split"] == "train"),
            "val_tokens": sum(w["tokens"] for w in chosen if w["split"] == "val"),
            "files": {path.name: sha256(path) for path in sorted(new.iterdir())},
            "works": [{k: v for k, v in work.items() if k != "folder"} for work in chosen],
        }
        text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
        (new / "meta.json").write_text(text, encoding="utf-8")
    return len(chosen)


class _Pieces(io.RawIOBase):
    """A file that is written as several of a size."""

    def __init__(self, folder: Path, size: int) -> None:
        self.n, self._folder, self._size, self._left = 0, folder, size, 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """All of the data, into the last piece and new ones."""
        rest = memoryview(data).cast("B")
        while rest:
            if not self._left:
                self.n, self._left = self.n + 1, self._size
            now, rest = rest[: self._left], rest[self._left :]
            with (self._folder / f"{self.n - 1:03d}").open("ab") as file:
                file.write(now)
            self._left -= len(now)
        return memoryview(data).nbytes


class _Joined(io.RawIOBase):
    """Several files, read as one."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths, self._file = list(paths), io.BytesIO()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, into: Any) -> int:
        """Some bytes; 0 after the last."""
        while not (n := self._file.readinto(into)) and self._paths:
            self._file = io.BytesIO(self._paths.pop(0).read_bytes())
        return n


def _write_archive(folders: Sequence[Path], file: Any) -> None:
    with tarfile.open(fileobj=file, mode="w|") as archive:
        for folder in folders:
            archive.add(folder)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when done, 1 with a sentence on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m storygen.train.travel",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="folders into pieces with sums")
    packing.add_argument("folders", type=Path, nargs="+")
    packing.add_argument("--piece", type=int, default=PIECE, metavar="BYTES")
    packing.add_argument("--plain", action="store_true", help="do not compress")
    unpacking = commands.add_parser("unpack", help="pieces into folders, after a look at the sums")
    unpacking.add_argument("parcel", type=Path)
    parting = commands.add_parser("part", help="one genre of a base's corpus")
    parting.add_argument("corpus", type=Path)
    parting.add_argument("folder")
    for command in (packing, unpacking, parting):
        command.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        if args.command == "pack":
            n = pack(args.folders, args.out, args.piece, not args.plain)
            print(f"{args.out}: {n} piece{'s' * (n != 1)}.")
        elif args.command == "unpack":
            unpack(args.parcel, args.out)
        else:
            print(f"{args.out}: {part(args.corpus, args.folder, args.out)} works.")
    except StorygenError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
