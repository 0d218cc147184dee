"""The page by day, by night and on a phone: nothing sticks out, all one needs can be reached."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE, Desk
from tests.protocol.conftest import Server

PHONE = {"width": 375, "height": 720}
STORY = "The fog came up the river before the lamps were lit, and with it the smell of tar."


@pytest.fixture
def phone(chromium: Browser) -> Iterator[Page]:
    """A narrow touch screen at night."""
    context = chromium.new_context(
        viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark"
    )
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def is_wide(page: Page) -> bool:
    """Whether one would have to scroll sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def test_phone_has_room_for_everything(phone: Page, server: Server, tmp_path: Path) -> None:
    desk = Desk(phone, server)
    desk.open()
    phone.screenshot(path=tmp_path / "phone-first.png")
    assert not is_wide(phone)
    desk.write(STORY + " nonce-" + "x" * 300)
    desk.wait()
    phone.screenshot(path=tmp_path / "phone-story.png")
    assert not is_wide(phone)
    for label in ("Continue", "Retry", "Undo", "Copy"):
        box = phone.get_by_role("button", name=label, exact=True).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
    expect(phone.locator(".edit-message")).to_be_visible()  # a finger cannot hover
    phone.wait_for_url("**/thread/*")
    phone.click("#chat-settings-header-button")
    phone.wait_for_selector("#confirm-sidebar")
    phone.wait_for_timeout(600)  # it slides in
    phone.screenshot(path=tmp_path / "phone-settings.png")
    phone.touchscreen.tap(10, 360)  # beside the sheet
    expect(phone.locator("#confirm-sidebar")).to_have_count(0)


@pytest.mark.own_words
def test_settings_hold_however_the_panel_is_left(desk: Desk) -> None:
    page = desk.page
    desk.open()
    leave = {
        "arrow": lambda: page.click("#chat-settings-sidebar-title button"),
        "Escape": lambda: page.keyboard.press("Escape"),
        "Done": lambda: page.click("#confirm-sidebar"),
    }
    for number, (name, how) in enumerate(leave.items()):
        page.click("#chat-settings-header-button")
        slider = page.locator("[role=slider]").first
        slider.focus()
        slider.press("ArrowRight")
        how()
        expect(page.locator("#confirm-sidebar"), name).to_have_count(0)
        page.click("#chat-settings-header-button")
        value = f"{0.8 + 0.05 * (number + 1):g}"
        expect(page.locator("[role=slider]").first, name).to_have_attribute("aria-valuenow", value)
        page.click("#confirm-sidebar")
        expect(page.locator("#confirm-sidebar"), name).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_follows_the_systems_light(
    chromium: Browser, server: Server, tmp_path: Path, scheme: str
) -> None:
    context = chromium.new_context(
        viewport={"width": 1280, "height": 860},
        color_scheme=scheme,  # type: ignore[arg-type]  # one of two words
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    desk = Desk(page, server)
    desk.open()
    page.screenshot(path=tmp_path / f"{scheme}-first.png")
    desk.write("explode")
    page.wait_for_selector(".ai-message")
    desk.wait()
    page.screenshot(path=tmp_path / f"{scheme}-error.png")
    desk.write(STORY)
    desk.wait()
    page.screenshot(path=tmp_path / f"{scheme}-story.png")
    ink, paper = page.evaluate(
        """() => {
          const style = getComputedStyle(document.querySelector("[role=article]"));
          return [style.color, getComputedStyle(document.body).backgroundColor]
            .map(rgb => rgb.match(/\\d+/g).slice(0, 3).map(Number));
        }"""
    )
    assert (_luminance(paper) > _luminance(ink)) == (scheme == "light")
    lighter, darker = sorted([_luminance(ink), _luminance(paper)], reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) > 7  # WCAG's contrast for long reading
    context.close()


def test_page_names_itself_and_explains_itself(desk: Desk) -> None:
    page = desk.page
    desk.open()
    assert page.title() == "storygen"
    page.click("#readme-button")
    expect(page.get_by_text("one passage at a time")).to_be_visible()


@pytest.mark.own_words
def test_opening_line_begins_a_story_with_its_model(desk: Desk) -> None:
    page = desk.page
    desk.open()
    page.get_by_text("A fantasy begins here.").click()
    desk.wait()
    shown = desk.texts()
    assert shown[0] == "A fantasy begins here."
    assert "fantasy-" in shown[1]
    page.click("#chat-settings-header-button")
    expect(page.locator("#model")).to_have_text("Fantasy")


def _luminance(rgb: list[int]) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [value / 255 for value in rgb]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
