"""A writer whose chat is killed goes on at the other, in a real browser."""

import re
from contextlib import suppress

from playwright.sync_api import Browser, expect

from tests.browser.conftest import PATIENCE, Desk
from tests.frontends.conftest import NAME, PASSWORD, Town, postgresql, town  # noqa: F401 - fixtures

FIRST, SECOND = "The otter sat by the nonce-lantern", "Then it swam to the nonce-harbour"


def test_a_writer_loses_nothing_with_the_chat_and_goes_on(
    chromium: Browser,
    town: Town,  # noqa: F811 - the fixture above
) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(town.url)
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("#chat-settings-header-button")
    desk = Desk(page, town)  # type: ignore[arg-type]  # it has a url
    desk.write(FIRST)
    desk.wait()
    page.wait_for_url("**/thread/*")
    before = desk.texts()
    assert before[0] == FIRST

    told = [cookie for cookie in context.cookies() if cookie["name"] == "storygen_browser"]
    chat = town.at({"Cookie": f"storygen_browser={told[0]['value']}"})
    chat.kill()
    try:
        # By itself: nothing was loaded anew. A click while the page goes from one chat to the other
        # may do nothing; then the words are still in the box, and the writer sends them again.
        desk.write(SECOND)
        box = page.locator("#chat-input")
        with suppress(AssertionError):
            expect(box).to_have_value("", timeout=20_000)
        if box.input_value() == SECOND:
            desk.write(SECOND)
        desk.wait()
        after = desk.texts()
        assert after[:2] == before
        assert after[2] == SECOND
        expect(page).to_have_url(re.compile("/thread/"))
        for label in ("Continue", "Undo", "Copy"):
            expect(page.get_by_role("button", name=label)).to_have_count(1)

        desk.reload()
        assert desk.texts() == after
        desk.button("Continue")
        desk.wait()
        assert desk.texts()[:4] == after
        assert len(desk.texts()) == 5
    finally:
        chat.start()
        context.close()
