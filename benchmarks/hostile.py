"""How soon, and in how little memory, is each hostile file of the tests refused?

    python -m benchmarks.hostile [--sentences]

Imports every one as the command would, pickles in the converter's own process, and prints a row
each: seconds by the clock, seconds of processor time with the converter's, and how far the memory
of this process has risen above what it was while idle, one model having been imported before. Then
the largest of each, and the largest that the converter was. --sentences shows what is said as well.
Exits with 1 where a file was accepted, or took more than 2 s of processor time or 64 MB.
"""

import argparse
import gc
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from storygen.checkpoints import save
from storygen.checkpoints.importers import Asked, import_model
from storygen.errors import CheckpointError
from storygen.tokenizers import BYTE_SPELLING, END_OF_TEXT, BPETokenizer
from tests.checkpoints.importers.corpus import (
    ADAPTERS,
    DIRECTORIES,
    EARLY,
    LATE,
    adapter,
)
from tests.conftest import random_model

SECONDS, MEGABYTES = 2.0, 64.0


def main() -> None:
    """Refuse them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", action="store_true", help="show what is said")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:  # what torch loads once is not a file's doing
        import_model(str(sound(Path(folder))), "m", Path(folder) / "weights", Asked())
    for name, make in sources():
        with tempfile.TemporaryDirectory() as folder:
            clock, seconds, megabytes, sentence = measured(make(Path(folder)), Path(folder))
        rows.append((clock, seconds, megabytes, sentence is not None))
        said = f"  {sentence}" if args.sentences else "" if sentence else "  ACCEPTED"
        print(f"{name:44} {clock:5.2f} s {seconds:5.2f} s {megabytes:5.1f} MB{said}", flush=True)
    clocks, times, sizes, refused = zip(*rows, strict=True)
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{len(rows)} files: at most {max(clocks):.2f} s by the clock, {max(times):.2f} s of "
        f"processor time and {max(sizes):.1f} MB; the converter {child:.0f} MB"
    )
    sys.exit(max(times) > SECONDS or max(sizes) > MEGABYTES or not all(refused))


def sources() -> Iterator[tuple[str, Callable[[Path], Path]]]:
    """Each file or directory by name, with a function that makes it in a folder."""
    for name, content in {**EARLY, **LATE}.items():
        yield name, lambda folder, n=name, c=content: written(folder, n, c)
    for name, harm in DIRECTORIES.items():
        yield name, lambda folder, harm=harm: harmed(folder, harm)
    for name, options in ADAPTERS.items():
        yield name, lambda folder, options=options: adapter(sound(folder), **options)


def written(folder: Path, name: str, content: bytes | Callable[[], bytes]) -> Path:
    """A file of what it holds, or of what a function makes for it."""
    path = folder / name.replace(" ", "-")
    path.write_bytes(content() if callable(content) else content)
    return path


def harmed(folder: Path, harm: Callable[[Path], object]) -> Path:
    """A sound model directory after harm was done to it."""
    directory = sound(folder)
    harm(directory)
    return directory


def sound(folder: Path) -> Path:
    """A tiny model."""
    vocab = {spelling: n for n, spelling in enumerate([*BYTE_SPELLING.values(), END_OF_TEXT])}
    save(folder / "theirs", random_model(len(vocab)), BPETokenizer(vocab, []))
    return folder / "theirs"


def measured(path: Path, folder: Path) -> tuple[float, float, float, str | None]:
    """Seconds by the clock and the processor, and megabytes, until path was refused; the
    sentence."""
    characters = folder / "characters"
    characters.write_text("abcdefgh")
    alone = path.is_file()
    asked = Asked(n_head=2, chars=characters if alone else None)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    memory, began, used, sentence = peak(), time.perf_counter(), sum(os.times()[:4]), None
    try:
        import_model(str(path), "m", folder / "weights", asked, fetch=nowhere)
    except CheckpointError as error:
        sentence = str(error).replace(str(folder), "")
    clock, seconds = time.perf_counter() - began, sum(os.times()[:4]) - used
    shutil.rmtree(folder / "weights", ignore_errors=True)
    return clock, seconds, peak() - memory, sentence


def peak() -> float:
    """The most that this process has had in memory, in megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def nowhere(name: str) -> Path:
    """Instead of the hub."""
    raise CheckpointError(f"{name!r} is not to be had.")


if __name__ == "__main__":
    main()
