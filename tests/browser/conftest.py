"""A real browser on the real page: Debian's chromium, and the shipped models where they are."""

import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.protocol.conftest import ROOT, Server, serve, server  # noqa: F401 - a fixture

SHIPPED = ROOT / "weights"
REAL = [sys.executable, "-m", "chainlit", "run", "app.py", "--headless", "--port", "{port}"]
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PATIENCE = 60_000  # milliseconds that a busy machine may take

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """The browser; without one the tests are skipped, but never where CI runs them."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if path is None and not os.environ.get("CI"):
        pytest.skip("There is no chromium here. On Debian: apt install chromium")
    assert path is not None, "CI must have chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def models(tiny_weights: Path) -> Path:
    """The shipped models if two are here, else tiny random ones."""
    shipped = list(SHIPPED.glob("*/config.json")) if SHIPPED.is_dir() else []
    return SHIPPED if len(shipped) > 1 else tiny_weights


@pytest.fixture(scope="package")
def real_server(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[Server]:
    """`chainlit run app.py` with models."""
    data = tmp_path_factory.mktemp("real")
    running = serve(data, REAL, STORYGEN_WEIGHTS_DIR=str(models))
    yield running
    running.stop()


class Desk:
    """What a writer sees and does."""

    def __init__(self, page: Page, running: Server) -> None:
        self.page, self.server = page, running

    def open(self, path: str = "/") -> None:
        """Open the page and wait until one can write."""
        self.page.goto(self.server.url + path)
        self.page.wait_for_selector("#chat-input", timeout=PATIENCE)
        self.page.wait_for_selector("#chat-settings-header-button", timeout=PATIENCE)

    def write(self, text: str) -> None:
        """Type and send."""
        self.page.fill("#chat-input", text)
        self.page.click("#chat-submit")

    def button(self, label: str) -> None:
        """Press a button under the last passage."""
        self.page.get_by_role("button", name=label, exact=True).click()

    def wait(self) -> None:
        """Wait until the passage is written and its buttons are there."""
        expect(self.page.locator("#stop-button")).to_have_count(0)
        expect(self.page.get_by_role("button", name="Undo", exact=True)).to_be_enabled()

    def texts(self) -> list[str]:
        """What is on the page, passage by passage, as the browser reads it out."""
        prose = self.page.locator(".message-content pre, .message-content [role=article]")
        return prose.all_inner_texts()

    def models_used(self) -> list[str]:
        """The models of all stored passages, in their order."""
        with sqlite3.connect(self.server.data / "stories.db") as database:
            rows = database.execute(
                "select model from passages where model is not null order by created_at"
            )
            used = [row[0] for row in rows]
        database.close()
        return used


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page that fails the test for any request beyond its origin and any script error."""
    context = chromium.new_context(
        viewport={"width": 1280, "height": 860}, permissions=["clipboard-read", "clipboard-write"]
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    hosts: set[str] = set()
    errors: list[str] = []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
    page.on("websocket", lambda socket: hosts.add(urlsplit(socket.url).hostname or ""))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("dialog", lambda dialog: errors.append(f"dialog: {dialog.message}"))
    yield page
    context.close()
    assert hosts <= {"127.0.0.1", ""}, hosts
    assert errors == []


@pytest.fixture
def desk(page: Page, server: Server) -> Desk:  # noqa: F811
    """A page on the engine that answers at once."""
    return Desk(page, server)


@pytest.fixture
def real_desk(page: Page, real_server: Server) -> Desk:
    """A page with models."""
    return Desk(page, real_server)
