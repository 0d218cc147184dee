"""The workspace beside the chat: the manuscript as it is stored, and what is done from there."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Locator, Page, Route, expect

from storygen import sampling
from tests.browser.conftest import PATIENCE, Desk
from tests.browser.test_prose import LINES, random_prose
from tests.protocol.conftest import Server

OPENING = "Miss Harding knew the hand. She called for nonce-amber"
SHORT = 12  # words of a passage, so that tests are quick

# Resolves when the page was told that the temperature is 0.
AWAIT_SETTINGS = """() => new Promise((resolve) => {
  if (window.told?.temperature === 0) resolve();
  addEventListener("message", ({ data }) => {
    if (data.storygen?.settings?.temperature === 0) resolve();
  });
})"""
NOTE_SETTINGS = """() => addEventListener("message", ({ data }) => {
  window.told = data.storygen?.settings ?? window.told;
})"""


class Workspace:
    """The panel, as a writer uses it."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.page = desk, desk.page
        self.passages = desk.page.locator(".ws-passage")

    def begin(self, text: str = OPENING) -> None:
        """A story with one passage of each, and the panel open."""
        self.desk.open()
        self.ask({"do": "set", "max_new_tokens": SHORT})
        self.open()
        self.desk.write(text)
        self.desk.wait()
        self.page.wait_for_url("**/thread/*")
        expect(self.passages).to_have_count(2)

    def open(self) -> None:
        """Open the panel."""
        self.page.click("#workspace-button")
        expect(self.page.locator("#workspace")).to_be_visible()

    def reload(self) -> None:
        """Load the page anew; the panel is open again by itself."""
        self.page.reload()
        self.desk.wait_for_story()
        expect(self.page.locator("#workspace")).to_be_visible()

    def ask(self, message: dict[str, object]) -> None:
        """What the page's own buttons send."""
        self.page.evaluate("m => window.postMessage({ storygen: m }, location.origin)", message)

    def tab(self, name: str) -> Locator:
        """Go to a tab."""
        self.page.get_by_role("tab", name=name, exact=True).click()
        return self.page.get_by_role("tabpanel", name=name, exact=True)

    def press(self, name: str) -> None:
        """Press a button of the workspace."""
        self.page.locator("#workspace, dialog").get_by_role("button", name=name, exact=True).click()

    def click(self, number: int) -> None:
        """Click a passage, in its first line, once it will stay what it is."""
        prose = self.page.locator(".ws-page > .ws-prose")
        expect(prose).to_have_attribute("aria-busy", "false")
        x, y = self.passages.nth(number).evaluate(
            """passage => {
              passage.scrollIntoView({ block: "center" });
              const [line] = passage.getClientRects();
              return [line.left + line.width / 2, line.top + line.height / 2];
            }"""
        )
        self.page.mouse.click(x, y)

    def texts(self) -> list[str]:
        """The passages as the browser reads them out."""
        return self.passages.all_inner_texts()

    def copied(self) -> str:
        """The whole manuscript by way of the clipboard, selected with the keyboard."""
        self.page.locator(".ws-page > .ws-prose").focus()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.press("Control+c")
        return str(self.page.evaluate("navigator.clipboard.readText()"))

    def exported(self) -> str:
        """The story as the server writes it into a file of plain text."""
        story = self.page.url.rsplit("/", 1)[1].partition("#")[0]
        answer = self.page.request.get(f"{self.desk.server.url}/api/stories/{story}/manuscript")
        return "".join(p["joint"] + p["text"] for p in answer.json()["passages"])


@pytest.fixture
def workspace(desk: Desk) -> Workspace:
    """A page whose panel is closed as yet."""
    return Workspace(desk)


def test_manuscript_is_shown_and_copied_to_the_last_space(
    workspace: Workspace, tmp_path: Path
) -> None:
    hard = ["\n".join(LINES), "  \n\n in the middle \n\n  ", random_prose(3), random_prose(4, 9000)]
    workspace.desk.open()
    workspace.open()
    for number, text in enumerate(hard):
        (tmp_path / str(number)).write_text(text, encoding="utf-8", newline="")
        workspace.desk.write(f"recite:{tmp_path / str(number)}")
        workspace.desk.wait()
    page = workspace.page
    page.wait_for_url("**/thread/*")
    for _ in range(2):  # as it grew, and as it is read from the store
        for number, text in enumerate(hard):
            parts = page.locator(".ws-passage.ws-by-model")
            ids = parts.evaluate_all("all => [...new Set(all.map(p => p.dataset.passage))]")
            mine = page.locator(f'[data-passage="{ids[number]}"]')
            assert "".join(mine.all_text_contents()) == text
            if mine.count() == 1:
                assert mine.inner_text() == text
        assert workspace.copied() == workspace.exported()
        workspace.reload()
        expect(page.locator(".ws-by-model").first).to_be_attached()


def test_manuscript_is_the_same_however_it_came_about(desk: Desk) -> None:
    draw = random.Random(11)
    passages: list[dict[str, object]] = []
    steps: list[list[object]] = []
    for _ in range(120):
        kept = draw.randint(max(0, len(passages) - 3), len(passages))
        passages = passages[:kept]
        for _ in range(draw.randint(0, 4)):
            text = random_prose(draw.randrange(10**6), draw.choice([0, 3, 400, 5000]))
            edited = draw.choice([None, [[1, 2], [2, 300]]]) if len(text) > 300 else None
            joint = draw.choice(["", " ", "\n\n"])
            role = draw.choice(["writer", "model"])
            passage = {"id": str(uuid4()), "role": role, "joint": joint, "text": text}
            passages = [*passages, {**passage, "edited": edited}]
        steps.append([passages, kept])
    desk.open()
    different = desk.page.evaluate(
        """async (steps) => {
          const { Prose } = await import("/public/workspace/prose.js");
          const [grown, fresh] = [1, 2].map(() => document.createElement("div"));
          const prose = new Prose(grown);
          return steps.flatMap(([passages, from], i) => {
            prose.show(passages, from);
            fresh.replaceChildren();
            new Prose(fresh).show(passages);
            const text = passages.map((p) => p.joint + p.text).join("");
            const isSame = grown.innerHTML === fresh.innerHTML && grown.textContent === text;
            return isSame ? [] : [i];
          });
        }""",
        steps,
    )
    assert different == []


def test_manuscript_grows_with_each_word(workspace: Workspace) -> None:
    page = workspace.page
    workspace.begin()
    expect(page.locator(".ws-counts")).to_contain_text(f"+{SHORT + 9} words")
    head = _id_of(workspace, 1)
    growing = {"id": str(uuid4()), "parent": head, "version": None}
    text = ""
    for piece in (" She", " waited 👩\u200d🚀", "\n\nFor", " whom?\n" * 200):
        workspace.ask({"growing": growing | {"from": len(text), "text": piece}})
        text += piece
        expect(workspace.passages.nth(2)).to_have_text(text, use_inner_text=True)
    scroller = page.locator("#ws-manuscript .ws-scroll")
    below = "e => e.scrollHeight - e.scrollTop - e.clientHeight"
    assert scroller.evaluate(below) < 60  # it stays at the end by itself
    scroller.evaluate("e => e.scrollTop = 0")
    workspace.ask({"growing": growing | {"from": len(text), "text": " me", "done": "stop"}})
    expect(workspace.passages.nth(2)).to_have_text(f"{text} me", use_inner_text=True)
    assert scroller.evaluate("e => e.scrollTop") == 0  # but not where one reads elsewhere


def test_passage_is_edited_where_it_stands(workspace: Workspace) -> None:
    page = workspace.page
    workspace.begin()
    workspace.click(1)
    workspace.press("Edit")
    field = page.get_by_label("Edit this passage")
    expect(field).to_have_value(" nonce-amber" * SHORT)
    field.fill("never")
    field.press("Escape")
    assert workspace.texts()[1] == " nonce-amber" * SHORT
    workspace.click(1)
    workspace.press("Edit")
    new = " nonce-amber" * (SHORT - 1) + " and\n\nthe sea 👩\u200d🚀."
    field.fill(new)
    field.press("Control+Enter")
    expect(workspace.passages.nth(1)).to_have_text(new, use_inner_text=True)
    # What the writer changed is the writer's, the rest is still the model's.
    page.get_by_label("Show the model’s words").check()
    assert "sea" not in "".join(page.locator(".ws-passage .ws-models").all_text_contents())
    page.keyboard.press("Alt+z")
    expect(workspace.passages.nth(1)).to_have_text(" nonce-amber" * SHORT, use_inner_text=True)
    workspace.click(1)
    expect(page.locator(".ws-version")).to_have_text("1 of 2")
    workspace.press("Version after")
    expect(workspace.passages.nth(1)).to_have_text(new, use_inner_text=True)
    expect(page.locator(".ws-version")).to_have_text("2 of 2")


def test_marks_stay_with_a_passage(workspace: Workspace) -> None:
    page = workspace.page
    workspace.begin()
    workspace.click(0)
    for name in ("Favourite", "Good"):
        workspace.press(name)
        expect(page.get_by_role("button", name=name, exact=True)).to_have_attribute(
            "aria-pressed", "true"
        )
    workspace.press("Name")
    page.get_by_role("textbox", name="Name").fill("The letter")
    workspace.press("Keep")
    expect(page.get_by_text("Named “The letter”.")).to_be_visible()
    workspace.press("Copy a link to this passage")
    expect(page.get_by_text("Link copied.")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator(".ws-passage.ws-found")).to_have_text(OPENING)
    workspace.click(0)
    expect(page.get_by_role("button", name="Favourite", exact=True)).to_have_attribute(
        "aria-pressed", "true"
    )
    expect(page.get_by_role("button", name="Name", exact=True)).to_have_attribute(
        "title", "Name: The letter"
    )


def test_words_are_found_and_replaced_throughout(workspace: Workspace) -> None:
    page = workspace.page
    workspace.begin()
    workspace.press("Find and replace")
    page.get_by_label("Find", exact=True).fill("AMBER")
    status = page.locator(".ws-find [role=status]")
    expect(status).to_have_text(f"{SHORT + 1} found")
    workspace.press("Next hit")
    expect(status).to_have_text(f"1 of {SHORT + 1} found")
    workspace.press("Hit before")
    expect(status).to_have_text(f"{SHORT + 1} of {SHORT + 1} found")
    page.get_by_label("Aa", exact=True).check()
    expect(status).to_have_text("Not found")
    page.get_by_label("Aa", exact=True).uncheck()
    page.get_by_label("Replace with").fill("opal")
    expect(status).to_contain_text(f"{SHORT + 1} found")
    workspace.press("Replace all")
    expect(workspace.passages.nth(1)).to_have_text(" nonce-opal" * SHORT, use_inner_text=True)
    assert workspace.texts()[0] == OPENING.replace("amber", "opal")
    page.locator(".ws-page > .ws-prose").focus()
    page.keyboard.press("Alt+z")
    expect(workspace.passages.first).to_have_text(OPENING)


def test_branches_are_shown_compared_and_recovered(workspace: Workspace) -> None:
    page = workspace.page
    workspace.begin()
    workspace.ask({"do": "edit", "id": _id_of(workspace, 1), "text": " She waited for Tom."})
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


def test_steering_is_kept_and_seen_in_the_context(workspace: Workspace) -> None:
    page = workspace.page
    workspace.begin()
    steer = workspace.tab("Steer")
    steer.get_by_label("Memory").fill("Eleanor Harding keeps house.")
    steer.get_by_label("Author’s note", exact=False).first.fill("It rains.")
    workspace.press("Add an entry")
    steer.get_by_label("Name", exact=True).fill("The hand")
    steer.get_by_label("Keys, with commas between").fill("hand, writing")
    steer.get_by_label("What the model should know").fill("It is her uncle’s.")
    workspace.tab("Manuscript")  # at once: nothing that was typed is lost
    steer = workspace.tab("Steer")
    expect(steer.locator(".ws-saved")).to_have_text("Saved")
    for source, text in {"memory": "Eleanor", "lore": "her uncle’s", "note": "It rains."}.items():
        expect(steer.locator(f".ws-seen .ws-of-{source}")).to_contain_text(text)
    workspace.reload()
    steer = page.get_by_role("tabpanel", name="Steer")
    expect(steer.get_by_label("Memory")).to_have_value("Eleanor Harding keeps house.")
    expect(steer.get_by_label("Keys, with commas between")).to_have_value("hand, writing")
    steer.get_by_label("On", exact=True).uncheck()
    expect(steer.locator(".ws-seen .ws-of-lore")).to_have_count(0)


def test_next_word_is_taken_and_its_choice_is_drawn(workspace: Workspace) -> None:
    page = workspace.page
    workspace.begin()
    page.route("**/next", _with_halves)  # the engine of these tests finds all words alike
    page.evaluate(NOTE_SETTINGS)
    words = workspace.tab("Words")
    words.locator(".ws-chip").first.click()
    expect(words.locator(".ws-tail")).to_have_text(re.compile("nonce-amber It$"))
    expect(words.locator(".ws-waiting")).to_have_count(0)  # the words after it are there
    page.get_by_role("tab", name="Words").press("2")
    expect(words.locator(".ws-tail")).to_have_text(re.compile("nonce-amber It was$"))

    numbers, bars = words.locator(".ws-numbers"), words.locator(".ws-now")
    before = bars.nth(1).get_attribute("width")
    words.get_by_label("Temperature").fill("2")  # the longest bar stays, the others grow
    expect(bars.nth(1)).not_to_have_attribute("width", str(before))
    words.get_by_label("Top-k").fill("2")
    expect(numbers).to_have_text(re.compile(r"^Keeps 2 of 5, \d+ % of the mass\.$"))
    expect(words.locator(".ws-is-cut")).to_have_count(3)
    words.get_by_label("Temperature").fill("0")
    expect(numbers).to_have_text("Keeps 1 of 5, 100 % of the mass.")
    page.evaluate(AWAIT_SETTINGS)  # as the sidebar of the page has them too
    workspace.tab("Manuscript")
    assert workspace.texts()[2] == " It was"
    workspace.reload()
    words = workspace.tab("Words")
    expect(words.get_by_label("Top-k")).to_have_value("2")
    expect(words.get_by_label("Temperature")).to_have_value("0")


def test_picture_keeps_what_the_engine_keeps(desk: Desk) -> None:
    desk.open()
    draw = np.random.default_rng(7)
    for _ in range(60):
        logits = np.sort(draw.normal(0, 3, 200).round(draw.integers(0, 3)))[::-1].copy()
        settings = {
            "temperature": float(draw.choice([0.3, 0.8, 1.0, 1.7])),
            "top_k": int(draw.choice([0, 1, 5, 40, 200])),
            "top_p": float(draw.choice([0.05, 0.5, 0.9, 1.0])),
            "min_p": float(draw.choice([0.0, 0.05, 0.5])),
        }
        row = sampling.temperature(torch.from_numpy(logits)[None], settings["temperature"])
        row = sampling.top_k(row, int(settings["top_k"]))
        row = sampling.min_p(sampling.top_p(row, settings["top_p"]), settings["min_p"])
        probabilities = torch.from_numpy(logits).softmax(dim=-1).tolist()
        shares = desk.page.evaluate(
            """async ([ps, settings]) => {
              const { shaped } = await import("/public/workspace/sampling.js");
              const tokens = ps.map((p) => ({ text: "", p }));
              return shaped(tokens, settings).tokens.map((token) => token.share);
            }""",
            [probabilities, settings],
        )
        assert shares == pytest.approx(row.softmax(dim=-1)[0].tolist(), abs=1e-12), settings


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
    waiting: list[Route] = []
    page.route(lambda url: "no+story" in url, lambda route: waiting.append(route))
    with page.expect_request(lambda request: "no+story" in request.url):
        stories.get_by_label("Search stories").fill(words)
    rows.locator("summary").click()
    with page.expect_response(lambda response: "no+story" in response.url):
        waiting.pop().continue_()
    page.unroute_all()
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


def _with_halves(route: Route) -> None:
    """The answer of the route with tokens each half as likely as the one before."""
    answer = route.fetch()
    tokens = [{"text": f" {word}", "p": 0.5**n} for n, word in enumerate("abcde", start=1)]
    route.fulfill(response=answer, json={**answer.json(), "tokens": tokens})


def _id_of(workspace: Workspace, number: int) -> str:
    return str(workspace.passages.nth(number).get_attribute("data-passage"))
