"""What the workspace reads of a story, and the few things it stores, as JSON over HTTP.

Whatever changes the story itself is a turn and comes over the window's socket (workspace.py).
"""

import json
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from storygen.chat.answering import (
    NOT_KEPT,
    answering,
    changes_in,
    flag_in,
    id_in,
    json_of,
    number_in,
    switch_in,
    text_in,
    written,
)
from storygen.chat.controls import Choices, remembered
from storygen.chat.draft import NOTHING_YET, prompt_for
from storygen.chat.history import cursor_of, position_of
from storygen.chat.shares import Aside
from storygen.chat.state import Studio
from storygen.chat.views import passage_views, story_view, tree_view
from storygen.errors import DatabaseError, NoStoryError, PromptError, StoryError
from storygen.incoming import unless_gone
from storygen.story.feedback import preferences
from storygen.story.prompt import Prompt, prompt_budget
from storygen.story.steering import steering_of
from storygen.story.tree import Passage, StoryTree
from storygen.story.tree import manuscript as manuscript_of
from storygen.story.words import Sought, differences

MOST_HITS = 200
AROUND = 40  # characters shown before and after a hit
LIKELY = 200  # tokens of the next word's picture
FAN = 12  # words of the fan
MAX_COMPARED = 8_000_000  # characters of two branches, from where they part
PIECE = 256_000  # bytes of thumbs that are sent at a time, and the rest of a line
MAX_AFTER = 2_000  # characters of words tried at the end of the story

logger = logging.getLogger(__name__)


def routes(studio: Studio) -> list[Route]:
    """Everything under /api that answers in JSON."""
    story, aside = "/api/stories/{story}", Aside()
    answers: list[tuple[str, str, Callable[..., Awaitable[Any]]]] = [
        ("GET", "/api/stories", stories),
        ("GET", "/api/feedback", partial(feedback, aside)),
        ("POST", story, change_story),
        ("POST", f"{story}/duplicate", duplicate),
        ("GET", f"{story}/manuscript", partial(manuscript, aside)),
        ("GET", f"{story}/tree", partial(tree, aside)),
        ("GET", f"{story}/compare", partial(compare, aside)),
        ("GET", f"{story}/find", partial(find, aside)),
        ("POST", f"{story}/passages/{{passage}}", mark),
        ("GET", f"{story}/steering", steering),
        ("POST", f"{story}/steering", steer),
        ("GET", f"{story}/context", context),
        ("GET", f"{story}/next", next_tokens),
        ("GET", f"{story}/words", next_words),
    ]
    return [
        Route(path, answering(partial(answer, studio)), methods=[method])
        for method, path, answer in answers
    ]


async def stories(studio: Studio, owner: str, request: Request) -> Any:
    """A page of the owner's stories."""
    asked = request.query_params
    limit = min(max(number_in(asked, "limit", 50), 1), 200)
    listed = studio.store.stories(
        owner,
        search=asked.get("search", ""),
        limit=limit + 1,
        before=position_of(asked.get("before")),
        archived=switch_in(asked, "archived"),
        deleted=switch_in(asked, "deleted"),
    )
    found = await unless_gone(request.receive, listed)
    more = cursor_of(found[limit - 1]) if len(found) > limit else None
    return {"stories": [story_view(story) for story in found[:limit]], "next": more}


async def feedback(aside: Aside, studio: Studio, owner: str, request: Request) -> Any:
    """Thumbs and choices of all stories, a JSON object a line, streamed."""
    titles = await studio.store.titles(owner)
    headers = {"content-disposition": 'attachment; filename="storygen-feedback.jsonl"'}
    return StreamingResponse(
        _thumbs(aside, studio, owner, titles),
        media_type="application/jsonl",
        headers=headers | NOT_KEPT,
    )


async def _thumbs(
    aside: Aside, studio: Studio, owner: str, titles: Mapping[str, str]
) -> AsyncIterator[bytes]:
    """Piece by piece, of which one is in memory, and one story. Each is a turn of its own: whoever
    reads slowly keeps nobody waiting. Where a story cannot be read they are cut off."""
    for story_id, title in titles.items():
        try:
            told = await studio.store.tree(owner, story_id)
        except NoStoryError:  # deleted meanwhile
            continue
        except DatabaseError as error:
            logger.warning("The thumbs of all stories were cut off: %s", error)
            raise
        rows = preferences(told)
        while piece := await aside.run(owner, _piece, title, rows):
            yield piece


def _piece(title: str, rows: Iterator[dict[str, Any]]) -> bytes:
    """The next rows as lines, as many as make a piece; nothing after the last."""
    lines: list[bytes] = []
    size = 0
    while size < PIECE and (row := next(rows, None)) is not None:
        line = json.dumps({"story": title, **row}, ensure_ascii=False) + "\n"
        lines.append(line.encode())
        size += len(lines[-1])
    return b"".join(lines)


async def change_story(studio: Studio, owner: str, request: Request) -> Any:
    """Another title, put away or back, deleted or restored."""
    story_id, asked = (
        id_in(request.path_params, "story"),
        await changes_in(request, "title", "archived", "deleted"),
    )
    store = studio.store
    if "deleted" in asked:
        change = store.delete_story if flag_in(asked, "deleted") else store.restore_story
        await change(owner, story_id)
        if flag_in(asked, "deleted"):
            return {}
    if "title" in asked:
        await store.rename(owner, story_id, " ".join(text_in(asked, "title").split()))
    if "archived" in asked:
        await store.archive(owner, story_id, archived=flag_in(asked, "archived"))
    return story_view(await store.story(owner, story_id))


async def duplicate(studio: Studio, owner: str, request: Request) -> Any:
    """The same story once more, with all its branches and marks."""
    story_id = id_in(request.path_params, "story")
    story = await studio.store.story(owner, story_id)
    told = await studio.store.tree(owner, story_id)
    copy = await studio.store.add_story(
        owner,
        title=f"{story.title} (copy)"[:200],
        settings=story.settings,
        passages=list(told),
        head_id=told.head_id,
        marks=told.marks,
    )
    return story_view(copy)


async def manuscript(aside: Aside, studio: Studio, owner: str, request: Request) -> Any:
    """The active branch, or what follows a passage the page has already."""
    story_id = id_in(request.path_params, "story")
    story = await studio.store.story(owner, story_id)
    told = await studio.store.tree(owner, story_id)
    branch = told.branch()
    after = _known(told, branch, request.query_params.get("after"))
    found = {
        "id": story.id,
        "title": story.title,
        "head": story.head_id,
        "can_redo": await studio.store.can_redo(owner, story_id),
        "after": after,
    }
    return await aside.run(
        owner, lambda: written(found | {"passages": passage_views(told, branch, after)})
    )


async def tree(aside: Aside, studio: Studio, owner: str, request: Request) -> Any:
    """All branches, and those that were put away."""
    told = await studio.store.tree(owner, id_in(request.path_params, "story"))
    return await aside.run(owner, lambda: written(tree_view(told)))


async def compare(aside: Aside, studio: Studio, owner: str, request: Request) -> Any:
    """Two branches from where they part."""
    told = await studio.store.tree(owner, id_in(request.path_params, "story"))
    left = told.branch(id_in(request.query_params, "left"))
    right = told.branch(id_in(request.query_params, "right"))
    return await aside.run(owner, _compared, left, right)


def _compared(left: Sequence[Passage], right: Sequence[Passage]) -> Response:
    """Of two novels, a second's work."""
    common = 0
    while common < min(len(left), len(right)) and left[common].id == right[common].id:
        common += 1
    before = left[common - 1].text if common else ""
    texts = manuscript_of(left[common:], before), manuscript_of(right[common:], before)
    if (length := sum(map(len, texts))) > MAX_COMPARED:
        raise StoryError(
            f"These branches have {length:,} characters from where they part: at most "
            f"{MAX_COMPARED:,} can be compared. Compare an earlier part of them."
        )
    found = differences(*texts)
    return written(
        {
            "common": common,
            "left": [["gone" if k == "left" else k, text] for k, text in found if k != "right"],
            "right": [["new" if k == "right" else k, text] for k, text in found if k != "left"],
        }
    )


async def find(aside: Aside, studio: Studio, owner: str, request: Request) -> Any:
    """Where a text stands on the active branch."""
    asked = request.query_params
    sought = Sought(asked.get("text", ""), switch_in(asked, "case"), switch_in(asked, "words"))
    told = await studio.store.tree(owner, id_in(request.path_params, "story"))
    return await aside.run(owner, _hits, sought, told.branch())


def _hits(sought: Sought, branch: Sequence[Passage]) -> Response:
    """How many there are, and what stands around the first of them."""
    count, hits = 0, list[dict[str, Any]]()
    for passage in branch:
        for start, end in sought.spans(passage.text):
            count += 1
            if len(hits) < MOST_HITS:
                hits.append(
                    {
                        "passage": passage.id,
                        "start": start,
                        "end": end,
                        "before": passage.text[max(0, start - AROUND) : start],
                        "match": passage.text[start:end],
                        "after": passage.text[end : end + AROUND],
                    }
                )
    return written({"count": count, "hits": hits})


async def mark(studio: Studio, owner: str, request: Request) -> Any:
    """A name, a star, a thumb; or put a branch away, and back."""
    asked = await changes_in(request, "name", "favourite", "rating", "deleted")
    changes: dict[str, Any] = {
        name: flag_in(asked, name) for name in ("favourite", "deleted") if name in asked
    }
    if "name" in asked:
        changes["name"] = " ".join(text_in(asked, "name").split())
    if "rating" in asked:
        if asked["rating"] not in (-1, 0, 1) or isinstance(asked["rating"], bool):
            raise StoryError("A thumb is 1 (up), -1 (down) or 0 (none).")
        changes["rating"] = asked["rating"]
    await studio.store.mark(
        owner, id_in(request.path_params, "story"), id_in(request.path_params, "passage"), **changes
    )
    return {}


async def steering(studio: Studio, owner: str, request: Request) -> Any:
    """What the model is told beside the story."""
    story = await studio.store.story(owner, id_in(request.path_params, "story"))
    return steering_of(story.settings).as_json()


async def steer(studio: Studio, owner: str, request: Request) -> Any:
    """Tell it something else; what is not named stays as it is."""
    changes = await json_of(request)
    if not isinstance(changes, dict):
        raise StoryError("Steering must be an object.")
    told = await studio.steer(owner, id_in(request.path_params, "story"), changes)
    return told.as_json()


async def context(studio: Studio, owner: str, request: Request) -> Any:
    """The exact text the model would read now, part by part."""
    choices, prompt, budget = await _prompt(studio, owner, request)
    parts = [
        {
            "source": part.source,
            "label": part.label,
            "text": part.text,
            "tokens": await studio.engine.count_tokens(choices.model, part.text),
        }
        for part in prompt.parts
        if part.text
    ]
    return {
        "model": choices.model,
        "budget": budget,
        "used": await studio.engine.count_tokens(choices.model, prompt.text),
        "left_out": prompt.left_out,
        "parts": parts,
        "dropped": list(prompt.dropped),
    }


async def next_tokens(studio: Studio, owner: str, request: Request) -> Any:
    """The likeliest next tokens and what the settings make of them."""
    choices, text = await _text(studio, owner, request)
    found = await studio.engine.next_tokens(choices.model, text, LIKELY, user=owner)
    names = ("temperature", "top_k", "top_p", "min_p")
    return {
        "tokens": [{"text": token.text, "p": math.exp(token.logprob)} for token in found],
        "settings": {name: getattr(choices.params, name) for name in names},
    }


async def next_words(studio: Studio, owner: str, request: Request) -> Any:
    """The likeliest next words, whole ones."""
    choices, text = await _text(studio, owner, request)
    found = await studio.engine.next_words(choices.model, text, FAN, user=owner)
    return {"words": [{"text": word.text, "p": word.probability} for word in found]}


async def _text(studio: Studio, owner: str, request: Request) -> tuple[Choices, str]:
    """What the story's model would read now; PromptError for nothing."""
    choices, prompt, _ = await _prompt(studio, owner, request)
    if not prompt.text:
        raise PromptError(NOTHING_YET)
    return choices, prompt.text


async def _prompt(studio: Studio, owner: str, request: Request) -> tuple[Choices, Prompt, int]:
    """What the story's model would read now, with `after` at its end, and the budget for it."""
    story = await studio.store.story(owner, id_in(request.path_params, "story"))
    branch = (await studio.store.tree(owner, story.id)).branch()
    after = request.query_params.get("after", "")
    if len(after) > MAX_AFTER:
        raise StoryError(f"after has {len(after):,} characters: at most {MAX_AFTER:,} are read.")
    if after and branch:
        branch[-1] = replace(branch[-1], text=branch[-1].text + after)
    choices = remembered(story.settings, studio.models(owner))
    model = studio.model(owner, choices.model)
    longest = choices.params.max_new_tokens
    told = steering_of(story.settings)
    prompt = await prompt_for(studio.engine, model, branch, told, longest)
    return choices, prompt, prompt_budget(model.block_size, longest)


def _known(told: StoryTree, branch: Sequence[Passage], after: str | None) -> str | None:
    """The last passage of the branch that a page which has `after` has too."""
    if after is None or after not in told:
        return None
    active = {passage.id for passage in branch}
    known = (passage.id for passage in reversed(told.branch(after)) if passage.id in active)
    return next(known, None)
