"""The manuscript beside the chat: shown, copied, edited and searched as it is stored."""

import random
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Desk
from tests.browser.test_prose import LINES, random_prose
from tests.browser.workspace import OPENING, SHORT, Workspace


@pytest.mark.own_words
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


@pytest.mark.own_words
def test_manuscript_grows_with_each_word(workspace: Workspace) -> None:
    page = workspace.page
    workspace.begin()
    expect(page.locator(".ws-counts")).to_contain_text(f"+{SHORT + 9} words")
    head = workspace.id_of(1)
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


@pytest.mark.own_words
def test_growing_passage_outlives_an_answer_that_left_before_it(workspace: Workspace) -> None:
    page = workspace.page
    workspace.begin()
    expect(page.locator(".ws-counts")).to_contain_text(f"+{SHORT + 9} words")
    growing = {"id": str(uuid4()), "parent": workspace.id_of(1), "version": None}
    unknown = {"changed": {"head": str(uuid4())}}  # so it is asked for
    held: list[Route] = []
    page.route("**/manuscript*", lambda route: held.append(route))
    with page.expect_request("**/manuscript*"):
        workspace.ask(unknown)
    workspace.ask({"growing": growing | {"from": 0, "text": " She waited"}})
    expect(workspace.passages).to_have_count(3)
    workspace.ask(unknown)  # once the first answer was taken
    with page.expect_request("**/manuscript*"):
        held[0].continue_()
    page.evaluate("() => new Promise(requestAnimationFrame)")  # it is drawn with the next frame
    assert workspace.texts()[2:] == [" She waited"]
    held[1].continue_()


@pytest.mark.own_words
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


@pytest.mark.own_words
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
    page.route("**/find*", lambda _: None)  # it is pressed sooner than the answer comes
    with page.expect_request("**/find*"):
        page.get_by_label("Find", exact=True).fill("amber")
    workspace.press("Replace all")
    expect(workspace.passages.nth(1)).to_have_text(" nonce-opal" * SHORT, use_inner_text=True)
    assert workspace.texts()[0] == OPENING.replace("amber", "opal")
    page.locator(".ws-page > .ws-prose").focus()
    page.keyboard.press("Alt+z")
    expect(workspace.passages.first).to_have_text(OPENING)
