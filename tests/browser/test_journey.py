"""What a writer does, from the first line to the day after, with a real model."""

import re
import time

from playwright.sync_api import expect

from tests.browser.conftest import Desk

OPENING = "It was a dark night, and the old house by the river was silent when Holmes"


def test_writing_a_story(real_desk: Desk) -> None:
    desk, page = real_desk, real_desk.page
    desk.open()

    # A passage streams.
    desk.write(OPENING)
    lengths = set()
    page.wait_for_selector(".ai-message [role=article]")
    while page.locator("#stop-button").count():
        lengths.add(len(desk.texts()[-1]))
        time.sleep(0.03)
    assert len(lengths) > 2
    desk.wait()
    first = desk.texts()
    assert first[0] == OPENING
    assert len(first) == 2
    expect(page).to_have_url(re.compile(r"/thread/[0-9a-f-]{36}$"))

    # Retry differs, Undo restores, Redo goes forward again.
    desk.button("Retry")
    desk.wait()
    second = desk.texts()
    assert second[0] == OPENING
    assert second[1] != first[1]
    desk.button("Undo")
    desk.wait()
    assert desk.texts() == first
    desk.button("Redo")
    desk.wait()
    assert desk.texts() == second

    # Continue goes on.
    desk.button("Continue")
    desk.wait()
    third = desk.texts()
    assert third[:2] == second
    assert len(third) == 3

    # A reload stays with the story, and the list leads back to it.
    page.reload()
    page.wait_for_selector(".ai-message")
    desk.wait()
    assert desk.texts() == third
    page.click("#new-chat-button")
    expect(page.locator("#welcome-screen")).to_be_visible()
    page.locator("#thread-history a, #thread-history button").first.click()
    page.wait_for_selector(".ai-message")
    desk.wait()
    assert desk.texts() == third


def test_stop_stops(real_desk: Desk) -> None:
    desk, page = real_desk, real_desk.page
    desk.open()
    page.click("#chat-settings-header-button")
    slider = page.locator("[role=slider]").nth(2)
    slider.focus()
    slider.press("End")  # the longest passage
    page.click("#confirm-sidebar")
    desk.write(OPENING)
    page.wait_for_selector(".ai-message [role=article]")
    page.click("#stop-button")
    desk.wait()
    stopped = desk.texts()
    time.sleep(0.5)
    assert desk.texts() == stopped
    page.reload()
    page.wait_for_selector(".ai-message")
    desk.wait()
    assert desk.texts() == stopped


def test_sidebar_changes_the_model(real_desk: Desk) -> None:
    desk, page = real_desk, real_desk.page
    desk.open()
    desk.write(OPENING)
    desk.wait()
    page.click("#chat-settings-header-button")
    current = page.locator("#model").inner_text()
    page.click("#model")
    other = page.get_by_role("option").filter(has_not_text=current).first
    name = other.inner_text()
    other.click()
    desk.button("Continue")
    desk.wait()
    before, after = desk.models_used()[-2:]
    assert before != after
    page.reload()
    page.wait_for_selector(".ai-message")
    page.click("#chat-settings-header-button")
    expect(page.locator("#model")).to_have_text(name)


def test_writers_own_words_are_edited(real_desk: Desk) -> None:
    desk, page = real_desk, real_desk.page
    desk.open()
    desk.write(OPENING)
    desk.wait()
    before = desk.texts()
    page.locator("[data-step-type=user_message]").hover()
    page.click(".edit-message")
    page.fill("#edit-chat-input", "Quite another beginning, in which the river")
    page.click(".confirm-edit")
    page.wait_for_selector(".ai-message")
    desk.wait()
    after = desk.texts()
    assert after[0] == "Quite another beginning, in which the river"
    assert len(after) == 2
    desk.button("Undo")
    desk.wait()
    desk.button("Undo")
    desk.wait()
    assert desk.texts() == before
