"""Many passages at once: a whole story under new ids, or what an edit copies of a branch.

Of 100,000 passages it is seconds of work. Their rows are made in a thread, without the database,
and stored batch by batch, so that nobody else's change waits for all of them. They are seen once
the last is stored: of what was cut off before, purge.py leaves nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from storygen.errors import StoryError
from storygen.story.growing import Growing
from storygen.story.rows import HIDDEN, new_id, row_of
from storygen.story.schema import passages as passages_table
from storygen.story.schema import stories
from storygen.story.statements import (
    UNFINISHED,
    hold,
    insert,
    insert_many,
    last_number,
    record_move,
    story_of,
)
from storygen.story.tree import UNMARKED, Mark, Passage, Story, StoryTree, no_passage

BATCH, BATCH_TEXT = 200, 1_000_000  # rows, and characters of their texts: a few milliseconds' work

Row = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """Passages that are to be stored, what is said of them, and which of them the head is at."""

    passages: list[Row]
    marks: dict[str, Mark]
    head_id: str | None


def moved(
    owner: str,
    story_id: str,
    passages: Sequence[Passage],
    head_id: str | None,
    marks: Mapping[str, Mark],
) -> Rows:
    """Passages as those of a new story; StoryError where one names another not before it."""
    known: dict[str, Passage] = {}
    ids: dict[str, str] = {}
    rows = []
    for number, passage in enumerate(passages, 1):
        if passage.id in ids:
            raise StoryError(f"Two passages have the id {passage.id[:40]!r}: give each its own.")
        for named in (passage.parent_id, passage.source_id):
            if named is not None and named not in ids:
                raise no_passage(named)
        source = known.get(passage.source_id or "")
        known[passage.id], ids[passage.id] = passage, new_id()
        here = replace(
            passage,
            id=ids[passage.id],
            story_id=story_id,
            parent_id=passage.parent_id and ids[passage.parent_id],
            source_id=passage.source_id and ids[passage.source_id],
        )
        rows.append(row_of(here, owner, number, source))
    for named in [*marks, *([] if head_id is None else [head_id])]:
        if named not in ids:
            raise no_passage(named)
    said = {ids[passage_id]: mark for passage_id, mark in marks.items()}
    return Rows(rows, said, None if head_id is None else ids[head_id])


def reworded(owner: str, tree: StoryTree, texts: Mapping[str, str]) -> Rows:
    """The active branch from the first passage on that texts words anew, numbered from 1 and
    hidden; nothing where none is."""
    branch = tree.branch()
    for passage_id in texts.keys() - {passage.id for passage in branch}:
        raise no_passage(passage_id)
    changed = [n for n, p in enumerate(branch) if texts.get(p.id, p.text) != p.text]
    if not changed:
        return Rows([], {}, None)
    copied = branch[changed[0] :]
    if copied[-1].state == "streaming":
        raise StoryError("The last passage is still being written: stop it first.")
    rows, said = [], {}
    parent_id = copied[0].parent_id
    for number, passage in enumerate(copied, 1):
        text = texts.get(passage.id, passage.text)
        copy = replace(passage, id=new_id(), parent_id=parent_id, source_id=passage.id, text=text)
        rows.append(row_of(copy, owner, number, passage))
        mark = replace(tree.mark(passage.id), deleted=False)
        if mark != UNMARKED:
            said[copy.id] = mark
        parent_id = copy.id
    rows[0]["state"] = HIDDEN
    return Rows(rows, said, parent_id)


async def add_whole(growing: Growing, story: dict[str, Any], rows: Rows) -> Story:
    """Store a story with all its passages: until the end as one that was deleted and cannot be
    restored."""
    story |= {"head_number": UNFINISHED, "deleted_at": datetime.now(UTC)}
    async with growing.change() as connection:
        held = await insert(connection, stories, story)
    for batch in batches(rows.passages):
        async with growing.change() as connection:
            await insert_many(connection, batch, rows.marks)
    owner, story_id = held["owner"], held["id"]
    head_number = 0 if rows.head_id is None else 1
    async with growing.change() as connection:
        if rows.head_id is not None:
            await record_move(connection, dict(held) | {"head_number": head_number}, rows.head_id)
        await connection.execute(
            stories.update()
            .where(stories.c.id == story_id, stories.c.owner == owner)
            .values(passage_count=len(rows.passages), head_number=head_number, deleted_at=None)
        )
        return await story_of(connection, owner, story_id)


async def add_copies(growing: Growing, owner: str, story_id: str, rows: Rows) -> Story:
    """Store what an edit copies, and move the head to it.

    The first copy hides all until the last is stored, and is claimed so long. What another window
    does to the story meanwhile is done; the head comes here from wherever it is then.
    """
    first, stored = rows.passages[0]["id"], 0
    await growing.claims.take(first)
    try:
        for batch in batches(rows.passages):
            stored += len(batch)
            is_last = stored == len(rows.passages)
            async with growing.change() as connection:
                held = await hold(
                    connection,
                    owner,
                    story_id,
                    passage_count=stories.c.passage_count + (stored if is_last else 0),
                    head_number=stories.c.head_number + int(is_last),
                )
                number = await last_number(connection, held)
                numbered = [row | {"number": number + n} for n, row in enumerate(batch, 1)]
                await insert_many(connection, numbered, rows.marks)
                if is_last:
                    await connection.execute(
                        passages_table.update()
                        .where(passages_table.c.id == first, passages_table.c.owner == owner)
                        .values(state="complete")
                    )
                    await record_move(connection, held, rows.head_id)
                    return await story_of(connection, owner, story_id)
        raise AssertionError("there is always a last batch")
    finally:
        await growing.claims.let_go(first)


def batches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows in their order, so many at a time that nobody waits long for one statement."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        if batch and (len(batch) == BATCH or size + len(row.get("text", "")) > BATCH_TEXT):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += len(row.get("text", ""))
    if batch:
        yield batch
