"""Two hundred texts made to run, load or lead away, in every place where text can come in, in
headless Chromium: nothing runs, nothing is asked of another host, all of it is shown as it is."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx
import pypandoc
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, expect

from storygen.chat.prose import WORD_JOINER
from tests.browser.conftest import PATIENCE as MILLISECONDS
from tests.browser.conftest import Desk
from tests.protocol.conftest import PATIENCE, Server
from tests.security.payloads import EVIL, PAYLOADS

# Of a story the chat shows 40 passages: each text is the writer's once and the model's once.
SHOWN, EACH = 20, 4  # texts on a page, payloads in a text
AT_ONCE = 50  # messages of a window; of more than events.MOST_EVENTS some would be let go
NOTE_ATTEMPTS = """
window.attempts = [];
addEventListener("securitypolicyviolation", (event) => attempts.push(event.blockedURI));
if (localStorage.getItem("storygen.open") === null) localStorage.setItem("storygen.open", "yes");
"""
# What no name of a file may have: what leads elsewhere, ends a header or turns text around.
HARMFUL = re.compile(
    '[\x00-\x1f\x7f-\x9f<>:"/\\\\|?*\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]|^[. ]|[. ]$'
)
DISPOSITION = re.compile(r"""attachment; filename="([ -!#-\[\]-~]+)"; filename\*=UTF-8''(\S+)""")
# What a payload would be if it were not text. The page's own icons and links are none of these.
DONE = f"""[...document.querySelectorAll("*")].filter((e) =>
  [...e.attributes].some((a) => a.name.startsWith("on") || /{EVIL}|hit=1/.test(
    ["href", "src", "srcset", "style", "action", "poster", "data"].includes(a.name) ? a.value : ""))
).map((e) => e.outerHTML.slice(0, 200))"""


class Suspect:
    """A page, and what it was seen to do."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server, self.seen = page, server, list[str]()
        page.on("request", lambda request: self._asked(request.url))
        page.on("websocket", lambda socket: self._asked(socket.url))
        page.on("dialog", lambda dialog: self.seen.append(f"dialog: {dialog.message}"))
        page.on("popup", lambda popup: self.seen.append(f"popup: {popup.url}"))
        page.on("pageerror", lambda error: self.seen.append(f"error: {error}"))

    def _asked(self, url: str) -> None:
        if urlsplit(url).hostname not in {"127.0.0.1", None}:
            self.seen.append(url)

    def open(self, path: str = "/") -> None:
        """Load a page of the server, ready to write."""
        Desk(self.page, self.server).open(path)

    def tab(self, name: str) -> Any:
        """Go to a tab of the workspace."""
        self.page.get_by_role("tab", name=name, exact=True).click()
        return self.page.get_by_role("tabpanel", name=name, exact=True)

    def require_innocence(self) -> None:
        """Nothing ran, loaded, or became anything but text."""
        assert self.page.evaluate("[window.hit ?? null, window.opener, attempts]") == [None] * 2 + [
            []
        ]
        assert self.page.evaluate(DONE) == []
        assert self.seen == []


@pytest.fixture
def suspect(chromium: Browser, watched: Server) -> Iterator[Suspect]:
    """A page that must not have done anything in the end."""
    context = chromium.new_context(viewport={"width": 1600, "height": 900})
    context.add_init_script(NOTE_ATTEMPTS)
    context.set_default_timeout(MILLISECONDS)
    suspect = Suspect(context.new_page(), watched)
    yield suspect
    suspect.require_innocence()
    context.close()


@pytest.fixture(scope="module")
def http(watched: Server) -> Iterator[httpx.Client]:
    """The page's routes, with its cookie."""
    headers = {"Cookie": watched.cookie}
    with httpx.Client(base_url=watched.url, headers=headers, timeout=PATIENCE) as client:
        yield client


def brought_in(http: httpx.Client, name: str, content: bytes) -> str:
    """Take in a file; the id of its story."""
    answer = http.post(f"/api/import?name={quote(name)}", content=content)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def archive(title: str, passages: list[dict[str, Any]], **settings: Any) -> bytes:
    """A story whole; each passage follows the one before unless it names its parent."""
    at = "2026-01-01T12:00:00+00:00"
    numbered = [
        {"number": n, "at": at} | ({"parent": n - 1} if n > 1 else {}) | passage
        for n, passage in enumerate(passages, 1)
    ]
    story = {"storygen": 1, "title": title, "settings": settings, "passages": numbered}
    return json.dumps(story | {"head": len(numbered)}).encode()


def test_there_are_two_hundred_different_ones() -> None:
    assert len(set(PAYLOADS)) >= 200


def test_passages_of_both_authors_are_only_text(suspect: Suspect, http: httpx.Client) -> None:
    page = suspect.page
    joined = ["\n\n".join(PAYLOADS[n : n + EACH]) for n in range(0, len(PAYLOADS), EACH)]
    for start in range(0, len(joined), SHOWN):
        texts = joined[start : start + SHOWN]
        passages = [{"role": role, "text": t} for t in texts for role in ("writer", "model")]
        story = brought_in(http, "story.json", archive("Both", passages))
        suspect.open(f"/thread/{story}")
        models = page.locator(".ai-message [role=article]")
        expect(models).to_have_count(len(texts))
        assert models.all_text_contents() == texts
        assert models.all_inner_texts() == texts
        writers = page.locator("[data-step-type=user_message] pre").all_text_contents()
        assert [text.removeprefix(WORD_JOINER) for text in writers] == [
            text.removeprefix(WORD_JOINER) for text in texts
        ]
        shown = page.locator(".ws-passage")
        expect(shown.nth(len(passages) - 1)).to_be_attached()  # one with a heading is in two parts
        assert "".join(shown.all_text_contents()) == "".join(part["text"] for part in passages)
        suspect.require_innocence()


MARKS = "** __ _ ` ~~ ``` # 1984. - > [x]( ] ) ![ <b> </b> <!-- &amp; &# : :: ::: $ $$ \\ | ---"
PIECES = st.sampled_from([*MARKS.split(" "), " ", "    ", "\n", "\n\n", "\u200b"])
TYPED = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6)
TEXTS = st.lists(PIECES | TYPED, min_size=1, max_size=9).map("".join).filter(str.strip)


@settings(
    max_examples=max(1, settings().max_examples // 50),  # pages of 20 texts; see fuzz.py
    phases=[Phase.generate],  # no making it smaller: a text that is not shown is waited for
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(TEXTS, min_size=SHOWN, max_size=SHOWN))
def test_any_text_is_shown_to_the_character(
    suspect: Suspect, http: httpx.Client, texts: list[str]
) -> None:
    passages = [{"role": "model", "text": text} for text in texts]
    suspect.open(f"/thread/{brought_in(http, 'story.json', archive('Any', passages))}")
    shown = suspect.page.locator(".ai-message [role=article]")
    expect(shown).to_have_count(len(texts))
    assert shown.all_text_contents() == texts
    suspect.require_innocence()


def test_streamed_prose_is_only_text(suspect: Suspect, tmp_path: Path) -> None:
    text = "\n".join(PAYLOADS)
    (tmp_path / "all").write_text(text, encoding="utf-8", newline="")
    suspect.open()
    desk = Desk(suspect.page, suspect.server)
    desk.write(f"recite:{tmp_path / 'all'}")
    desk.wait()
    assert suspect.page.locator(".ai-message [role=article]").last.inner_text() == text


def test_titles_and_names_of_files_are_only_text(suspect: Suspect, http: httpx.Client) -> None:
    """In Chainlit's list and in the workspace's; a draft is titled after its file."""
    for text in PAYLOADS:
        brought_in(http, "t.json", archive(text, [{"role": "writer", "text": "It began."}]))
        brought_in(http, f"{text}.txt", b"It began, and it went on.")
    known = set[str]()
    answer: dict[str, Any] = {"next": ""}
    while answer["next"] is not None:
        answer = http.get("/api/stories", params={"before": answer["next"], "limit": 200}).json()
        known |= {story["title"] for story in answer["stories"]}
    assert known >= set(PAYLOADS)
    suspect.open()
    stories = suspect.tab("Stories")
    titles = stories.locator(".ws-story-title")
    more = stories.get_by_role("button", name="Show more")
    expect(titles).to_have_count(50)
    while more.is_visible():
        before = titles.count()
        more.click()
        expect(titles.nth(before)).to_be_attached()
    assert set(titles.all_text_contents()) >= {title or "Untitled" for title in PAYLOADS}
    listed = suspect.page.locator('[id^="thread-"]')
    expect(listed.first).to_be_attached()
    assert set(listed.all_text_contents()) & known


SOME = PAYLOADS[::9]  # from each family


def content_of(kind: str) -> bytes:
    """A file of this kind that says nothing of a title."""
    if kind == "json":
        return archive("", [{"role": "writer", "text": "It began."}])
    if kind in {"txt", "md"}:
        return b"It began."
    with NamedTemporaryFile(suffix=f".{kind}") as file:
        pypandoc.convert_text("It began.", kind, "markdown", outputfile=file.name)
        return file.read()


def test_names_of_files_of_every_kind_are_only_text(suspect: Suspect, http: httpx.Client) -> None:
    """Taken in as the page does it, which is shown what they are called or why they are not read;
    a browser sends any name, also those that no file system has."""
    contents = {kind: content_of(kind) for kind in ("md", "html", "docx", "epub", "odt", "json")}
    for text, kind in zip(SOME, cycle(contents), strict=False):
        brought_in(http, f"{text}.{kind}", contents[kind])
    suspect.open()
    stories = suspect.tab("Stories")
    chosen = stories.locator("input[type=file]")
    alert = stories.get_by_role("alert")
    for text, kind in zip(SOME, cycle(["png", "txt"]), strict=False):
        name = f"{text}.{kind}".replace("/", "-")  # where a browser takes what is before for a path
        before = suspect.page.url
        file = {"name": name, "mimeType": "text/html", "buffer": contents["md"]}
        chosen.set_input_files(files=[file])  # type: ignore[list-item]  # a FilePayload
        if kind == "png":
            expect(alert).to_contain_text("cannot be read")
        else:
            suspect.page.wait_for_url(lambda url, old=before: "/thread/" in url and url != old)
            expect(suspect.page.locator(".ws-story[aria-current=true]")).to_have_count(1)
        suspect.require_innocence()


def test_names_of_what_is_taken_out_are_plain_everywhere(http: httpx.Client) -> None:
    """In the one header that says them, and in the archive of all stories."""
    for text in PAYLOADS:
        story = brought_in(http, "t.json", archive(text, [{"role": "writer", "text": "Out."}]))
        answer = http.get(f"/api/stories/{story}/export/txt")
        (said,) = answer.headers.get_list("content-disposition")
        match = DISPOSITION.fullmatch(said)
        assert match is not None, said
        plain, name = match[1], unquote(match[2])
        for file in (plain, name):
            assert file.endswith(".txt")
            assert HARMFUL.search(file) is None, file
        assert len(name.encode()) <= 255
        assert answer.headers["x-content-type-options"] == "nosniff"
    with zipfile.ZipFile(io.BytesIO(http.get("/api/export").content)) as packed:
        names = packed.namelist()
    assert len({name.casefold() for name in names}) == len(names) >= 2 * len(PAYLOADS)
    assert [name for name in names if HARMFUL.search(name)] == []


def test_a_browser_saves_what_is_taken_out_under_its_name(
    suspect: Suspect, http: httpx.Client
) -> None:
    suspect.open()
    for text in SOME:
        story = brought_in(http, "t.json", archive(text, [{"role": "writer", "text": "Out."}]))
        address = f"/api/stories/{story}/export/html"
        with suspect.page.expect_download() as download:
            suspect.page.evaluate("address => { location.href = address; }", address)
        name = download.value.suggested_filename
        assert HARMFUL.search(name) is None, name
        assert name.endswith(".html")


def test_names_of_branches_are_only_text(suspect: Suspect, http: httpx.Client) -> None:
    first = {"role": "writer", "text": "It began."}
    branches = [{"role": "model", "text": t, "parent": 1, "name": t} for t in PAYLOADS]
    story = brought_in(http, "branches.json", archive("Branches", [first, *branches]))
    suspect.open(f"/thread/{story}")
    tree = suspect.tab("Branches")
    expect(tree.locator(".ws-run")).to_have_count(len(PAYLOADS) + 1)
    shown = tree.text_content()
    assert [
        text for text in PAYLOADS if " ".join(text.split()) not in " ".join(shown.split())
    ] == []


def test_steering_is_only_text(suspect: Suspect, http: httpx.Client) -> None:
    lore = [{"name": text, "keys": [text], "text": text} for text in PAYLOADS]
    steering = {"memory": "\n".join(PAYLOADS), "note": "\n".join(PAYLOADS[:60]), "lore": lore}
    content = archive("Steer", [{"role": "writer", "text": t} for t in PAYLOADS], steering=steering)
    suspect.open(f"/thread/{brought_in(http, 'steer.json', content)}")
    steer = suspect.tab("Steer")
    expect(steer.locator("textarea").first).to_have_value(steering["memory"])
    expect(steer).to_contain_text("hit=1")  # what the model reads
    suspect.tab("Words")


def test_names_of_models_are_only_text(suspect: Suspect) -> None:
    """On the empty page, where they open stories, and in the sidebar's list."""
    suspect.open()
    suspect.page.click("#chat-settings-header-button")
    suspect.page.locator("#model").click()
    listed = suspect.page.locator("[role=option]")
    expect(listed.first).to_be_visible()
    assert set(PAYLOADS) - set(listed.all_text_contents()) == set()


def test_what_a_notice_quotes_is_only_text(suspect: Suspect) -> None:
    suspect.open()
    notices = suspect.page.locator(".ai-message [role=article]")
    for start in range(0, len(PAYLOADS), AT_ONCE):
        texts = PAYLOADS[start : start + AT_ONCE]
        suspect.page.evaluate(
            """texts => {
              for (const text of texts)
                window.postMessage({ storygen: { do: text } }, location.origin);
            }""",
            texts,
        )
        expect(notices).to_have_count(start + len(texts))


@pytest.mark.parametrize("kind", ["html", "docx", "epub"])
def test_drafts_are_only_text(
    suspect: Suspect, http: httpx.Client, kind: str, tmp_path: Path
) -> None:
    """A web page of payloads as they are, and books that hold them as text."""
    draft = tmp_path / f"draft.{kind}"
    if kind == "html":
        draft.write_text(f"<html><body><p>{' '.join(PAYLOADS)}</body></html>", encoding="utf-8")
    else:
        blocks = [{"t": "Para", "c": [{"t": "Str", "c": text}]} for text in PAYLOADS]
        book = {"pandoc-api-version": [1, 23], "meta": {}, "blocks": blocks}
        pypandoc.convert_text(json.dumps(book), kind, "json", outputfile=str(draft))
    story = brought_in(http, draft.name, draft.read_bytes())
    suspect.open(f"/thread/{story}")
    shown = suspect.page.locator(".ws-passage")
    expect(shown.first).to_be_attached()
    stored = http.get(f"/api/stories/{story}/manuscript").json()["passages"]
    expect(suspect.page.locator(f'[data-passage="{stored[-1]["id"]}"]').first).to_be_attached()
    assert "".join(shown.all_text_contents()) == "".join(part["text"] for part in stored)
