"""What the workspace reads of a story, and the few things it stores, as JSON over HTTP.

Whatever changes the story itself is a turn and comes over the window's socket (workspace.py).
"""

import asyncio
import functools
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from storygen.chat.controls import Choices, remembered
from storygen.chat.draft import model_of, prompt_for
from storygen.chat.guards import is_uuid
from storygen.chat.history import cursor_of, position_of
from storygen.chat.page import signed_in
from storygen.chat.state import Studio
from storygen.errors import BusyError, StoryError, StorygenError
from storygen.story.feedback import preferences
from storygen.story.outline import first_words, opening, put_away, runs
from storygen.story.prompt import Prompt, prompt_budget
from storygen.story.steering import steering_of
from storygen.story.tree import Passage, Story, StoryTree, joint
from storygen.story.tree import manuscript as manuscript_of
from storygen.story.words import Sought, changed_spans, differences

MOST_HITS = 200
AROUND = 40  # characters shown before and after a hit
LIKELY = 200  # tokens of the next word's picture
FAN = 12  # words of the fan
MAX_TAKEN = 2_000

Answer = Callable[[Studio, str, Request], Awaitable[Any]]
logger = logging.getLogger(__name__)


def routes(studio: Studio) -> list[Route]:
    """Everything under /api that answers in JSON."""
    story = "/api/stories/{story}"
    answers: list[tuple[str, str, Answer]] = [
        ("GET", "/api/stories", stories),
        ("GET", "/api/feedback", feedback),
        ("POST", story, change_story),
        ("POST", f"{story}/duplicate", duplicate),
        ("GET", f"{story}/manuscript", manuscript),
        ("GET", f"{story}/tree", tree),
        ("GET", f"{story}/compare", compare),
        ("GET", f"{story}/find", find),
        ("POST", f"{story}/passages/{{passage}}", mark),
        ("GET", f"{story}/steering", steering),
        ("POST", f"{story}/steering", steer),
        ("GET", f"{story}/context", context),
        ("GET", f"{story}/next", next_tokens),
        ("GET", f"{story}/words", next_words),
    ]
    return [
        Route(path, _handler(studio, answer), methods=[method]) for method, path, answer in answers
    ]


async def stories(studio: Studio, owner: str, request: Request) -> Any:
    """A page of the owner's stories."""
    asked = request.query_params
    limit = min(max(_number(asked.get("limit", "50"), "limit"), 1), 200)
    found = await studio.store.stories(
        owner,
        search=asked.get("search", ""),
        limit=limit + 1,
        before=position_of(asked.get("before")),
        archived=_switch(asked, "archived"),
        deleted=_switch(asked, "deleted"),
    )
    more = cursor_of(found[limit - 1]) if len(found) > limit else None
    return {"stories": [_story(story) for story in found[:limit]], "next": more}


async def feedback(studio: Studio, owner: str, request: Request) -> Any:
    """Thumbs and choices of all stories, a JSON object a line."""
    lines: list[str] = []
    before = None
    while page := await studio.store.stories(owner, limit=100, before=before):
        for story in page:
            told = preferences(await studio.store.tree(owner, story.id))
            lines += [json.dumps({"story": story.title, **row}, ensure_ascii=False) for row in told]
        before = page[-1].updated_at, page[-1].id
    headers = {"content-disposition": 'attachment; filename="storygen-feedback.jsonl"'}
    text = "".join(f"{line}\n" for line in lines)
    return Response(text, media_type="application/jsonl", headers=headers)


async def change_story(studio: Studio, owner: str, request: Request) -> Any:
    """Another title, put away or back, deleted or restored."""
    story_id, asked = _id(request, "story"), await _body(request, "title", "archived", "deleted")
    store = studio.store
    if "deleted" in asked:
        change = store.delete_story if _flag(asked, "deleted") else store.restore_story
        await change(owner, story_id)
        if _flag(asked, "deleted"):
            return {}
    if "title" in asked:
        await store.rename(owner, story_id, " ".join(_text(asked, "title").split()))
    if "archived" in asked:
        await store.archive(owner, story_id, archived=_flag(asked, "archived"))
    return _story(await store.story(owner, story_id))


async def duplicate(studio: Studio, owner: str, request: Request) -> Any:
    """The same story once more, with all its branches and marks."""
    story_id = _id(request, "story")
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
    return _story(copy)


async def manuscript(studio: Studio, owner: str, request: Request) -> Any:
    """The active branch, or what follows a passage the page has already."""
    story_id = _id(request, "story")
    story = await studio.store.story(owner, story_id)
    told = await studio.store.tree(owner, story_id)
    branch = told.branch()
    after = _known(told, branch, request.query_params.get("after"))
    ids = [passage.id for passage in branch]
    first = ids.index(after) + 1 if after else 0
    return {
        "id": story.id,
        "title": story.title,
        "head": story.head_id,
        "can_redo": await studio.store.can_redo(owner, story_id),
        "after": after,
        "passages": await asyncio.to_thread(_passages, told, branch, first),
    }


async def tree(studio: Studio, owner: str, request: Request) -> Any:
    """All branches, stretch by stretch, and those that were put away."""
    told = await studio.store.tree(owner, _id(request, "story"))
    active = {passage.id for passage in told.branch()}
    return {
        "head": told.head_id,
        "runs": [
            {
                "id": run.id,
                "first": run.passages[0].id,
                "parent": run.parent.id if run.parent else None,
                "count": len(run.passages),
                "words": sum(len(passage.text.split()) for passage in run.passages),
                "opening": first_words(told, run.passages[0]),
                "role": run.passages[0].role,
                "name": told.mark(run.id).name,
                "favourite": told.mark(run.id).favourite,
                "rating": told.mark(run.id).rating,
                "active": run.id in active,
                "head": run.id == told.head_id,
                "at": _time(run.passages[-1].created_at),
            }
            for run in runs(told)
        ],
        "deleted": [
            {
                "id": passage.id,
                "opening": opening(passage.text),
                "words": len(passage.text.split()),
                "at": _time(passage.created_at),
            }
            for passage in put_away(told)
        ],
    }


async def compare(studio: Studio, owner: str, request: Request) -> Any:
    """Two branches from where they part."""
    told = await studio.store.tree(owner, _id(request, "story"))
    left = told.branch(_asked_id(request, "left"))
    right = told.branch(_asked_id(request, "right"))
    common = 0
    while common < min(len(left), len(right)) and left[common].id == right[common].id:
        common += 1
    before = left[common - 1].text if common else ""
    texts = manuscript_of(left[common:], before), manuscript_of(right[common:], before)
    found = await asyncio.to_thread(differences, *texts)  # of two novels, a second's work
    return {
        "common": common,
        "left": [["gone" if k == "left" else k, text] for k, text in found if k != "right"],
        "right": [["new" if k == "right" else k, text] for k, text in found if k != "left"],
    }


async def find(studio: Studio, owner: str, request: Request) -> Any:
    """Where a text stands on the active branch."""
    asked = request.query_params
    sought = Sought(asked.get("text", ""), _switch(asked, "case"), _switch(asked, "words"))
    told = await studio.store.tree(owner, _id(request, "story"))
    count, hits = 0, list[dict[str, Any]]()
    for passage in told.branch():
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
    return {"count": count, "hits": hits}


async def mark(studio: Studio, owner: str, request: Request) -> Any:
    """A name, a star, a thumb; or put a branch away, and back."""
    asked = await _body(request, "name", "favourite", "rating", "deleted")
    changes: dict[str, Any] = {
        name: _flag(asked, name) for name in ("favourite", "deleted") if name in asked
    }
    if "name" in asked:
        changes["name"] = " ".join(_text(asked, "name").split())
    if "rating" in asked:
        if asked["rating"] not in (-1, 0, 1) or isinstance(asked["rating"], bool):
            raise StoryError("A thumb is 1 (up), -1 (down) or 0 (none).")
        changes["rating"] = asked["rating"]
    await studio.store.mark(owner, _id(request, "story"), _id(request, "passage"), **changes)
    return {}


async def steering(studio: Studio, owner: str, request: Request) -> Any:
    """What the model is told beside the story."""
    story = await studio.store.story(owner, _id(request, "story"))
    return steering_of(story.settings).as_json()


async def steer(studio: Studio, owner: str, request: Request) -> Any:
    """Tell it something else; what is not named stays as it is."""
    changes = await _json(request)
    if not isinstance(changes, dict):
        raise StoryError("Steering must be an object.")
    told = await studio.steer(owner, _id(request, "story"), changes)
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
        "dropped": [{"label": "", "why": why} for why in prompt.dropped],
    }


async def next_tokens(studio: Studio, owner: str, request: Request) -> Any:
    """The likeliest next tokens and what the settings make of them."""
    choices, prompt, _ = await _prompt(studio, owner, request)
    found = await studio.engine.next_tokens(choices.model, prompt.text, LIKELY)
    names = ("temperature", "top_k", "top_p", "min_p")
    return {
        "tokens": [{"text": token.text, "p": math.exp(token.logprob)} for token in found],
        "settings": {name: getattr(choices.params, name) for name in names},
    }


async def next_words(studio: Studio, owner: str, request: Request) -> Any:
    """The likeliest next words, whole ones."""
    choices, prompt, _ = await _prompt(studio, owner, request)
    found = await studio.engine.next_words(choices.model, prompt.text, FAN)
    return {"words": [{"text": word.text, "p": word.probability} for word in found]}


async def _prompt(studio: Studio, owner: str, request: Request) -> tuple[Choices, Prompt, int]:
    """What the story's model would read now, with `after` at its end, and the budget for it."""
    story = await studio.store.story(owner, _id(request, "story"))
    branch = (await studio.store.tree(owner, story.id)).branch()
    after = request.query_params.get("after", "")
    if len(after) > MAX_TAKEN:
        raise StoryError(f"after has {len(after):,} characters: at most {MAX_TAKEN:,} are read.")
    if after and branch:
        branch[-1] = replace(branch[-1], text=branch[-1].text + after)
    choices = remembered(story.settings, studio.engine.models())
    model = model_of(studio.engine, choices.model)
    longest = choices.params.max_new_tokens
    told = steering_of(story.settings)
    prompt = await prompt_for(studio.engine, model, branch, told, longest)
    return choices, prompt, prompt_budget(model.block_size, longest)


def _story(story: Story) -> dict[str, Any]:
    return {
        "id": story.id,
        "title": story.title,
        "updated": _time(story.updated_at),
        "passages": story.passage_count,
        "archived": story.archived,
    }


def _passages(told: StoryTree, branch: Sequence[Passage], first: int) -> list[dict[str, Any]]:
    """The branch from its passage `first` on."""
    return [_passage(told, branch, n) for n in range(first, len(branch))]


def _passage(told: StoryTree, branch: Sequence[Passage], n: int) -> dict[str, Any]:
    """A passage of the branch as the manuscript shows it."""
    passage, said = branch[n], told.mark(branch[n].id)
    siblings = [
        sibling
        for sibling in told.siblings(passage.id)
        if sibling.id == passage.id or not told.mark(sibling.id).deleted
    ]
    origin = told.origin(passage.id)
    is_edited = passage.role == "model" and origin.text != passage.text
    params = passage.params or {}
    return {
        "id": passage.id,
        "role": passage.role,
        "text": passage.text,
        "joint": joint(_end_of(branch, n), passage),
        "state": passage.state,
        "model": passage.model,
        "seed": params.get("seed"),
        "settings": {k: v for k, v in params.items() if k != "steering" and v not in ([], None)},
        "finish": passage.finish_reason,
        "edited": changed_spans(origin.text, passage.text) if is_edited else None,
        "rating": said.rating,
        "favourite": said.favourite,
        "name": said.name,
        "version": [sibling.id for sibling in siblings].index(passage.id) + 1,
        "versions": len(siblings),
        "siblings": [sibling.id for sibling in siblings],
        "at": _time(passage.created_at),
    }


def _end_of(branch: Sequence[Passage], n: int) -> str:
    """The last characters before passage n of a branch: all that a joint looks at."""
    return next((branch[k].text[-2:] for k in range(n - 1, -1, -1) if branch[k].text), "")


def _known(told: StoryTree, branch: Sequence[Passage], after: str | None) -> str | None:
    """The last passage of the branch that a page which has `after` has too."""
    if after is None or after not in told:
        return None
    active = {passage.id for passage in branch}
    known = (passage.id for passage in reversed(told.branch(after)) if passage.id in active)
    return next(known, None)


def _handler(studio: Studio, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
    """A route that knows who asks, answers in JSON and says what went wrong in a sentence."""

    @functools.wraps(answer)
    async def handle(request: Request) -> Response:
        owner = signed_in(request)
        if owner is None:
            return _refusal(403, "This page is not signed in: reload it.")
        try:
            found = await answer(studio, owner, request)
        except BusyError as error:
            return _refusal(503, str(error))
        except StorygenError as error:
            return _refusal(400, str(error))
        except Exception:
            logger.exception("Error at %s", request.url.path)
            return _refusal(500, "That could not be done. Nothing stored is lost.")
        headers = {"cache-control": "no-store"}
        return found if isinstance(found, Response) else JSONResponse(found, headers=headers)

    return handle


def _refusal(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status, {"cache-control": "no-store"})


async def _json(request: Request) -> Any:
    """The body; its length is bounded before it comes here (guards.py)."""
    try:
        return json.loads(await request.body())
    except (ValueError, RecursionError):
        raise StoryError("What the page sent could not be read: reload it.") from None


async def _body(request: Request, *names: str) -> Mapping[str, Any]:
    found = await _json(request)
    if not isinstance(found, dict) or not found.keys() <= set(names):
        raise StoryError(f"Only {', '.join(names)} can be changed here.")
    return found


def _id(request: Request, name: str) -> str:
    return _uuid(request.path_params[name], name)


def _asked_id(request: Request, name: str) -> str:
    return _uuid(request.query_params.get(name), name)


def _uuid(value: Any, name: str) -> str:
    if not is_uuid(value):
        raise StoryError(f"The id of the {name} is no id: reload the page.")
    return str(value)


def _text(asked: Mapping[str, Any], name: str) -> str:
    if not isinstance(asked[name], str):
        raise StoryError(f"{name} must be text.")
    return str(asked[name])


def _flag(asked: Mapping[str, Any], name: str) -> bool:
    if not isinstance(asked[name], bool):
        raise StoryError(f"{name} must be true or false.")
    return bool(asked[name])


def _switch(asked: Mapping[str, str], name: str) -> bool:
    return asked.get(name) == "1"


def _number(value: str, name: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise StoryError(f"{name} must be a whole number, not {value[:20]!r}.")
    return int(value)


def _time(moment: datetime) -> str:
    """A time as the page reads it."""
    return f"{moment.replace(tzinfo=None).isoformat()}Z"
