"""A page that is asked for everything, by anybody."""

import sys
from collections.abc import Iterator

import pytest

from tests.browser.conftest import chromium  # noqa: F401 - a fixture
from tests.protocol.conftest import Server, serve
from tests.security.town import Town, settled

WATCHED = [sys.executable, "-m", "tests.security.serve", "{port}"]


@pytest.fixture(scope="package")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page for one local writer, which has written down what it serves."""
    running = serve(tmp_path_factory.mktemp("watched"), WATCHED)
    yield running
    running.stop()


@pytest.fixture(scope="package")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A page that several share, with a story of one of them."""
    town = settled(tmp_path_factory.mktemp("town"), WATCHED)
    yield town
    town.http.close()
    town.server.stop()
