"""The statements of which the store's transactions are made.

Each carries the owner, so that what belongs to another writer is as if it were not there.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from storygen.errors import NoStoryError, StoryError
from storygen.story.rows import as_story
from storygen.story.schema import WholeText, head_moves, marks, passages, stories
from storygen.story.tree import Mark, Story, no_passage

HEAD: Final = "head"  # as a parent: wherever the story's head is
UNFINISHED: Final = -1  # head_number of a story that is not stored whole, or no more
PAGE: Final = 250  # rows that are read at a time
AT_ONCE: Final = 20  # rows that are parsed before others have their turn


async def hold(
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


async def story_of(connection: AsyncConnection, owner: str, story_id: str) -> Story:
    """A story that is not deleted, with its head."""
    found = await connection.execute(story_query(owner).where(stories.c.id == story_id))
    row = found.mappings().one_or_none()
    if row is None:
        raise _no_story(story_id)
    return as_story(row)


def story_query(owner: str, *, deleted: bool = False) -> sa.Select[Any]:
    """An owner's stories that are not deleted, or those that are, each with its head."""
    at_head = sa.and_(
        head_moves.c.story_id == stories.c.id,
        head_moves.c.owner == stories.c.owner,
        head_moves.c.number == stories.c.head_number,
    )
    return (
        sa.select(stories, head_moves.c.passage_id.label("head_id"))
        .select_from(stories.outerjoin(head_moves, at_head))
        .where(
            stories.c.owner == owner,
            (stories.c.deleted_at.is_not(None)) == deleted,
            stories.c.head_number != UNFINISHED,
        )
    )


async def gently(rows: Iterable[Mapping[Any, Any]]) -> AsyncIterator[Mapping[Any, Any]]:
    """The rows, and now and then everyone else's turn: the JSON in a row is parsed as it is taken,
    and a story's settings can be 200,000 characters of it."""
    for number, row in enumerate(rows, 1):
        yield row
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)


def mentions(owner: str, needle: str) -> sa.ColumnElement[bool]:
    """Whether a story has this text in its title or in a passage."""
    in_passage = sa.exists().where(
        passages.c.story_id == stories.c.id,
        passages.c.owner == owner,
        _Contains(passages.c.text, sa.literal(needle, WholeText)),
    )
    return sa.or_(_Contains(stories.c.title, sa.literal(needle, WholeText)), in_passage)


class _Contains(FunctionElement[bool]):
    """Whether a text contains another, in either case. LIKE takes as long as both are, multiplied:
    in 2 MB, a second for 500 characters that almost stand everywhere."""

    type = sa.Boolean()
    inherit_cache = True


@compiles(_Contains)
def _in_sqlite(contains: _Contains, compiler: SQLCompiler, **more: Any) -> str:
    text, needle = (compiler.process(clause, **more) for clause in contains.clauses)
    return f"instr(lower({text}), lower({needle})) > 0"


@compiles(_Contains, "postgresql")
def _in_postgresql(contains: _Contains, compiler: SQLCompiler, **more: Any) -> str:
    """As a regular expression, literal after ***=, for which no text is read twice: strpos reads
    one again for each character of some needles."""
    text, needle = (compiler.process(clause, **more) for clause in contains.clauses)
    return f"lower({text}) ~ ('***=' || lower({needle}))"


async def parent_of(
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
        await require_passage(connection, owner, story_id, parent_id)
    return parent_id


async def require_passage(
    connection: AsyncConnection, owner: str, story_id: str, passage_id: str
) -> None:
    """Raise StoryError where a story has no such passage."""
    query = sa.select(passages.c.id).where(
        passages.c.id == passage_id,
        passages.c.story_id == story_id,
        passages.c.owner == owner,
    )
    if (await connection.execute(query)).first() is None:
        raise no_passage(passage_id)


async def record_move(
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


async def insert_many(
    connection: AsyncConnection, rows: Sequence[Mapping[str, Any]], said: Mapping[str, Mark]
) -> None:
    """Insert passages, each after its parent, with what is said of those among them."""
    await connection.execute(passages.insert(), rows)
    told = [
        {"story_id": row["story_id"], "owner": row["owner"], "passage_id": row["id"]}
        | asdict(said[row["id"]])
        for row in rows
        if row["id"] in said
    ]
    if told:
        await connection.execute(marks.insert(), told)


async def last_number(connection: AsyncConnection, held: Mapping[str, Any]) -> int:
    """The number of the last passage of a held story, whether it is seen or not; 0 for none."""
    query = (
        sa.select(passages.c.number)
        .where(passages.c.story_id == held["id"], passages.c.owner == held["owner"])
        .order_by(passages.c.number.desc())
        .limit(1)
    )
    return (await connection.execute(query)).scalar_one_or_none() or 0


def passages_of(
    connection: AsyncConnection, owner: str, story_id: str, *, after: int
) -> AsyncIterator[Mapping[Any, Any]]:
    """The passages of a story beyond a number, in their order."""
    of_story = passages.c.story_id == story_id, passages.c.owner == owner
    return _in_pages(connection, sa.select(passages).where(*of_story), passages.c.number, after)


def marks_of(
    connection: AsyncConnection, owner: str, story_id: str
) -> AsyncIterator[Mapping[Any, Any]]:
    """What is said of the passages of a story."""
    of_story = marks.c.story_id == story_id, marks.c.owner == owner
    return _in_pages(connection, sa.select(marks).where(*of_story), marks.c.passage_id, "")


async def _in_pages(
    connection: AsyncConnection, query: sa.Select[Any], key: sa.Column[Any], after: object
) -> AsyncIterator[Mapping[Any, Any]]:
    """The rows beyond a key, a page at a time: of a long story, all of them in one piece would hold
    up everyone's words for seconds."""
    query = query.order_by(key).limit(PAGE)
    while True:
        found = await connection.execute(query.where(key > after))
        count = 0
        async for row in gently(found.mappings()):
            yield row
            count, after = count + 1, row[key.name]
        if count < PAGE:
            return


async def last_move(connection: AsyncConnection, owner: str, story_id: str) -> int:
    """The number of the last move that redo could come to."""
    query = sa.select(sa.func.coalesce(sa.func.max(head_moves.c.number), 0)).where(
        head_moves.c.story_id == story_id, head_moves.c.owner == owner
    )
    return (await connection.execute(query)).scalar_one()


async def insert(
    connection: AsyncConnection, table: sa.Table, row: dict[str, Any]
) -> Mapping[str, Any]:
    """Insert a row under an id that nobody has, whoever's it may be; the row as it is stored."""
    try:
        inserted = await connection.execute(table.insert().values(row).returning(table))
    except sa.exc.IntegrityError as error:
        raise StoryError(f"The id {row['id']} is taken. Leave it out to get a new one.") from error
    return inserted.mappings().one()


def _no_story(story_id: str) -> NoStoryError:
    return NoStoryError(
        f"There is no story {story_id[:40]!r}. Choose one from the history, or begin a new one."
    )
