"""Prose is shown as it was written, and does nothing. The page's own Markdown is the oracle."""

import random
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Desk

LINES = [
    "“Wait,” she said:wait, and then—nothing.",
    "She said:wait{#id .class key=value} and ::leaf[x]{y} and :smile:",
    "- He paused. - And again.",
    "* * *",
    "***",
    "---",
    "___",
    "===",
    "# Not a heading",
    "Chapter One",
    "===========",
    "1984. It was a bright cold day in April.",
    "1) one",
    "    Four spaces, and a tab:\tthere.",
    "\tA tab first.",
    "trailing spaces   ",
    "two  spaces,   three",
    "> quoted, not a quotation",
    "*stars* _lines_ **bold** __bold__ ~~struck~~ ~one~",
    "a_b_c and 2*3*4",
    "`code` and ``more`` and ```",
    "```python",
    "~~~",
    ":::",
    "::: note",
    "inside",
    ":::warning[Title]",
    "[link](https://evil.example/) [ref][1] [^1]",
    "[1]: https://evil.example/ 'title'",
    "[^1]: a note",
    "![image](https://evil.example/x.png) ![](/public/favicon.svg)",
    "https://evil.example/path?q=1 http://evil.example www.evil.example WWW.evil.example",
    "me@evil.example mailto:me@evil.example <me@evil.example> <https://evil.example>",
    "[a](javascript:alert(1)) [b](data:text/html,<script>alert(1)</script>)",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)> <svg/onload=alert(1)>",
    "<iframe src=https://evil.example></iframe><b>bold</b><br><!-- comment -->",
    "&amp; &lt; &#65; &#x41; &nbsp; &copy; &bogus; &",
    "\\* \\_ \\# \\\\ \\",
    "| a | b |",
    "|---|---|",
    "| 1 | 2 |",
    "- [ ] to do",
    "- [x] done",
    "$x^2$ and $$y$$ and \\(z\\)",
    "zero\u200bwidth\u200b\u200b \u200b",
    "joiners \u200d \u2060 \ufeff and soft\u00adhyphen",
    "no-break\u00a0space, thin\u2009space, em\u2003space, ideographic\u3000space",
    "right-to-left: \u05e9\u05dc\u05d5\u05dd \u202eabc\u202c",
    "combining: e\u0301 n\u0303 and emoji \U0001f469\u200d\U0001f680 \U0001f1eb\U0001f1f7",
    "line\u2028separator and paragraph\u2029separator",
    "naïve café — “quotes” ‘single’ … «guillemets» №5 ½ ™",
    "@@ ://:// www.www. :::::: @://www.",
    "a`b``c```d",
    "{{ template }} ${x} <%= y %>",
    "",
    "",
    "",
    "end of the page.",
]
SYMBOLS = [*"ab1. :*_-#>`~[](){}<>!|\\&;@/=+^$'\"\t\n", "  ", "\n\n", "www.", "://", "\u200b"]


# The button says Copied for a moment, in which a busy machine may not look.
NOTE_COPIED = """() => {
  delete document.documentElement.dataset.copied;
  new MutationObserver((_, observer) => {
    const button = document.querySelector('button[id^="copy-"]');
    if (button?.textContent !== "Copied") return;
    observer.disconnect();
    document.documentElement.dataset.copied = "";
  }).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""


def random_prose(seed: int, length: int = 2000) -> str:
    """Text in which nothing but letters and what means something to Markdown follows each other."""
    return "".join(random.Random(seed).choices(SYMBOLS, k=length))


TEXTS = {
    "lines": "\n".join(LINES),
    "each line alone": "\n\n".join(line for line in LINES if line),
    "goes on in a paragraph": " “and so,” she said, and left.",
    "from the start": "# " + "\n".join(LINES),
    "alert from the start": "::: note\nlook\n:::",
    "fence from the start": "```\ncode\n```",
    "spaces at both ends": "  \n\n in the middle \n\n  ",
    **{f"random {seed}": random_prose(seed) for seed in range(3)},
}


@pytest.mark.own_words
def test_models_prose_is_shown_and_copied_exactly(desk: Desk, tmp_path: Path) -> None:
    page = desk.page
    passages = page.locator(".ai-message [role=article]")
    desk.open()
    for number, (name, text) in enumerate(TEXTS.items()):
        (tmp_path / str(number)).write_text(text, encoding="utf-8", newline="")
        desk.write(f"recite:{tmp_path / str(number)}")
        expect(passages).to_have_count(number + 1)
        desk.wait()
        assert passages.last.text_content() == text, name
        assert passages.last.inner_text() == text, name
        page.evaluate(NOTE_COPIED)
        desk.button("Copy")
        expect(page.locator("html[data-copied]")).to_have_count(1)
        assert page.evaluate("navigator.clipboard.readText()") == text, name
    # Nothing in it became anything but text.
    content = page.locator(".message-content")
    for element in ("a", "img", "video", "iframe", "script", "table", "li", "h1", "hr", "pre pre"):
        assert content.locator(element).count() == 0, element
    page.reload()  # now from the store, not from a stream
    expect(passages).to_have_count(len(TEXTS))
    assert passages.all_inner_texts() == list(TEXTS.values())


def test_writers_prose_is_shown_exactly(desk: Desk) -> None:
    page = desk.page
    shown = page.locator("[data-step-type=user_message] pre")
    lines = [f"    {LINES[0]}", "\n".join(LINES).rstrip(), *LINES[33:35]]
    desk.open()
    for number, line in enumerate(lines):
        desk.write(line)
        expect(shown).to_have_count(number + 1)
        desk.wait()
    page.reload()
    expect(shown).to_have_count(len(lines))
    # The mark that keeps the first line's indentation is not part of the text.
    assert [text.removeprefix("\u2060") for text in shown.all_inner_texts()] == lines
