"""drive.c under the sanitizers, with one thread and with two: clean, and the same sums."""

import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storygen.decode.build import best_level, levels

DRIVE = Path(__file__).with_name("drive.c")
SANITIZERS = {
    "none": (),
    "address": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "thread": ("-fsanitize=thread",),
}


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    """What drive.c prints, by sanitizer and number of threads."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None or platform.system() != "Linux":
        pytest.skip("needs gcc or clang on Linux")
    folder = tmp_path_factory.mktemp("drive")
    flags = [*levels()[best_level()][1], "-O1", "-g", "-std=gnu11"]
    with ThreadPoolExecutor() as pool:
        compiling = [
            pool.submit(
                subprocess.run,
                [compiler, *flags, *of, DRIVE, "-o", folder / name, "-lm", "-lpthread"],
                check=True,
            )
            for name, of in SANITIZERS.items()
        ]
    assert all(compiled.result() for compiled in compiling)
    found = {}
    for name in SANITIZERS:
        for threads in ("1", "2"):
            done = subprocess.run(
                [folder / name, threads], capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, f"{name}, {threads} threads: {done.stderr}"
            found[name, threads] = done.stdout
    return found


def test_the_sanitizers_find_nothing_and_threads_change_nothing(sums):
    assert len(sums["none", "1"].splitlines()) == 16
    assert set(sums.values()) == {sums["none", "1"]}
