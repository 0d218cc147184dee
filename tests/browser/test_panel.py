"""The panel itself: its keys and comforts, on a phone, and where something goes wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE, Desk
from tests.browser.workspace import OPENING, Workspace
from tests.protocol.conftest import Server


def test_keys_and_reading_comforts(workspace: Workspace) -> None:
    page = workspace.page
    panel = page.locator("#workspace")
    workspace.begin()
    page.locator("#chat-input").press("Control+Enter")
    expect(workspace.passages).to_have_count(3)
    workspace.desk.wait()
    page.keyboard.press("Alt+z")
    expect(workspace.passages).to_have_count(2)
    page.keyboard.press("Alt+Shift+z")
    expect(workspace.passages).to_have_count(3)

    size = "e => getComputedStyle(e).fontSize"
    prose = page.locator(".ws-page > .ws-prose")
    before = prose.evaluate(size)
    workspace.press("Larger letters")
    assert float(prose.evaluate(size)[:-2]) > float(before[:-2])
    workspace.press("Sepia paper")
    paper = "getComputedStyle(document.body).backgroundColor"
    sepia = page.evaluate(paper)
    workspace.reload()
    assert page.evaluate(paper) == sepia
    workspace.press("Sepia paper")
    assert page.evaluate(paper) != sepia

    prose.focus()
    page.keyboard.press("Enter")  # the tools of a passage, by keyboard
    expect(page.get_by_role("toolbar", name="This passage")).to_be_visible()
    page.keyboard.press("Escape")
    expect(panel).to_be_visible()
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    page.keyboard.press("Alt+m")
    expect(panel).to_be_visible()
    page.get_by_role("tab", name="Manuscript").press("ArrowRight")
    expect(page.get_by_role("tab", name="Branches")).to_have_attribute("aria-selected", "true")


def test_what_goes_wrong_is_a_sentence_with_a_way_out(chromium: Browser, server: Server) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(PATIENCE)
    desk = Desk(context.new_page(), server)
    workspace = Workspace(desk)
    workspace.begin()
    desk.page.route("**/tree", lambda route: route.fulfill(status=503, json={"error": "Not now."}))
    branches = workspace.tab("Branches")
    expect(branches.get_by_role("alert")).to_contain_text("Not now.")
    desk.page.unroute("**/tree")
    # It may have tried again by itself by now, and the button be gone.
    again = branches.get_by_role("button", name="Try again", include_hidden=True)
    again.dispatch_event("click")
    expect(branches.get_by_role("treeitem")).to_have_count(1)
    context.close()


@pytest.fixture
def phone(chromium: Browser) -> Iterator[Page]:
    """A narrow touch screen."""
    context = chromium.new_context(
        viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True
    )
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def test_panel_is_a_whole_sheet_on_a_phone(phone: Page, server: Server, tmp_path: Path) -> None:
    workspace = Workspace(Desk(phone, server))
    workspace.desk.open()
    workspace.desk.write(OPENING)
    workspace.desk.wait()
    workspace.open()
    for name in ("Manuscript", "Branches", "Steer", "Words", "Stories"):
        workspace.tab(name)
        phone.screenshot(path=tmp_path / f"phone-{name}.png")
        assert not phone.evaluate("document.documentElement.scrollWidth > innerWidth"), name
    box = phone.locator("#workspace").bounding_box()
    assert box is not None
    assert (box["x"], box["width"]) == (0, 390)
    workspace.press("Close the panel")
    expect(phone.locator("#workspace")).to_be_hidden()
