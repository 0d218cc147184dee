"""What the model reads, and how its next word is chosen."""

import re

import numpy as np
import pytest
import torch
from playwright.sync_api import Route, expect

from storygen import sampling
from tests.browser.conftest import Desk
from tests.browser.workspace import Workspace

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


@pytest.mark.own_words
def test_next_word_is_taken_and_its_choice_is_drawn(workspace: Workspace) -> None:
    page = workspace.page
    workspace.begin()
    page.route("**/next", with_halves)  # the engine of these tests finds all words alike
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


def with_halves(route: Route) -> None:
    """The answer of the route with tokens each half as likely as the one before."""
    answer = route.fetch()
    tokens = [{"text": f" {word}", "p": 0.5**n} for n, word in enumerate("abcde", start=1)]
    route.fulfill(response=answer, json={**answer.json(), "tokens": tokens})
