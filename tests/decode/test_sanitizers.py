"""drive.c under the compiler's sanitizers, with one thread and with two: clean, and the same sums."""

import platform
import shutil
import subprocess
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
    compiling = {
        name: subprocess.Popen(
            [compiler, "-O1", "-g", "-std=gnu11", *levels()[best_level()][1], *flags, DRIVE]
            + ["-o", folder / name, "-lm", "-lpthread"],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, flags in SANITIZERS.items()
    }
    for process in compiling.values():
        assert process.wait(timeout=300) == 0, process.communicate()[1]
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
