"""Routes for what comes in as a file and goes out as one: drafts, books, stories whole.

    POST /api/import?name=FOG.docx            the file as the body -> the new story
    GET  /api/stories/ID/export/FORMAT        txt, md, html, docx, epub or json
    GET  /api/export                          every story as .json and .md, in a zip archive

Conversions run beside the page, two at a time; what comes in is read by a process of its own.
Errors are {"error": "a sentence"}.
"""

import logging
import re
import unicodedata
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from storygen.chat.answering import NOT_KEPT, Refused, answering
from storygen.chat.guards import IMPORT_PATH
from storygen.chat.shares import Aside
from storygen.chat.state import Studio
from storygen.chat.views import story_view
from storygen.errors import DatabaseError, NoStoryError
from storygen.incoming import Bounds, Incoming, NotTaken
from storygen.story import archive, books, drafts, uploads
from storygen.story.store import StoryStore
from storygen.story.tree import Story, StoryTree, manuscript
from storygen.text import whole_characters

MAX_NAME = 255
READERS, READERS_EACH = 16, 2  # files that are taken in at a time, and of one user
MAX_HELD = 256_000_000  # bytes of them in memory
READ_SECONDS = 120.0
CONVERSIONS = 2

JSON = "application/json"
ZIP = "application/zip"

_UNSAFE = re.compile(  # in a name, or turning it around on the screen
    '[\x00-\x1f\x7f-\x9f<>:"/\\\\|?*\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+'
)
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)", re.IGNORECASE)  # on Windows

logger = logging.getLogger(__name__)


def routes(studio: Studio) -> list[Route]:
    """The routes, for the stories of a studio."""
    files = _Files(studio)
    return [
        Route(IMPORT_PATH, answering(files.take_in), methods=["POST"]),
        Route("/api/stories/{id}/export/{format}", answering(files.export), methods=["GET"]),
        Route("/api/export", answering(files.export_all), methods=["GET"]),
    ]


class _Files:
    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._reading: Counter[str] = Counter()
        self._incoming = Incoming()
        self._conversions = Aside(CONVERSIONS)

    @property
    def _store(self) -> StoryStore:
        return self._studio.store

    async def take_in(self, owner: str, request: Request) -> Any:
        """A file as a new story."""
        name = request.query_params.get("name", "")[:MAX_NAME]
        if self._reading[owner] >= READERS_EACH:
            raise Refused(429, f"{READERS_EACH} files of yours are being read: wait for them.")
        if self._reading.total() >= READERS:
            raise Refused(503, f"{READERS} files are being read just now: try again in a minute.")
        self._reading[owner] += 1
        try:
            limit = archive.MAX_FILE if uploads.is_whole(name) else drafts.MAX_FILE
            async with self._body(owner, request, limit) as data:
                whole = await self._conversions.run(owner, uploads.read, name, data)
        finally:
            self._reading[owner] -= 1
            self._reading = +self._reading
        story = await self._store.add_story(
            owner,
            title=whole.title,
            settings=whole.settings,
            passages=whole.passages,
            head_id=whole.head_id,
            marks=whole.marks,
        )
        return story_view(story)

    async def export(self, owner: str, request: Request) -> Response:
        """One story in one format."""
        story_id, form = request.path_params["id"], request.path_params["format"]
        kinds = books.FORMATS | {"json": JSON}
        if form not in kinds:
            raise Refused(404, f"{form[:20]!r} is no format of a story: choose {', '.join(kinds)}.")
        async with self._conversions.turn(owner) as run:  # a story in line is not in memory yet
            try:
                story, tree = await self._found(owner, story_id)
            except NoStoryError as error:
                raise Refused(404, str(error)) from error
            data = await run(_written, form, story, tree)
        kind = kinds[form]
        return Response(data, headers=_attachment(f"{file_name(story.title)}.{form}", kind))

    async def export_all(self, owner: str, request: Request) -> Response:
        """Every story, streamed: of a thousand stories one is in memory."""
        name = f"Stories {datetime.now(UTC):%Y-%m-%d}.zip"
        ids = list(await self._store.titles(owner))
        return StreamingResponse(self._zipped(owner, ids), headers=_attachment(name, ZIP))

    async def _zipped(self, owner: str, ids: Sequence[str]) -> AsyncIterator[bytes]:
        """Where one cannot be read the archive is cut off, which a browser says: one that is whole
        but for some stories would be believed."""
        sink = _Sink()
        taken: set[str] = set()
        try:
            with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as zipped:
                for story_id in ids:
                    with suppress(NoStoryError):  # deleted meanwhile
                        await self._add(zipped, owner, story_id, taken)
                    yield sink.taken()
        except DatabaseError as error:
            logger.warning("An archive of all stories was cut off: %s", error)
            raise
        yield sink.taken()

    async def _add(
        self, zipped: zipfile.ZipFile, owner: str, story_id: str, taken: set[str]
    ) -> None:
        async with self._conversions.turn(owner) as run:
            story, tree = await self._found(owner, story_id)
            await run(_pack, zipped, _unique(file_name(story.title), taken), story, tree)

    async def _found(self, owner: str, story_id: str) -> tuple[Story, StoryTree]:
        story = await self._store.story(owner, story_id)
        return story, await self._store.tree(owner, story_id)

    @asynccontextmanager
    async def _body(self, owner: str, request: Request, limit: int) -> AsyncIterator[bytearray]:
        """The body, of which no more than limit bytes are ever read."""
        bounds = Bounds(limit, MAX_HELD, MAX_HELD, READ_SECONDS)
        try:
            async with self._incoming.body(request, owner, bounds) as body:
                yield body
        except NotTaken as refusal:
            told = {
                413: f"This file is too large: at most {limit:,} bytes can be taken.",
                408: "The file came too slowly, so it was not read: try again.",
            }
            many = "Many large files are being read just now: try again in a minute."
            raise Refused(refusal.status, told.get(refusal.status, many)) from None
        except ClientDisconnect:
            raise Refused(400, "The file did not come whole, so it was not read.") from None


def file_name(title: str) -> str:
    """A title as the name of a file that every system can hold.

    >>> file_name("../Fog: a story?")
    'Fog a story'
    """
    name = " ".join(_UNSAFE.sub(" ", whole_characters(title)).split())
    name = name.encode()[:120].decode("utf-8", "ignore").strip(" .")
    name = name or books.UNTITLED
    return f"Story {name}" if _DEVICE.match(name) else name


def _written(form: str, story: Story, tree: StoryTree) -> bytes:
    return archive.dump(story, tree) if form == "json" else _book(form, story, tree)


def _book(form: str, story: Story, tree: StoryTree) -> bytes:
    text = manuscript(tree.branch())
    return books.book(form, text, title=story.title, story_id=story.id, at=story.updated_at)


def _pack(zipped: zipfile.ZipFile, name: str, story: Story, tree: StoryTree) -> None:
    moment = story.updated_at.timetuple()[:6]
    for form, data in (("json", archive.dump(story, tree)), ("md", _book("md", story, tree))):
        info = zipfile.ZipInfo(f"{name}.{form}", moment)
        info.compress_type = zipfile.ZIP_DEFLATED
        zipped.writestr(info, data)


class _Sink:
    """A file that can only be written on, and hands out what was written."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing: taken() does it."""

    def close(self) -> None:
        """Nothing is open."""

    def taken(self) -> bytes:
        """What was written since the last time."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _unique(name: str, taken: set[str]) -> str:
    """The name, with a number where another story has it already, in whatever case."""
    unique, number = name, 1
    while unique.casefold() in taken:
        number += 1
        unique = f"{name} ({number})"
    taken.add(unique.casefold())
    return unique


def _attachment(name: str, kind: str) -> dict[str, str]:
    """Headers of a file to be saved, never shown or run. Names as RFC 6266 has them."""
    stem, _, form = name.rpartition(".")
    ascii_only = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    plain = (
        f"{file_name(ascii_only)}.{form}"  # anew: of a wide quotation mark it has made a plain one
    )
    encoded = quote(name, safe="")
    return {
        "content-type": kind,
        "content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}",
        "x-content-type-options": "nosniff",
    } | NOT_KEPT
