"""A whole evening at the workspace, with a real model and a restart in the middle. Pictures of each
step are kept in runs/evening, to be looked at."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from storygen.story.books import book
from tests.browser.conftest import SHIPPED, Desk
from tests.protocol.conftest import REAL, ROOT, Server, serve

PICTURES = ROOT / "runs" / "evening"
DRAFT = """Chapter One

The letter had come by the last post, in a hand that Miss Harding did not know.

"You have read it, then," said her brother.

She had read it twice. It was from a man named Merrow, whom nobody in the house had ever seen.

Chapter Two

In the morning Merrow was at the door."""


@pytest.fixture
def evening(page: Page, tmp_path: Path) -> Iterator["Evening"]:
    """A page of its own server, which the evening may end and start again."""
    evening = Evening(page, tmp_path)
    yield evening
    page.goto("about:blank")
    evening.server.stop()


class Evening:
    """The chat and, beside it, the workspace."""

    def __init__(self, page: Page, data: Path) -> None:
        self.page, self.data, self.taken = page, data, 0
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start the program on the evening's stories."""
        self.server: Server = serve(self.data, REAL, STORYGEN_WEIGHTS_DIR=str(SHIPPED))
        self.desk = Desk(self.page, self.server)

    def picture(self, name: str) -> None:
        """Keep what there is to see."""
        self.taken += 1
        self.page.screenshot(path=PICTURES / f"{self.taken:02}-{name}.png")

    def tab(self, name: str) -> Locator:
        """Open a tab; what is in it."""
        self.page.get_by_role("tab", name=name).click()
        return self.page.get_by_role("tabpanel", name=name)

    def manuscript(self, wanted: str) -> str:
        """The text of the manuscript as the browser has it, once this is in it."""
        self.tab("Manuscript")
        prose = self.page.locator("#ws-manuscript .ws-prose")
        expect(prose).to_contain_text(wanted, use_inner_text=True)
        return prose.inner_text()

    def stored(self) -> str:
        """The manuscript as it is stored."""
        story_id = self.page.url.rpartition("/")[2]
        answer = self.page.request.get(f"{self.server.url}/api/stories/{story_id}/manuscript")
        return "".join(p["joint"] + p["text"] for p in answer.json()["passages"])

    def passage(self, text: str) -> None:
        """Open the tools of the passage that has this text."""
        self.tab("Manuscript")
        self.page.locator("#ws-manuscript .ws-prose [data-passage]", has_text=text).first.click()

    def undo(self) -> None:
        """One step back."""
        self.desk.button("Undo")
        self.desk.wait()


def test_a_whole_evening(evening: Evening) -> None:
    page, desk = evening.page, evening.desk
    desk.open()
    page.click("#workspace-button")
    draft = evening.data / "The Letter.docx"
    draft.write_bytes(book("docx", DRAFT, title="The Letter"))

    # A draft comes in, in passages.
    with page.expect_file_chooser() as chooser:
        evening.tab("Stories").get_by_role("button", name="Import a draft").click()
    chooser.value.set_files(draft)
    page.wait_for_url("**/thread/*")
    desk.wait()
    expect(page.locator("#workspace")).to_be_visible()
    assert evening.manuscript(DRAFT).strip() == DRAFT
    evening.picture("imported")

    # The model goes on; then in three ways, of which the second is taken.
    desk.button("Continue")
    desk.wait()
    evening.picture("continued")
    before = evening.stored()
    desk.button("Three ways")
    ways = page.get_by_role("dialog")
    expect(ways.get_by_role("button", name="Take this one")).to_have_count(3)
    second = ways.get_by_label("Version 2")
    expect(second.get_by_role("button", name="Take this one")).to_be_enabled()
    chosen = second.locator(".ws-prose").inner_text()
    evening.picture("three-ways")
    second.get_by_role("button", name="Take this one").click()
    desk.wait()
    assert evening.stored().endswith(chosen)
    evening.picture("second-taken")

    # A name is edited in one place, then throughout.
    evening.passage("Merrow")
    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_label("Edit this passage").fill(DRAFT.replace("named Merrow", "named Marrow"))
    evening.picture("editing")
    page.keyboard.press("Control+Enter")
    desk.wait()
    evening.manuscript("named Marrow")
    assert evening.stored().count("Marrow") == 1
    page.get_by_role("button", name="Find and replace").click()
    page.get_by_label("Find", exact=True).fill("Marrow")
    expect(page.get_by_text("1 found")).to_be_visible()
    page.get_by_label("Find", exact=True).fill("Merrow")
    page.get_by_label("Replace with").fill("Marrow")
    expect(page.get_by_role("button", name="Replace all")).to_be_enabled()
    evening.picture("replacing")
    page.get_by_role("button", name="Replace all").click()
    desk.wait()
    assert "Merrow" not in evening.stored()
    assert evening.stored().count("Marrow") >= 2
    page.get_by_role("button", name="Close the search").click()

    # Another way from the draft on, and both compared.
    evening.passage("named Marrow")
    page.get_by_role("button", name="Branch from here").click()
    desk.wait()
    desk.button("Continue")
    desk.wait()
    evening.picture("branched")
    branches = evening.tab("Branches")
    expect(branches.get_by_role("treeitem").nth(2)).to_be_visible()
    evening.picture("branches")
    for n in (-1, -2):
        branches.get_by_role("treeitem").nth(n).get_by_role("checkbox").check()
    branches.get_by_role("button", name="Compare").click()
    expect(page.get_by_role("dialog")).to_contain_text("Both begin with the same")
    evening.picture("compared")
    page.keyboard.press("Escape")

    # Five steps back, one forward: the very texts that were there.
    there = [evening.stored()]
    for _ in range(5):
        evening.undo()
        there.append(evening.stored())
    assert there[2] != there[3]
    assert there[4].startswith(before)
    evening.picture("five-undone")
    desk.button("Redo")
    desk.wait()
    assert evening.stored() == there[4]

    # A word out of the fan.
    words = evening.tab("Words")
    word = words.locator("[data-word='0']")
    expect(word).to_be_visible()
    expect(words.locator("svg").first).to_be_visible()
    evening.picture("words")
    taken = word.locator(".ws-word").inner_text().lstrip("¶")  # as a new paragraph is shown
    word.click()
    desk.wait()
    assert evening.stored().rstrip().endswith(taken)

    # Note and lore are in what the model sees.
    steer = evening.tab("Steer")
    steer.get_by_label("Author’s note").fill("[The weather is getting worse.]")
    steer.get_by_role("button", name="Add an entry").click()
    steer.get_by_label("Name", exact=True).fill("Miss Harding")
    steer.get_by_label("Keys, with commas between").fill("Harding, sister")
    steer.get_by_label("What the model should know").fill("Miss Harding has never been to sea.")
    seen = steer.get_by_role("document", name="The exact text")
    expect(seen).to_contain_text("Miss Harding has never been to sea.")
    expect(seen).to_contain_text("[The weather is getting worse.]")
    evening.picture("steered")
    desk.button("Continue")
    desk.wait()

    # The book leaves.
    api = page.url.replace("/thread/", "/api/stories/")
    epub = page.request.get(f"{api}/export/epub")
    with zipfile.ZipFile(io.BytesIO(epub.body())) as packed:
        assert packed.read("mimetype") == b"application/epub+zip"
        chapters = "".join(packed.read(n).decode() for n in packed.namelist() if "xhtml" in n)
    assert "Miss Harding did not know" in chapters
    whole = json.loads(page.request.get(f"{api}/export/json").text())
    assert len(whole["passages"]) > 8

    # A branch is put away and brought back.
    branches = evening.tab("Branches")
    runs = branches.get_by_role("treeitem")
    expect(runs.nth(2)).to_be_visible()
    count = runs.count()
    other = branches.locator("[role=treeitem]:not(.ws-active)").first
    other.hover()
    other.get_by_role("button", name="Delete this branch").click()
    expect(branches.get_by_role("heading", name="Deleted branches")).to_be_visible()
    assert runs.count() < count
    evening.picture("branch-deleted")
    branches.get_by_role("button", name="Recover").click()
    expect(runs).to_have_count(count)

    # The program ends and is started again: everything is as it was, and goes on.
    last, path = evening.stored(), page.url.removeprefix(evening.server.url)
    page.goto("about:blank")  # it would complain, rightly, that nobody answers
    assert evening.server.stop() == 0
    evening.start()
    desk = evening.desk
    desk.open(path)
    desk.wait_for_story()
    page.click("#workspace-button")  # another port is another page to the browser
    assert evening.stored() == last
    assert evening.manuscript(last).strip() == last.strip()
    assert (
        evening.tab("Steer").get_by_label("Author’s note").input_value().startswith("[The weather")
    )
    desk.button("Continue")
    desk.wait()
    assert evening.stored().startswith(last)
    assert len(evening.stored()) > len(last)
    evening.tab("Manuscript")
    evening.picture("after-the-restart")
