"""What a writer does, from the first line to the day after, with a real model."""

import re
import time

from playwright.sync_api import expect

from tests.browser.conftest import Desk

OPENING = "It was a dark night, and the old house by the river was silent when Holmes"

# How long the passage was each time the page changed; kept in the page, which misses nothing.
RECORD_LENGTHS = """() => {
  window.lengths = new Set();
  new MutationObserver(() => {
    const passage = document.querySelector(".ai-message [role=article]");
    if (passage) lengths.add(passage.textContent.length);
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""

# Presses Stop once some words are there; in the page, for where a processor is shared, a click that
# comes from outside may come after the longest passage.
STOP_SOON = """() => {
  new MutationObserver((_, observer) => {
    const passage = document.querySelector(".ai-message [role=article]");
    const stop = document.getElementById("stop-button");
    if (!stop || !passage || passage.textContent.length < 80) return;
    observer.disconnect();
    stop.click();
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


def test_writing_a_story(real_desk: Desk) -> None:
    desk, page = real_desk, real_desk.page
    desk.open()

    # A passage is written.
    desk.write(OPENING)
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
    desk.reload()
    assert desk.texts() == third
    page.click("#new-chat-button")
    expect(page.locator("#welcome-screen")).to_be_visible()
    page.locator("#thread-history a, #thread-history button").first.click()
    desk.wait_for_story()
    assert desk.texts() == third


def test_a_passage_streams_until_stop_stops_it(slow_desk: Desk) -> None:
    desk, page = slow_desk, slow_desk.page
    desk.open()
    page.click("#chat-settings-header-button")
    slider = page.locator("[role=slider]").nth(2)
    slider.focus()
    slider.press("End")  # the longest passage
    page.click("#confirm-sidebar")
    page.evaluate(RECORD_LENGTHS)
    page.evaluate(STOP_SOON)
    desk.write(OPENING)
    desk.wait()
    assert page.evaluate("lengths.size") > 2
    assert desk.last_passages("finish_reason")[-1] == "cancelled"
    stopped = desk.texts()
    time.sleep(0.5)
    assert desk.texts() == stopped
    desk.reload()
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
    desk.write(OPENING)  # which nobody takes for an end, as a model may where a sentence is over
    desk.wait()
    before, after = desk.last_passages("model")
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
    desk.wait()
    after = desk.texts()
    assert after[0] == "Quite another beginning, in which the river"
    assert len(after) == 2
    desk.button("Undo")
    desk.wait()
    desk.button("Undo")
    desk.wait()
    assert desk.texts() == before
