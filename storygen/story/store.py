"""Where stories are kept. What a method returns has reached the disk.

Passages are only ever added: an edit adds copies of what follows it. Undo and redo move the head
along the line of places it has been.
Every statement carries the owner, so what belongs to another writer is as if it were not there.
One running program owns a store: opening it settles what a crash left unfinished.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from storygen.errors import StoryError
from storygen.story.database import Database
from storygen.story.schema import head_moves, stories
from storygen.story.schema import marks as marks_table
from storygen.story.schema import passages as passages_table
from storygen.story.tree import (
    PICKED,
    UNMARKED,
    Mark,
    Passage,
    Role,
    State,
    Story,
    StoryTree,
    no_passage,
)

HEAD: Final = "head"  # as a parent: wherever the story's head is
INTERRUPTED: Final = "interrupted"  # finish_reason of a passage that a crash cut off
COPY: Final = "copy"  # state of a row whose passage is as its source in all but its place

MAX_TEXT = 2_000_000
MAX_TITLE = 500
MAX_SEARCH = 500
MAX_NAME = 200
MAX_PAGE = 1000
REMEMBERED = 16  # stories whose complete passages are kept at hand


class StoryStore:
    """All stories of all writers. Every method but open and close acts for one owner.

    An id that is unknown, deleted or another owner's raises StoryError, always in the same words;
    so does a database that cannot be used. Methods may be called by any number of tasks at once.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._read: OrderedDict[tuple[str, str], list[Passage]] = OrderedDict()

    @classmethod
    async def open(cls, url: str) -> "StoryStore":
        """The store at a SQLAlchemy URL such as sqlite+aiosqlite:////home/me/stories.db.

        Makes what is missing, checks what is there and brings it up to date. Passages that were
        being written when the last program ended are complete now, with the reason INTERRUPTED.
        """
        store = cls(await Database.open(url))
        async with store._database.write() as connection:
            growing = passages_table.c.state == "streaming"
            rows = await connection.execute(sa.select(passages_table).where(growing))
            for row in rows.mappings().all():
                reason = PICKED if PICKED in (row["params"] or {}) else INTERRUPTED
                await connection.execute(
                    passages_table.update()
                    .where(growing, passages_table.c.id == row["id"])
                    .values(state="complete", finish_reason=reason)
                )
        return store

    async def close(self) -> None:
        """Let go of the database. Safe to call twice."""
        await self._database.close()

    async def create_story(
        self,
        owner: str,
        *,
        story_id: str | None = None,
        title: str = "",
        settings: dict[str, Any] | None = None,
    ) -> Story:
        """A new story without passages."""
        new_id, now = _new_id(story_id), datetime.now(UTC)
        row = {
            "id": new_id,
            "owner": owner,
            "title": _within(title, MAX_TITLE, "title"),
            "settings": settings or {},
            "passage_count": 0,
            "head_number": 0,
            "created_at": now,
            "updated_at": now,
        }
        async with self._database.write() as connection:
            await _insert(connection, stories, row)
            return await _story(connection, owner, new_id)

    async def story(self, owner: str, story_id: str) -> Story:
        """The story of this id."""
        async with self._database.read() as connection:
            return await _story(connection, owner, story_id)

    async def stories(
        self,
        owner: str,
        *,
        search: str = "",
        limit: int = 50,
        before: tuple[datetime, str] | None = None,
        archived: bool = False,
        deleted: bool = False,
    ) -> list[Story]:
        """The owner's stories, the last changed first: those at hand, or those that were archived
        or deleted.

        search keeps those with this text in the title or in any passage, on any branch; case
        counts only beyond ASCII. before, the (updated_at, id) of the last story already shown,
        gives the next page.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise StoryError(f"A page of {limit} stories cannot be shown: 1 to {MAX_PAGE} can.")
        query = _story_query(owner, deleted=deleted)
        query = query.order_by(stories.c.updated_at.desc(), stories.c.id.desc())
        if not deleted:
            query = query.where((stories.c.archived_at.is_not(None)) == archived)
        if needle := _within(search, MAX_SEARCH, "search").strip():
            query = query.where(_mentions(owner, needle))
        if before is not None:
            query = query.where(sa.tuple_(stories.c.updated_at, stories.c.id) < before)
        async with self._database.read() as connection:
            rows = await connection.execute(query.limit(limit))
            return [_as_story(row) for row in rows.mappings()]

    async def rename(self, owner: str, story_id: str, title: str) -> Story:
        """Give a story another title."""
        return await self._changed(owner, story_id, title=_within(title, MAX_TITLE, "title"))

    async def update_settings(self, owner: str, story_id: str, settings: dict[str, Any]) -> Story:
        """Change some of a story's settings and leave the others."""
        async with self._database.write() as connection:
            held = await _hold(connection, owner, story_id)
            await _hold(connection, owner, story_id, settings=held["settings"] | settings)
            return await _story(connection, owner, story_id)

    async def archive(self, owner: str, story_id: str, *, archived: bool) -> Story:
        """Put a story away from the list, or back to its place there."""
        moment = datetime.now(UTC) if archived else None
        return await self._changed(
            owner, story_id, archived_at=moment, updated_at=stories.c.updated_at
        )

    async def delete_story(self, owner: str, story_id: str) -> None:
        """Hide a story until restore_story brings it back."""
        async with self._database.write() as connection:
            await _hold(
                connection,
                owner,
                story_id,
                deleted_at=datetime.now(UTC),
                updated_at=stories.c.updated_at,  # so that it comes back to its place
            )

    async def restore_story(self, owner: str, story_id: str) -> Story:
        """Show a deleted story again, just as it was."""
        async with self._database.write() as connection:
            await connection.execute(
                stories.update()
                .where(stories.c.id == story_id, stories.c.owner == owner)
                .values(deleted_at=None)
            )
            return await _story(connection, owner, story_id)

    async def add_story(
        self,
        owner: str,
        *,
        title: str,
        settings: dict[str, Any],
        passages: Sequence[Passage],
        head_id: str | None,
        marks: Mapping[str, Mark] | None = None,
    ) -> Story:
        """A new story with all these passages, parents before their children, at this head.

        Every id becomes a new one. One that names no earlier passage raises StoryError.
        """
        new_id, now = str(uuid4()), datetime.now(UTC)
        ids: dict[str, str] = {}
        known: dict[str, Passage] = {}
        rows = []
        for number, passage in enumerate(passages, 1):
            if passage.id in ids:
                raise StoryError(
                    f"Two passages have the id {passage.id[:40]!r}: give each its own."
                )
            source = known.get(passage.source_id) if passage.source_id else None
            row = _row_of(passage, owner, new_id, number, ids, str(uuid4()), source)
            ids[passage.id], known[passage.id] = row["id"], passage
            rows.append(row)
        for named in [*(marks or {}), *([] if head_id is None else [head_id])]:
            if named not in ids:
                raise no_passage(named)
        story = {
            "id": new_id,
            "owner": owner,
            "title": _within(title, MAX_TITLE, "title"),
            "settings": settings,
            "passage_count": len(rows),
            "head_number": 0 if head_id is None else 1,
            "created_at": now,
            "updated_at": now,
        }
        said = [
            {"story_id": new_id, "owner": owner, "passage_id": ids[passage_id], **asdict(mark)}
            for passage_id, mark in (marks or {}).items()
        ]
        async with self._database.write() as connection:
            held = await _insert(connection, stories, story)
            for table, added in ((passages_table, rows), (marks_table, said)):
                if added:
                    await connection.execute(table.insert(), added)
            if head_id is not None:
                await _record_move(connection, held, ids[head_id])
            return await _story(connection, owner, new_id)

    async def tree(self, owner: str, story_id: str) -> StoryTree:
        """All passages of a story, and its head.

        Complete passages never change, so of a story that was asked for lately only those since
        are read.
        """
        known = self._read.pop((owner, story_id), [])
        mine = (passages_table.c.story_id == story_id, passages_table.c.owner == owner)
        since = (
            sa.select(passages_table)
            .where(*mine, passages_table.c.number > len(known))
            .order_by(passages_table.c.number)
        )
        said = sa.select(marks_table).where(
            marks_table.c.story_id == story_id, marks_table.c.owner == owner
        )
        async with self._database.read() as connection:
            story = await _story(connection, owner, story_id)
            rows = (await connection.execute(since)).mappings().all()
            marked = (await connection.execute(said)).mappings().all()
        read = list(known)
        by_id = {passage.id: passage for passage in read}
        for row in rows:
            read.append(_as_passage(row, by_id))
            by_id[row["id"]] = read[-1]
        growing = next((n for n, p in enumerate(read) if p.state == "streaming"), len(read))
        self._read[owner, story_id] = read[:growing]
        while len(self._read) > REMEMBERED:
            self._read.popitem(last=False)
        return StoryTree(read, story.head_id, {row["passage_id"]: _as_mark(row) for row in marked})

    async def add_passage(
        self,
        owner: str,
        story_id: str,
        role: Role,
        text: str,
        *,
        parent_id: str | None = HEAD,
        passage_id: str | None = None,
        model: str | None = None,
        params: dict[str, Any] | None = None,
        state: State = "complete",
        move_head: bool = True,
    ) -> Passage:
        """Add a passage after parent_id, or at the beginning for None, and move the head to it.

        The text is stored as it is; see schema.WholeText for the two characters that cannot be.
        """
        row = {
            "id": _new_id(passage_id),
            "story_id": story_id,
            "owner": owner,
            "role": role,
            "text": _within(text, MAX_TEXT, "passage"),
            "state": state,
            "model": model,
            "params": params,
            "created_at": datetime.now(UTC),
        }
        async with self._database.write() as connection:
            held = await _hold(
                connection,
                owner,
                story_id,
                passage_count=stories.c.passage_count + 1,
                head_number=stories.c.head_number + move_head,
            )
            row["number"] = held["passage_count"]
            row["parent_id"] = await _parent(connection, held, parent_id, moved=move_head)
            added = await _insert(connection, passages_table, row)
            if move_head:
                await _record_move(connection, held, added["id"])
            return _as_passage(added)

    async def rewrite(self, owner: str, story_id: str, texts: Mapping[str, str]) -> Story:
        """Give passages of the active branch other texts, by their ids.

        From the first that changes on, the branch is copied, with what the writer said of it, and
        the head moved to the copy's end, so that undo brings the old words back; what differs in
        nothing changes nothing.
        """
        tree = await self.tree(owner, story_id)
        branch = tree.branch()
        for passage_id in texts.keys() - {passage.id for passage in branch}:
            raise no_passage(passage_id)
        changed = [n for n, p in enumerate(branch) if texts.get(p.id, p.text) != p.text]
        if not changed:
            return await self.story(owner, story_id)
        kept, copied = branch[: changed[0]], branch[changed[0] :]
        if copied[-1].state == "streaming":
            raise StoryError("The last passage is still being written: stop it first.")
        ids = {passage.id: str(uuid4()) for passage in copied}
        ids |= {passage.id: passage.id for passage in kept}
        async with self._database.write() as connection:
            held = await _hold(
                connection,
                owner,
                story_id,
                passage_count=stories.c.passage_count + len(copied),
                head_number=stories.c.head_number + 1,
            )
            first = held["passage_count"] - len(copied) + 1
            ids |= {passage.id: passage.id for passage in tree if passage.id not in ids}
            rows, said = [], []
            for number, passage in enumerate(copied, first):
                text = _within(texts.get(passage.id, passage.text), MAX_TEXT, "passage")
                copy = replace(passage, text=text, source_id=passage.id)
                rows.append(_row_of(copy, owner, story_id, number, ids, ids[passage.id], passage))
                rows[-1]["source_id"] = passage.id
                mark = replace(tree.mark(passage.id), deleted=False)
                if mark != UNMARKED:
                    key = {"story_id": story_id, "owner": owner, "passage_id": ids[passage.id]}
                    said.append(key | asdict(mark))
            await connection.execute(passages_table.insert(), rows)
            if said:
                await connection.execute(marks_table.insert(), said)
            await _record_move(connection, held, ids[branch[-1].id])
            return await _story(connection, owner, story_id)

    async def mark(self, owner: str, story_id: str, passage_id: str, **changes: Any) -> Mark:
        """Say something of a passage: any field of Mark."""
        async with self._database.write() as connection:
            await _hold(connection, owner, story_id, updated_at=stories.c.updated_at)
            await _require_passage(connection, owner, story_id, passage_id)
            key = {"story_id": story_id, "owner": owner, "passage_id": passage_id}
            mine = [marks_table.c[name] == value for name, value in key.items()]
            found = await connection.execute(sa.select(marks_table).where(*mine))
            row = found.mappings().one_or_none()
            mark = replace(_as_mark(row) if row else Mark(), **changes)
            _within(mark.name, MAX_NAME, "name")
            await connection.execute(marks_table.delete().where(*mine))
            await connection.execute(marks_table.insert().values(key | asdict(mark)))
            return mark

    async def grow_passage(
        self,
        owner: str,
        passage_id: str,
        text: str,
        *,
        state: State = "streaming",
        finish_reason: str | None = None,
    ) -> Passage:
        """Replace the text of a passage that is being streamed; state `complete` ends that.

        A passage goes on growing in a story that was deleted meanwhile: restored, it is whole.
        """
        mine = (passages_table.c.id == passage_id, passages_table.c.owner == owner)
        values = {"text": _within(text, MAX_TEXT, "passage"), "state": state}
        async with self._database.write() as connection:
            grown = await connection.execute(
                passages_table.update()
                .where(*mine, passages_table.c.state == "streaming")
                .values(finish_reason=finish_reason, **values)
                .returning(passages_table)
            )
            if row := grown.mappings().one_or_none():
                return _as_passage(row)
            if (
                await connection.execute(sa.select(passages_table.c.id).where(*mine))
            ).first() is None:
                raise no_passage(passage_id)
            raise StoryError(
                f"Passage {passage_id} is complete and stays as it is. Add another version instead."
            )

    async def move_head(self, owner: str, story_id: str, passage_id: str | None) -> Story:
        """Stand at another passage, or before the first one. Where the head is already, no move."""
        async with self._database.write() as connection:
            if passage_id is not None:
                await _require_passage(connection, owner, story_id, passage_id)
            story = await _story(connection, owner, story_id)
            if passage_id == story.head_id:
                return story
            held = await _hold(connection, owner, story_id, head_number=stories.c.head_number + 1)
            await _record_move(connection, held, passage_id)
            return await _story(connection, owner, story_id)

    async def undo(self, owner: str, story_id: str) -> Story:
        """Put the head back to where it was before its last move."""
        async with self._database.write() as connection:
            back = stories.c.head_number - 1
            held = await _hold(connection, owner, story_id, head_number=back)
            if held["head_number"] < 0:
                raise StoryError("There is nothing to undo: this is where the story began.")
            return await _story(connection, owner, story_id)

    async def redo(self, owner: str, story_id: str) -> Story:
        """Make the last undone move of the head again."""
        async with self._database.write() as connection:
            forth = stories.c.head_number + 1
            held = await _hold(connection, owner, story_id, head_number=forth)
            if held["head_number"] > await _last_move(connection, owner, story_id):
                raise StoryError(
                    "There is nothing to redo: nothing was undone since the last move."
                )
            return await _story(connection, owner, story_id)

    async def can_redo(self, owner: str, story_id: str) -> bool:
        """Whether redo would find a move that was undone."""
        async with self._database.read() as connection:
            await _story(connection, owner, story_id)
            mine = (stories.c.id == story_id, stories.c.owner == owner)
            query = sa.select(stories.c.head_number).where(*mine)
            here = (await connection.execute(query)).scalar_one()
            return here < await _last_move(connection, owner, story_id)

    async def _changed(self, owner: str, story_id: str, **values: object) -> Story:
        async with self._database.write() as connection:
            await _hold(connection, owner, story_id, **values)
            return await _story(connection, owner, story_id)


async def _hold(
    connection: AsyncConnection, owner: str, story_id: str, **values: object
) -> Mapping[str, Any]:
    """Change a story's row, if only its time, and return it.

    As the first statement of a transaction it also keeps every other writer of the story waiting.
    """
    changed = await connection.execute(
        stories.update()
        .where(stories.c.id == story_id, stories.c.owner == owner, stories.c.deleted_at.is_(None))
        .values({"updated_at": datetime.now(UTC)} | values)
        .returning(stories)
    )
    row = changed.mappings().one_or_none()
    if row is None:
        raise _no_story(story_id)
    return dict(row)


async def _story(connection: AsyncConnection, owner: str, story_id: str) -> Story:
    found = await connection.execute(_story_query(owner).where(stories.c.id == story_id))
    row = found.mappings().one_or_none()
    if row is None:
        raise _no_story(story_id)
    return _as_story(row)


def _story_query(owner: str, *, deleted: bool = False) -> sa.Select[Any]:
    """An owner's stories that are not deleted, or those that are, each with its head."""
    at_head = sa.and_(
        head_moves.c.story_id == stories.c.id,
        head_moves.c.owner == stories.c.owner,
        head_moves.c.number == stories.c.head_number,
    )
    return (
        sa.select(stories, head_moves.c.passage_id.label("head_id"))
        .select_from(stories.outerjoin(head_moves, at_head))
        .where(stories.c.owner == owner, (stories.c.deleted_at.is_not(None)) == deleted)
    )


def _mentions(owner: str, needle: str) -> sa.ColumnElement[bool]:
    """Whether a story has this text in its title or in a passage."""
    in_passage = sa.exists().where(
        passages_table.c.story_id == stories.c.id,
        passages_table.c.owner == owner,
        passages_table.c.text.icontains(needle, autoescape=True),
    )
    return sa.or_(stories.c.title.icontains(needle, autoescape=True), in_passage)


async def _parent(
    connection: AsyncConnection, held: Mapping[str, Any], parent_id: str | None, *, moved: bool
) -> str | None:
    """The passage after which one is added to a held story, whose head has perhaps just moved."""
    story_id, owner = held["id"], held["owner"]
    if parent_id == HEAD:
        query = sa.select(head_moves.c.passage_id).where(
            head_moves.c.story_id == story_id,
            head_moves.c.owner == owner,
            head_moves.c.number == held["head_number"] - moved,
        )
        return (await connection.execute(query)).scalar_one_or_none()
    if parent_id is not None:
        await _require_passage(connection, owner, story_id, parent_id)
    return parent_id


async def _require_passage(
    connection: AsyncConnection, owner: str, story_id: str, passage_id: str
) -> None:
    query = sa.select(passages_table.c.id).where(
        passages_table.c.id == passage_id,
        passages_table.c.story_id == story_id,
        passages_table.c.owner == owner,
    )
    if (await connection.execute(query)).first() is None:
        raise no_passage(passage_id)


async def _record_move(
    connection: AsyncConnection, held: Mapping[str, Any], passage_id: str | None
) -> None:
    """Write down where a held story's head is now; what was undone can no longer be redone."""
    move = {
        "story_id": held["id"],
        "owner": held["owner"],
        "number": held["head_number"],
        "passage_id": passage_id,
    }
    await connection.execute(
        head_moves.delete().where(
            head_moves.c.story_id == move["story_id"],
            head_moves.c.owner == move["owner"],
            head_moves.c.number >= move["number"],
        )
    )
    await connection.execute(head_moves.insert().values(move))


async def _last_move(connection: AsyncConnection, owner: str, story_id: str) -> int:
    query = sa.select(sa.func.coalesce(sa.func.max(head_moves.c.number), 0)).where(
        head_moves.c.story_id == story_id, head_moves.c.owner == owner
    )
    return (await connection.execute(query)).scalar_one()


async def _insert(
    connection: AsyncConnection, table: sa.Table, row: dict[str, Any]
) -> Mapping[str, Any]:
    """Insert a row under an id that nobody has, whoever's it may be; the row as it is stored."""
    try:
        inserted = await connection.execute(table.insert().values(row).returning(table))
    except sa.exc.IntegrityError as error:
        raise StoryError(f"The id {row['id']} is taken. Leave it out to get a new one.") from error
    return inserted.mappings().one()


def _new_id(given: str | None) -> str:
    """The id given, if it is a UUID as str(uuid4()) writes it, or a new one."""
    if given is None:
        return str(uuid4())
    try:
        is_uuid = str(UUID(given)) == given
    except ValueError:
        is_uuid = False
    if not is_uuid:
        raise StoryError(f"{given[:40]!r} is not a UUID. Leave it out to get a new one.")
    return given


def _within(text: str, limit: int, noun: str) -> str:
    if len(text) > limit:
        raise StoryError(
            f"This {noun} has {len(text):,} characters: at most {limit:,} can be taken."
        )
    return text


def _no_story(story_id: str) -> StoryError:
    return StoryError(
        f"There is no story {story_id[:40]!r}. Choose one from the history, or begin a new one."
    )


def _row_of(
    passage: Passage,
    owner: str,
    story_id: str,
    number: int,
    ids: Mapping[str, str],
    new_id: str,
    source: Passage | None,
) -> dict[str, Any]:
    """A passage as a row of another story, or of another branch, where its parent and its source
    have the ids that `ids` has for them. What is as in its source is not stored again."""
    for named in (passage.parent_id, passage.source_id):
        if named is not None and named not in ids:
            raise no_passage(named)
    own = {
        "text": _within(passage.text, MAX_TEXT, "passage"),
        "state": "complete",
        "model": passage.model,
        "params": passage.params,
        "finish_reason": passage.finish_reason,
    }
    if source is not None and all(getattr(source, name) == own[name] for name in own):
        own = {"text": "", "state": COPY, "model": None, "params": None, "finish_reason": None}
    return own | {
        "id": new_id,
        "story_id": story_id,
        "owner": owner,
        "number": number,
        "parent_id": passage.parent_id and ids[passage.parent_id],
        "source_id": passage.source_id and ids[passage.source_id],
        "role": passage.role,
        "created_at": passage.created_at,
    }


def _as_mark(row: Mapping[Any, Any]) -> Mark:
    return Mark(row["name"], row["favourite"], row["rating"], row["deleted"])


def _as_story(row: Mapping[Any, Any]) -> Story:
    names = ("id", "owner", "title", "created_at", "updated_at", "head_id", "settings")
    values = {name: row[name] for name in (*names, "passage_count")}
    return Story(**values, archived=row["archived_at"] is not None)


def _as_passage(row: Mapping[Any, Any], known: Mapping[str, Passage] | None = None) -> Passage:
    """The passage of a row; what a copy does not say is that of its source, which is known."""
    values = {name: value for name, value in row.items() if name not in ("owner", "number")}
    if row["state"] != COPY:
        return Passage(**values)
    source = (known or {})[row["source_id"]]
    places = ("id", "story_id", "parent_id", "source_id", "role", "created_at")
    return replace(source, **{name: values[name] for name in places})
