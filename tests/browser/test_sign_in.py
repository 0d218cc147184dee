"""Signing in, writing and signing out at a browser that somebody else may use next."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE, Desk
from tests.protocol.conftest import ROOT, Server, environment, serve

PASSWORD = "rope lantern otter"
SENTENCE = "The otter sat by the lantern."


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A page that Ada has an account at."""
    data: Path = tmp_path_factory.mktemp("shared")

    command = [sys.executable, "-m", "storygen", "users", "add", "Ada"]
    typed = f"{PASSWORD}\n".encode()
    subprocess.run(command, cwd=ROOT, env=environment(data), input=typed, check=True)
    server = serve(data, STORYGEN_AUTH="password")
    yield server
    server.stop()


def sign_in(page: Page, password: str) -> None:
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_what_was_written_is_gone_from_the_browser_once_signed_out(
    chromium: Browser, shared: Server
) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(PATIENCE)
    page, hosts = context.new_page(), set[str]()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
    page.goto(f"{shared.url}/?from=a-link")
    sign_in(page, "not the password")
    expect(page.get_by_role("alert")).to_contain_text("do not belong together")
    expect(page.get_by_label("Name")).to_have_value("ada")
    sign_in(page, PASSWORD)
    page.wait_for_url("**/?from=a-link")  # where the link led to
    desk = Desk(page, shared)
    page.wait_for_selector("#chat-settings-header-button", timeout=PATIENCE)
    desk.write(SENTENCE)
    desk.wait()
    page.wait_for_url("**/thread/*")
    story, cookies = page.url, context.cookies()
    other = context.new_page()
    other.goto(story)
    expect(other.get_by_text(SENTENCE).first).to_be_visible()

    page.locator("#user-nav-button").click()
    expect(page.get_by_role("menu")).to_contain_text("Ada")
    page.get_by_role("menuitem", name="Sign out").click()
    for shown in (page, other):  # the other window of this browser, by itself
        expect(shown).to_have_url(re.compile("/login"))
        expect(shown.get_by_label("Password")).to_be_visible()
    for shown in (page, other):
        assert SENTENCE not in shown.content()
    page.go_back()
    expect(page.get_by_label("Password")).to_be_visible()
    assert SENTENCE not in page.content()
    context.clear_cookies()
    context.add_cookies([cookie for cookie in cookies if cookie["name"] == "storygen_sign_in"])
    page.goto(story)  # with the cookie as it was
    expect(page.get_by_label("Password")).to_be_visible()
    sign_in(page, PASSWORD)
    page.wait_for_url("**/thread/*")
    expect(page.get_by_text(SENTENCE).first).to_be_visible()
    assert hosts <= {"127.0.0.1"}
    context.close()
