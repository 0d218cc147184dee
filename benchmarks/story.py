"""Does a very long story open, go on and undo as fast as a new one?

    python -m benchmarks.story [--rounds 10]

A story of 200,000 words in 2,000 passages with 300 branches, and one of two passages, on the real
page with the first shipped model, in turns. Prints a row for each measure: medians in milliseconds
of both stories. Needs what the tests need (requirements-dev.txt) and Debian's chromium.
"""

import argparse
import asyncio
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from playwright.sync_api import Page, sync_playwright

from storygen.chat.doors import WRITER
from storygen.story.outline import runs
from storygen.story.store import StoryStore
from storygen.story.tree import Passage
from tests.browser.conftest import QUIET
from tests.protocol.conftest import REAL, Client, Server, connecting, serve

TRUNK, BRANCHES, TWIGS = 1400, 300, 2  # passages on the active branch; branches, passages of each
WORDS = 100  # of each passage
LAST = 3  # passages added one by one at the end, for Undo to take away again
PROSE = "the lamp went out and she ran home through rain while Ann kept watch over an old house"


def told(trunk: int, branches: int) -> list[Passage]:
    """A story of made-up passages, the active branch first."""
    choose = random.Random(1)
    passages: list[Passage] = []

    def add(parent_id: str | None) -> str:
        words = " ".join(choose.choices(PROSE.split(), k=WORDS))
        role = "model" if len(passages) % 2 else "writer"
        new = Passage(str(uuid4()), "", parent_id, role, f" {words}.", datetime.now(UTC))
        passages.append(new)
        return new.id

    parent_id = None
    for _ in range(trunk):
        parent_id = add(parent_id)
    for _ in range(branches):
        parent_id = choose.choice(passages[:trunk]).id
        for _ in range(TWIGS):
            parent_id = add(parent_id)
    return passages


async def prepare(server: Server) -> dict[str, str]:
    """Both stories, as if they had been written; their ids."""
    store = await StoryStore.open(f"sqlite+aiosqlite:///{server.data / 'stories.db'}")
    ids = {}
    for name, trunk, branches in (("long", TRUNK, BRANCHES), ("short", 2, 0)):
        passages = told(trunk, branches)
        story = await store.add_story(
            WRITER, title=name, settings={}, passages=passages, head_id=passages[trunk - 1].id
        )
        for _ in range(LAST):
            await store.add_passage(WRITER, story.id, "writer", " And so it went on.")
        tree = await store.tree(WRITER, story.id)
        words = sum(len(passage.text.split()) for passage in tree)
        print(f"{name}: {words:,} words, {len(list(tree)):,} passages, {len(runs(tree))} stretches")
        ids[name] = story.id
    await store.close()
    return ids


async def turns(server: Server, ids: dict[str, str], rounds: int) -> None:
    """Continue and Undo, from the key to the first word or to the buttons, over the socket."""
    first_word: dict[str, list[float]] = {name: [] for name in ids}
    undo: dict[str, list[float]] = {name: [] for name in ids}
    async with connecting(server, server.cookie) as connect:
        clients: dict[str, Client] = {n: await connect(story_id=id) for n, id in ids.items()}
        for _ in range(rounds + 1):  # the first loads the model and reads the prompt
            for name, client in clients.items():
                pressed = await ask(client, "continue")
                begun = next(at for at, event, _ in client.events if event == "stream_start")
                first_word[name].append(begun - pressed)
                pressed = await ask(client, "undo")
                undo[name].append(time.monotonic() - pressed)
    row("Continue, to the first words", {n: times[1:] for n, times in first_word.items()})
    row("Undo, to the buttons", {n: times[1:] for n, times in undo.items()})


async def ask(client: Client, verb: str) -> float:
    """Have something done as the workspace asks for it; when it was asked."""
    client.events.clear()
    asked = time.monotonic()
    await client.socket.emit("window_message", {"storygen": {"do": verb}})
    await client.finished()
    return asked


def browser(server: Server, ids: dict[str, str], rounds: int) -> None:
    """Opening a story in chromium: the page anew, and from the list on a page that is there."""
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))))
        chromium = playwright.chromium.launch(executable_path=path, args=QUIET)
        page = chromium.new_page()
        page.goto(server.url)
        page.wait_for_selector("#chat-input")
        cold = timed(ids, rounds, lambda story_id: load(page, f"{server.url}/thread/{story_id}"))
        row("Open by its address, to the buttons", cold)
        listed = timed(ids, rounds, lambda story_id: click(page, server.url, story_id))
        row("Open from the list, to the buttons", listed)
        chromium.close()


def timed(ids: dict[str, str], rounds: int, do: Callable[[str], float]) -> dict[str, list[float]]:
    """Seconds of something with each story in turn."""
    times: dict[str, list[float]] = {name: [] for name in ids}
    for _ in range(rounds + 1):
        for name, story_id in ids.items():
            times[name].append(do(story_id))
    return {name: found[1:] for name, found in times.items()}


def load(page: Page, url: str) -> float:
    """Seconds to load a story's page anew."""
    began = time.monotonic()
    page.goto(url)
    page.wait_for_selector('button[id^="undo-"]')
    return time.monotonic() - began


def click(page: Page, url: str, story_id: str) -> float:
    """Seconds to open a story from the list of a new page."""
    page.goto(url)
    link = page.locator(f'a[href$="/thread/{story_id}"]').first
    link.wait_for()
    began = time.monotonic()
    link.click()
    page.wait_for_selector('button[id^="undo-"]')
    return time.monotonic() - began


def row(what: str, times: dict[str, list[float]]) -> None:
    """A line with the median of each story."""
    medians = {name: 1000 * statistics.median(found) for name, found in times.items()}
    print(f"{what:38}" + "".join(f"{name:>8} {ms:7.0f} ms" for name, ms in medians.items()))


def main() -> None:
    """Print a row for each measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as data:
        server = serve(Path(data), REAL)
        try:
            ids = asyncio.run(prepare(server))
            asyncio.run(turns(server, ids, args.rounds))
            browser(server, ids, args.rounds)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
