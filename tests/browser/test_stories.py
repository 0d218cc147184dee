"""The list of stories: found, named, copied, deleted, brought in and taken out."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.workspace import Workspace


@pytest.mark.own_words
def test_stories_are_found_named_copied_and_deleted(workspace: Workspace, tmp_path: Path) -> None:
    page = workspace.page
    name = f"Zephyrine {tmp_path.name}"
    workspace.begin(f"{name}. The sea was nonce-grey")
    stories = workspace.tab("Stories")
    rows = stories.locator(".ws-story")
    stories.get_by_label("Search stories").fill(name)
    expect(rows).to_have_count(1)
    expect(rows).to_have_attribute("aria-current", "true")

    rows.locator("summary").click()
    workspace.press("Rename")
    stories.get_by_label("Title").fill(f"{name} renamed")
    stories.get_by_label("Title").press("Enter")
    expect(rows.get_by_role("link", name=f"{name} renamed")).to_be_visible()
    rows.locator("summary").click()
    workspace.press("Duplicate")
    expect(rows).to_have_count(2)
    copy = rows.filter(has_text="(copy)")
    copy.locator("summary").click()
    workspace.press("Delete")
    expect(rows).to_have_count(1)
    page.locator(".ws-toast").get_by_role("button", name="Undo").click()
    expect(rows).to_have_count(2)

    copy.locator("summary").click()
    with page.expect_download() as download:
        copy.get_by_role("link", name="Plain text").click()
    assert "nonce-grey nonce-grey" in Path(download.value.path()).read_text(encoding="utf-8")

    draft = tmp_path / "draft.txt"
    draft.write_text("It began in June.\n\nThen came July.", encoding="utf-8")
    before = page.url
    stories.locator("input[type=file]").set_input_files(draft)
    page.wait_for_url(lambda url: "/thread/" in url and url != before)
    workspace.tab("Manuscript")
    expect(page.locator(".ws-page > .ws-prose")).to_contain_text("Then came July.")
    assert workspace.copied() == "It began in June.\n\nThen came July."


def test_an_open_menu_stays_open_while_the_list_is_read_anew(
    workspace: Workspace, tmp_path: Path
) -> None:
    page = workspace.page
    name = f"Quillon {tmp_path.name}"
    workspace.begin(f"{name}. The sea was nonce-grey")
    stories = workspace.tab("Stories")
    rows = stories.locator(".ws-story")
    stories.get_by_label("Search stories").fill(name)
    expect(rows).to_have_count(1)

    words = "no story has these words"
    page.route(lambda url: "no+story" in url, lambda route: None)  # held until it is unrouted
    with page.expect_request(lambda request: "no+story" in request.url):
        stories.get_by_label("Search stories").fill(words)
    rows.locator("summary").click()
    with page.expect_response(lambda response: "no+story" in response.url):
        page.unroute_all()  # releases also one that was asked since
    expect(rows.get_by_role("button", name="Rename")).to_be_visible()
    rows.locator("summary").click()
    expect(stories.get_by_text("No story has these words.")).to_be_visible()


def test_what_cannot_be_imported_is_said_before_it_is_sent(
    workspace: Workspace, tmp_path: Path
) -> None:
    page = workspace.page
    workspace.desk.open()
    workspace.open()
    stories = workspace.tab("Stories")
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.url) if "/api/import" in r.url else None)
    large, strange = tmp_path / "large.txt", tmp_path / "picture.png"
    strange.write_bytes(b"")
    with large.open("wb") as file:
        file.truncate(20 * 1024 * 1024 + 1)
    for path, sentence in {strange: "cannot be read", large: "at most 20"}.items():
        stories.locator("input[type=file]").set_input_files(path)
        expect(stories.get_by_role("alert")).to_contain_text(sentence)
    assert sent == []
