"""A real browser on the real page: Debian's chromium and, for the journey, the shipped models."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from storygen.catalogue import Catalogue
from tests.browser.workspace import Workspace
from tests.protocol.conftest import REAL, ROOT, Server, serve, server  # noqa: F401 - a fixture

SHIPPED = ROOT / "weights"
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
PATIENCE = 180_000  # milliseconds that a busy machine may take
NOWHERE = "nowhere"

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
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`chainlit run app.py` with the shipped models; where none are, as in a checkout without the
    large files, the tests are skipped, but never where CI runs them."""
    models = Catalogue(SHIPPED).models()
    if not models and not os.environ.get("CI"):
        pytest.skip(f"There are no models in {SHIPPED}.")
    assert len(models) > 1, "changing the model takes two"
    running = serve(tmp_path_factory.mktemp("real"), REAL, STORYGEN_WEIGHTS_DIR=str(SHIPPED))
    yield running
    running.stop()


@pytest.fixture(scope="package")
def slow_server(tmp_path_factory: pytest.TempPathFactory, real_server: Server) -> Iterator[Server]:
    """The same with models that PyTorch computes: slow enough to watch and to stop."""
    folder = tmp_path_factory.mktemp("slow")
    running = serve(folder, REAL, STORYGEN_WEIGHTS_DIR=str(SHIPPED), STORYGEN_DTYPE="fp16")
    yield running
    running.stop()


class Desk:
    """What a writer sees and does."""

    def __init__(self, page: Page, running: Server) -> None:
        self.page, self.server = page, running
        self.end = NOWHERE  # the id of the story's last passage when it was last waited for

    def open(self, path: str = "/") -> None:
        """Open the page and wait until one can write."""
        self.page.goto(self.server.url + path)
        self.page.wait_for_selector("#chat-input", timeout=PATIENCE)
        self.page.wait_for_selector("#chat-settings-header-button", timeout=PATIENCE)

    def write(self, text: str) -> None:
        """Type and send."""
        self.page.fill("#chat-input", text)
        press(self.page.locator("#chat-submit"))

    def button(self, label: str) -> None:
        """Press a button under the last passage."""
        press(self.page.get_by_role("button", name=label, exact=True))

    def wait(self) -> None:
        """Wait until the story has come to another end than the last time, and can go on: the
        buttons there name their passage. So it cannot be over before a click has begun to work."""
        buttons = self.page.locator('button:is([id^="undo-"], [id^="redo-"])')
        new = buttons.and_(self.page.locator(f':not([id$="-{self.end}"])')).first
        expect(new).to_be_enabled()
        expect(self.page.locator("#stop-button")).to_have_count(0)
        self.end = (new.get_attribute("id") or "").partition("-")[2]

    def wait_for_story(self) -> None:
        """Wait until a story that was opened is there, wherever it ends."""
        self.end = NOWHERE
        self.page.wait_for_selector(".ai-message")
        self.wait()

    def reload(self) -> None:
        """Load the page of a story anew."""
        self.page.reload()
        self.wait_for_story()

    def texts(self) -> list[str]:
        """What is on the page, passage by passage, as the browser reads it out."""
        prose = self.page.locator(".message-content pre, .message-content [role=article]")
        return prose.all_inner_texts()

    def last_passages(self, column: str) -> list[str]:
        """A column of the models' last two stored passages, in their order."""
        with sqlite3.connect(self.server.data / "stories.db") as database:
            rows = database.execute(
                f"select {column} from passages where role = 'model' order by created_at"
            )
            values = [row[0] for row in rows]
        database.close()
        return values[-2:]


def press(button: Locator) -> None:
    """Click a button, again where the page took it away between the mouse's going down and coming
    up, as it does with Send and Stop, so that nothing was clicked."""
    page = button.page
    page.evaluate(
        """() => {
          window.pressed ??= 0;
          window.count ??= (event) => (window.pressed += Boolean(event.target.closest?.("button")));
          document.addEventListener("click", window.count, true);
        }"""
    )
    before = page.evaluate("window.pressed")
    for _ in range(10):
        button.click()
        if page.evaluate("window.pressed") != before:
            return
    raise AssertionError("Ten clicks came to nothing.")


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
def desk(page: Page, server: Server) -> Desk:  # noqa: F811 - the fixture above
    """A page on the engine that answers at once."""
    return Desk(page, server)


@pytest.fixture
def workspace(desk: Desk) -> Workspace:
    """A page whose panel is closed as yet."""
    return Workspace(desk)


@pytest.fixture
def real_desk(page: Page, real_server: Server) -> Desk:
    """A page with models."""
    return Desk(page, real_server)


@pytest.fixture
def slow_desk(page: Page, slow_server: Server) -> Desk:
    """A page with models that take their time."""
    return Desk(page, slow_server)
