"""docs/promises.md names tests and scripts that there are."""

import re

import pytest

from benchmarks.reliability.fuzz import TARGETS
from storygen.settings import ROOT

PAGE = (ROOT / "docs/promises.md").read_text(encoding="utf-8")
LINES = [line for line in PAGE.splitlines() if "`tests/" in line or "`load`" in line]


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_what_a_line_names_is_there(line: str) -> None:
    path = ""
    for file, name in re.findall(r"`(tests/[\w/]+\.py)?(?:::(test_\w+))?`", line):
        path = file or path
        if path:
            text = (ROOT / path).read_text(encoding="utf-8")
            assert not name or re.search(rf"def {name}\b", text), (path, name)


def test_the_long_runs_are_scripts_and_targets() -> None:
    named = set(re.findall(r"\| `([a-z ]+)` \|$", PAGE, re.MULTILINE))
    assert named
    for words in named:
        script, *targets = words.split()
        assert (ROOT / f"benchmarks/reliability/{script}.py").is_file()
        assert set(targets) <= TARGETS.keys()
