"""Where a story could have gone: its branches, and versions side by side."""

import pytest
from playwright.sync_api import expect

from tests.browser.workspace import SHORT, Workspace


@pytest.mark.own_words
def test_branches_are_shown_compared_and_recovered(workspace: Workspace) -> None:
    page = workspace.page
    workspace.begin()
    workspace.ask({"do": "edit", "id": workspace.id_of(1), "text": " She waited for Tom."})
    expect(workspace.passages.nth(1)).to_have_text("She waited for Tom.")
    branches = workspace.tab("Branches")
    rows = branches.get_by_role("treeitem")
    expect(rows).to_have_count(3)
    here = branches.locator("[aria-current=true]")
    expect(here).to_contain_text("She waited for Tom.")
    expect(here).to_contain_text("You are here")

    other = rows.filter(has_not_text="Tom").last
    for row in (here, other):
        row.get_by_role("checkbox").check()
    workspace.press("Compare")
    sheet = page.get_by_role("dialog")
    expect(sheet).to_contain_text("Both begin with the same 1 passage.")
    expect(sheet.locator("del")).to_contain_text(["waited"])
    expect(sheet.locator("ins")).to_contain_text(["nonce-amber"])
    page.keyboard.press("Escape")

    other.locator(".ws-opening").click()
    expect(here).to_contain_text("nonce-amber")
    left = rows.filter(has_text="Tom")
    left.hover()
    left.get_by_role("button", name="Delete this branch").click()
    expect(branches.get_by_text("Deleted branches")).to_be_visible()
    expect(rows.filter(has_text="Tom")).to_have_count(0)
    workspace.press("Recover")
    expect(rows.filter(has_text="Tom")).to_have_count(1)
    workspace.tab("Manuscript")
    assert workspace.texts()[1] == " nonce-amber" * SHORT


def test_versions_stand_side_by_side_and_one_is_taken(workspace: Workspace) -> None:
    page = workspace.page
    workspace.begin("Three roads led out of the village.")
    page.locator("#chat-input").press("Alt+v")
    sheet = page.get_by_role("dialog", name="Which way?")
    expect(sheet.get_by_role("button", name="Take this one")).to_have_count(3)
    for number in range(3):
        expect(sheet.get_by_role("button", name="Take this one").nth(number)).to_be_enabled()
    second = sheet.get_by_label("Version 2").locator(".ws-prose").inner_text()
    page.keyboard.press("2")
    expect(sheet).to_have_count(0)
    expect(page.locator("#chat-input")).to_have_value("")
    expect(workspace.passages).to_have_count(3)
    assert workspace.texts()[2].strip() == second
    workspace.click(2)
    expect(page.locator(".ws-version")).to_have_text("2 of 3")
