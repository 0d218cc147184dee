"""A pytest plugin that says how many examples the properties were tried with."""

from collections.abc import Iterator

import pytest
from hypothesis.internal.conjecture.engine import ConjectureRunner

calls = 0


@pytest.fixture(autouse=True, scope="session")
def _counting() -> Iterator[None]:
    test_function = ConjectureRunner.test_function

    def counting(self: ConjectureRunner, *args: object, **options: object) -> object:
        global calls
        calls += 1
        return test_function(self, *args, **options)

    ConjectureRunner.test_function = counting
    yield
    ConjectureRunner.test_function = test_function


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The line that fuzz.py looks for."""
    terminalreporter.write_line(f"tried {calls}")
