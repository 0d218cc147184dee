"""Writing that is all or nothing: a reader finds the old content or the new, never a mixture."""

import glob
import hashlib
import os
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SUMS = "SHA256SUMS"


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """A new empty directory that takes target's place when the block ends without an error.

    Everything is on the disk before the change of names. A directory already there is moved
    aside first, because a name cannot be exchanged in one step; it comes back if that is where
    things stop (see recovered()).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target)
    new = target.with_name(f"{target.name}.new-{os.getpid()}")
    old = target.with_name(f"{target.name}.old")
    new.mkdir()
    try:
        yield new
        for path in new.rglob("*"):
            sync(path)
        sync(new)
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
        new.rename(target)
        sync(target.parent)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        recovered(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """The name of a new file that takes target's place, on the disk, when the block ends without
    an error."""
    sweep(target)
    new = target.with_name(f"{target.name}.new-{os.getpid()}")
    try:
        yield new
        sync(new)
        new.replace(target)
        sync(target.parent)
    finally:
        new.unlink(missing_ok=True)


def sweep(target: Path) -> None:
    """Remove what processes that were killed while they wrote target have left beside it."""
    for path in target.parent.glob(f"{glob.escape(target.name)}.new-*"):
        number = path.name.rpartition("-")[2]
        is_ours = number == str(os.getpid())  # of a process that once had the same number
        if is_ours or (number.isdecimal() and not _is_running(int(number))):
            remove = shutil.rmtree if path.is_dir() else os.unlink
            with suppress(OSError):
                remove(path)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def recovered(target: Path) -> Path:
    """target, put back from its old name if writing its successor was cut off in between."""
    old = target.with_name(f"{target.name}.old")
    if not target.exists() and old.exists():
        old.rename(target)
    return target


def sync(path: Path) -> None:
    """Wait until a file's content, or a directory's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(directory: Path) -> None:
    """Write SHA256SUMS over the other files of a directory, as sha256sum prints it."""
    names = sorted(p.name for p in directory.iterdir() if p.is_file() and p.name != SUMS)
    lines = [f"{sha256(directory / name)}  {name}\n" for name in names]
    (directory / SUMS).write_text("".join(lines), encoding="utf-8")


def wrong_sum(directory: Path, ignore: Container[str] = ()) -> str | None:
    """Name of the first file that SHA256SUMS lists and that is missing or changed, else None."""
    sums = directory / SUMS
    if not sums.is_file():
        return None
    for line in sums.read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if name in ignore:
            continue
        path = directory / Path(name).name
        if not path.is_file() or sha256(path) != digest:
            return name
    return None
