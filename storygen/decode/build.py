"""decode.c as a library for this processor: found where it was compiled before, or compiled now.

A library's name holds a hash of its source and of how it was compiled, so a stale one is never
found. Two places are looked at: `built` beside this file, which an image fills when it is made
(python -m storygen.decode.build), and a folder that may be written to.
"""

import functools
import hashlib
import importlib.util
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from ctypes import CDLL
from pathlib import Path

from storygen.errors import EngineError

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("decode.c")
BUILT = Path(__file__).with_name("built")
FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-Wno-psabi")
SECONDS = 600  # the levels without AVX-512 take long
NO_COMPILER = (
    "Native code writes several times as fast, but no C compiler is here: "
    "install clang or gcc, or pip install ziglang."
)

# What a processor must have, as /proc/cpuinfo says it, and the compiler's words for it; best first.
X86_LEVELS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "avx512-bf16": (
        ("avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16"),
        ("-march=x86-64-v4", "-mavx512vnni", "-mavx512bf16", "-mprefer-vector-width=512"),
    ),
    "avx512-vnni": (
        ("avx512bw", "avx512dq", "avx512vl", "avx512_vnni"),
        ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"),
    ),
    "avx2": (("avx2", "fma", "f16c", "bmi2"), ("-march=x86-64-v3",)),
    "any": ((), ()),
}
OTHER_LEVELS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {"any": ((), ())}


def native_library(folder: Path) -> CDLL:
    """The library for this processor; compiled into folder if it is not there yet.

    Raises EngineError that says what is missing.
    """
    name = file_name(best_level())
    for place in (BUILT, folder):
        if (place / name).is_file():
            return load_library(place / name)
    return load_library(compile_library(best_level(), folder))


def described(folder: Path) -> str:
    """What computes models on this CPU, in a sentence, without compiling anything."""
    level = best_level()
    there = any((place / file_name(level)).is_file() for place in (BUILT, folder))
    if there or find_compiler():
        return f"On this CPU they are computed by native code ({level})."
    return f"On this CPU they are computed by PyTorch. {NO_COMPILER}"


@functools.cache
def load_library(path: Path) -> CDLL:
    """A compiled library; the same one each time."""
    return CDLL(str(path))


def levels() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """The levels there are for this kind of processor, best first."""
    return X86_LEVELS if platform.machine() in ("x86_64", "AMD64") else OTHER_LEVELS


def best_level() -> str:
    """The best level that this processor can run."""
    able = processor_flags()
    return next(name for name, (needed, _) in levels().items() if able.issuperset(needed))


def processor_flags() -> frozenset[str]:
    """What the processor can, as Linux lists it; empty where nobody says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith("flags")), ":")
    return frozenset(found.partition(":")[2].split())


def file_name(level: str) -> str:
    """Name of the library of a level."""
    recipe = SOURCE.read_bytes() + repr((FLAGS, levels()[level])).encode()
    return f"decode-{level}-{hashlib.sha256(recipe).hexdigest()[:16]}.so"


def compile_library(level: str, folder: Path) -> Path:
    """Compile decode.c for a level into folder; takes seconds."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may be the data directory
    folder.mkdir(exist_ok=True)
    target = folder / file_name(level)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:  # another process may do the same
        made = Path(scratch) / "decode.so"
        run_compiler(
            [*FLAGS, *levels()[level][1], str(SOURCE), "-o", str(made), "-lm", "-lpthread"]
        )
        os.replace(made, target)
    for old in folder.glob(f"decode-{level}-*.so"):
        if old != target:
            old.unlink(missing_ok=True)
    log.info("Compiled the native decoder: %s", target)
    return target


def run_compiler(arguments: list[str]) -> None:
    """Run the C compiler there is; raises EngineError."""
    compiler = find_compiler()
    if compiler is None:
        raise EngineError(NO_COMPILER)
    try:
        done = subprocess.run(
            [*compiler, *in_its_words(compiler, arguments)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{compiler[0]} could not compile decode.c: {error}.") from None
    if done.returncode:
        first = (done.stderr.strip() or "no reason given").splitlines()[0]
        raise EngineError(f"{compiler[0]} could not compile decode.c: {first}")


def find_compiler() -> list[str] | None:
    """The command that compiles C, if there is one."""
    for name in ("clang", "cc", "gcc"):  # for AVX2, gcc's code is several times as slow
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    return None


def in_its_words(compiler: list[str], arguments: list[str]) -> list[str]:
    """Arguments as a compiler has them: Zig writes processors with underscores."""
    if "ziglang" not in compiler:
        return arguments
    return [a.replace("x86-64-v", "x86_64_v") if a.startswith("-march=") else a for a in arguments]


def main() -> None:
    """Compile every level into BUILT, for an image that will run on any processor."""
    for level in levels():
        print(compile_library(level, BUILT).name)


if __name__ == "__main__":
    main()
