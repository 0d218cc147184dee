"""A log that the disk does not take."""

import subprocess
import sys
from pathlib import Path

import pytest

from storygen.settings import ROOT

PROGRAM = """
import logging
from storygen import logs
logs.install("text", "info")
for n in range(3):
    logging.getLogger("storygen.x").error("It is %d o'clock", n)
print("and it goes on")
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="There is no /dev/full here.")
def test_a_log_that_is_full_ends_nothing() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            stderr=full,
            stdout=subprocess.PIPE,
            check=True,
        )
    assert done.stdout == b"and it goes on\n"
