"""Pickled checkpoints (.pth, .pt, .bin), opened by nobody but a limited child process.

What can be judged without opening is judged here first, so that most of what is hostile costs a
few milliseconds: the table of the zip file, and which names its pickle asks for. The child is
unpickle.py; what it hands back are safetensors files. There is no other way to open a pickle.
"""

import io
import json
import os
import pickletools
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from storygen.checkpoints.importers import unpickle
from storygen.checkpoints.weights import Weight, weights_of
from storygen.errors import CheckpointError

MAX_PICKLE = 4 << 20  # bytes; with an optimizer's state, GPT-2 XL's has 0.3 million
MAX_OPCODES = 1_000_000
MAX_ENTRIES = 20_000  # GPT-2 XL has 600 tensors, three times that with its optimizer
SECONDS = 300
# Names a pickle of weights may ask for; torch's own rule is about the same, but says it late.
HARMLESS = re.compile(
    r"collections OrderedDict"
    r"|torch \w+Storage|torch\.storage (?:Typed|Untyped)Storage"
    r"|torch\._utils _rebuild_(?:tensor(?:_v2)?|parameter(?:_with_state)?)"
    r"|torch (?:float(?:16|32|64)|bfloat16|u?int(?:8|16|32|64)|bool|Size|device)"
    r"|torch\._tensor _rebuild_from_type_v2|torch Tensor|torch\.nn\.parameter Parameter"
    r"|torch\.serialization _get_layout|_codecs encode"
)
INSTEAD = (
    "If it is yours, save only its weights, torch.save(model.state_dict(), PATH), and import those."
)


def open_pickle(path: Path, scratch: Path) -> tuple[dict[str, Weight], dict[str, Any]]:
    """Weights by name, and what is said beside them, of a pickled checkpoint.

    The converted files are written to scratch, which must live as long as the weights are read.
    Raises CheckpointError for everything that is not just weights.
    """
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            _check_zip(path, file)
        else:
            _check_legacy(path, file)
    target = scratch / path.name
    _convert(path, target)
    weights: dict[str, Weight] = {}
    for part in sorted(scratch.glob(f"{_glob_escaped(path.name)}-*.safetensors")):
        weights |= weights_of(part, path)
    said = json.loads(target.with_name(f"{path.name}.json").read_text(encoding="utf-8"))
    return weights | {new: weights[old] for new, old in said["aliases"].items()}, said["values"]


def _check_zip(path: Path, file: BinaryIO) -> None:
    """Bounds of the table, nothing packed, and the names in data.pkl."""
    size = path.stat().st_size
    entries = _entry_count(file, size)
    if entries is None:
        raise CheckpointError(
            f"{path} is damaged or cut off: the table at its end is missing. Copy or "
            "download it again."
        )
    if entries > MAX_ENTRIES:
        raise CheckpointError(
            f"{path} has {entries:,} entries, and at most {MAX_ENTRIES:,} can be read. {INSTEAD}"
        )
    try:
        archive = zipfile.ZipFile(file)
        infos = archive.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos) or (
            sum(info.file_size for info in infos) > size
        ):
            raise CheckpointError(
                f"{path} holds packed data, which torch.save never writes: it could unpack to any "
                "size. Load it where it was made and save it again."
            )
        pickles = [info for info in infos if info.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or len({info.filename for info in infos}) != len(infos):
            raise CheckpointError(
                f"{path} is a zip file, but none that torch.save has written: it has "
                f"{len(pickles)} data.pkl. {INSTEAD}"
            )
        if pickles[0].file_size > MAX_PICKLE:
            raise CheckpointError(
                f"{path} describes its tensors in {pickles[0].file_size:,} bytes: at most "
                f"{MAX_PICKLE:,} can be read. {INSTEAD}"
            )
        _check_names(path, archive.read(pickles[0]))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or cut off: {error}. Copy or download it again."
        ) from None


def _entry_count(file: BinaryIO, size: int) -> int | None:
    """Entries in a zip file's table, those it says and those that are there; None where there is
    no table or one of more than 8 MB."""
    file.seek(max(0, size - 65_557))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return None
    count, table = struct.unpack_from("<HI", tail, at + 10)
    end = size - len(tail) + at
    if at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":  # zip64, whose record is before
        at, end = at - 76, end - 76
        if at < 0 or tail[at : at + 4] != b"PK\x06\x06":
            return None
        count, table = struct.unpack_from("<QQ", tail, at + 32)
    if table > min(8 << 20, end):
        return None
    file.seek(end - table)
    return max(count, file.read(table).count(b"PK\x01\x02"))


def _check_legacy(path: Path, file: BinaryIO) -> None:
    """The form before torch 1.6: five pickles in a row, then the numbers."""
    file.seek(0)
    described = io.BytesIO(file.read(MAX_PICKLE))  # a sparse file may claim texts of gigabytes
    for _ in range(5):
        _check_names(path, described)


def _check_names(path: Path, pickle: bytes | BinaryIO) -> None:
    """Raise CheckpointError unless a pickle asks only for names that weights need."""
    try:
        for n, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
            if n > MAX_OPCODES:
                raise CheckpointError(
                    f"{path} is described at greater length than any model is. {INSTEAD}"
                )
            if opcode.name in ("INST", "STACK_GLOBAL", "OBJ", "EXT1", "EXT2", "EXT4") or (
                opcode.name == "GLOBAL" and not HARMLESS.fullmatch(str(argument))
            ):
                asked = str(argument)[:80] if argument else "code"
                raise CheckpointError(
                    f"{path} asks to run {asked!r}, which no weights need: it was not opened. "
                    f"{INSTEAD}"
                )
    except (ValueError, UnicodeError, IndexError, struct.error) as error:
        raise CheckpointError(
            f"{path} is no checkpoint, or it was cut off: {str(error)[:80]}. Copy or download it "
            "again."
        ) from None


def _convert(path: Path, target: Path) -> None:
    code, why = _run_child(path.resolve(), target.resolve())
    if code not in (0, 3, 4):
        why = "could not be read within the limits set for foreign files"
    if code != 0:
        raise CheckpointError(f"{path} {why}. {INSTEAD}")


def _run_child(source: Path, target: Path) -> tuple[int, str]:
    """Exit code of unpickle.py and the last line it wrote, with nothing of our environment."""
    try:
        child = subprocess.run(
            [sys.executable, "-I", unpickle.__file__, str(source), str(target)],
            env={"OMP_NUM_THREADS": "1"},
            cwd=os.sep,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return 4, f"was not read after {SECONDS} seconds"
    return child.returncode, (child.stderr.splitlines() or [""])[-1]


def _glob_escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)
