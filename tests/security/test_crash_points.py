"""Saves cut off at each change to the disk, with half of what was not synced lost: afterwards the
old version or the new loads whole, and the next save works and leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from storygen.settings import ROOT

SAVES = {
    "checkpoint": 15,
    "model": 20,
    "adapter": 15,
    "corpus": 15,
    "gguf": 5,
    "secret": 3,
    "owner": 3,
}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """crash.c for this machine."""
    made = tmp_path_factory.mktemp("shim") / "crash.so"
    source = Path(__file__).with_name("crash.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return made


@pytest.fixture(scope="module")
def reports(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What the cut-off saves came to, by kind."""
    command = [sys.executable, "-m", "tests.security.save_until_killed"]
    done = subprocess.run(
        [*command, str(tmp_path_factory.mktemp("saves")), *SAVES, "careless"],
        cwd=ROOT,
        env=os.environ | {"LD_PRELOAD": str(shim), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {report["kind"]: report for report in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("kind", SAVES)
def test_every_crash_point_of_a_save_leaves_the_old_or_the_new(
    reports: dict[str, dict[str, object]], kind: str
) -> None:
    assert reports[kind]["wrong"] == {}
    assert reports[kind]["changes"] >= SAVES[kind]  # those of the libraries are counted too


def test_a_save_that_does_not_sync_is_found_out(reports: dict[str, dict[str, object]]) -> None:
    assert "neither version" in str(reports["careless"]["wrong"])
