"""A page that is asked for everything, by anybody: one for each door."""

import sys
from collections.abc import Iterator

import pytest

from tests.browser.conftest import chromium  # noqa: F401 - a fixture
from tests.protocol.conftest import Server, serve
from tests.security.town import Town, behind_a_proxy, of_one_writer, with_passwords

WATCHED = [sys.executable, "-m", "tests.security.serve", "{port}"]


@pytest.fixture(scope="package")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page for one local writer, which has written down what it serves."""
    running = serve(tmp_path_factory.mktemp("watched"), WATCHED)
    yield running
    running.stop()


@pytest.fixture(scope="package")
def alone(watched: Server) -> Iterator[Town]:
    """The same with a story on it."""
    town = of_one_writer(watched)
    yield town
    town.close()


@pytest.fixture(scope="package")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A page that several share who sign in, with a story of one of them."""
    town = with_passwords(tmp_path_factory.mktemp("town"), WATCHED)
    yield town
    town.close()
    town.server.stop()


@pytest.fixture(scope="package")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A page that several share whom a proxy knows, with a story of one of them."""
    town = behind_a_proxy(tmp_path_factory.mktemp("proxied"), WATCHED)
    yield town
    town.close()
    town.server.stop()
