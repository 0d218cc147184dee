"""A story whole comes back whole, and a file that is wrong says where."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storygen.errors import StoryError
from storygen.params import SamplingParams
from storygen.story import archive
from storygen.story.archive import Whole, dump, load
from storygen.story.steering import Lore, Steering
from storygen.story.store import StoryStore
from storygen.story.tree import PICKED, Mark, Passage, Story, StoryTree

MAY = datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=UTC)
OWNER = "writer"


def tree_of(whole: Whole) -> tuple[Story, StoryTree]:
    """The story as the store would give it, with the ids of the file."""
    story = Story("s", OWNER, whole.title, MAY, MAY, whole.head_id, whole.settings)
    return story, StoryTree(whole.passages, whole.head_id, whole.marks)


# 1 ── 2 ── 4      2 was written by a model, 3 is an edit of it; the head is at 3
#   └─ 3
PARAMS = json.loads(json.dumps(asdict(SamplingParams(seed=7, stop=("\n",)))))
PASSAGES = [
    Passage("a", "s", None, "writer", "It was dark.", MAY),
    Passage("b", "s", "a", "model", " Rain “fell”.", MAY, "complete", "mystery", PARAMS, "length"),
    Passage("c", "s", "a", "model", " Snow fell.", MAY, model="mystery", source_id="b"),
    Passage("d", "s", "b", "writer", "", MAY + timedelta(days=1)),
]
MARKS = {"b": Mark("wet", True, 1), "d": Mark(deleted=True), "a": Mark(rating=-1)}
STEERING = json.loads(json.dumps(Steering("He is old.", lore=(Lore("Fog", ("fog",)),)).as_json()))
SETTINGS = {"model": "mystery", "temperature": 0.7, "seed": None, "steering": STEERING}
STORY = Story("s", OWNER, "The “Fog”", MAY, MAY, "c", SETTINGS)
WHOLE = dump(STORY, StoryTree(PASSAGES, "c", MARKS))


def test_a_file_is_as_documented() -> None:
    assert json.loads(WHOLE) == {
        "storygen": 1,
        "title": "The “Fog”",
        "settings": SETTINGS,
        "head": 3,
        "passages": [
            {"number": 1, "role": "writer", "text": "It was dark.", "rating": -1}
            | {"at": "2026-05-01T12:30:15.123456+00:00"},
            {"number": 2, "parent": 1, "role": "model", "text": " Rain “fell”."}
            | {"at": "2026-05-01T12:30:15.123456+00:00", "model": "mystery"}
            | {"params": PARAMS, "finish_reason": "length"}
            | {"name": "wet", "favourite": True, "rating": 1},
            {"number": 3, "parent": 1, "source": 2, "role": "model", "text": " Snow fell."}
            | {"at": "2026-05-01T12:30:15.123456+00:00", "model": "mystery"},
            {"number": 4, "parent": 2, "role": "writer", "text": "", "deleted": True}
            | {"at": "2026-05-02T12:30:15.123456+00:00"},
        ],
    }


def test_a_story_is_read_as_it_was() -> None:
    whole = load(WHOLE)
    names = dict(zip("abcd", "1234", strict=True))
    for passage, was in zip(whole.passages, PASSAGES, strict=True):
        assert passage == replace(
            was,
            id=names[was.id],
            story_id="",
            parent_id=was.parent_id and names[was.parent_id],
            source_id=was.source_id and names[was.source_id],
        )
    assert whole.marks == {names[id]: mark for id, mark in MARKS.items()}
    assert (whole.title, whole.settings, whole.head_id) == (STORY.title, STORY.settings, "3")


async def test_a_stored_story_is_written_as_the_same_bytes(store: StoryStore) -> None:
    whole = load(WHOLE)
    story = await store.add_story(
        OWNER,
        title=whole.title,
        settings=whole.settings,
        passages=whole.passages,
        head_id=whole.head_id,
        marks=whole.marks,
    )
    assert dump(story, await store.tree(OWNER, story.id)) == WHOLE


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
told = st.builds(
    Steering,
    memory=st.text(max_size=20),
    lore=st.lists(st.builds(Lore, text=st.text(max_size=20)), max_size=2).map(tuple),
)
numbers = {
    "temperature": st.floats(0, 2),
    "top_k": st.integers(0, 100_000),
    "seed": st.none() | st.integers(0, 2**63 - 1),
    "steering": told.map(lambda steering: json.loads(json.dumps(steering.as_json()))),
}
settings_kept = st.fixed_dictionaries({}, optional=numbers | {"model": st.text(max_size=200)})
params_kept = st.fixed_dictionaries({}, optional=numbers | {PICKED: st.booleans()})
moments = st.datetimes(
    min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.just(UTC)
)


@st.composite
def wholes(draw: st.DrawFn) -> Whole:
    size = draw(st.integers(0, 6))

    def earlier(number: int) -> str | None:
        return draw(st.none() | st.integers(1, number).map(str)) if number else None

    passages = [
        Passage(
            id=str(number),
            story_id="",
            parent_id=earlier(number - 1),
            role=draw(st.sampled_from(["writer", "model"])),
            text=draw(st.text()),
            created_at=draw(moments),
            model=draw(st.none() | st.text(max_size=200)),
            params=draw(st.none() | params_kept),
            finish_reason=draw(st.none() | st.text(max_size=16)),
            source_id=earlier(number - 1),
        )
        for number in range(1, size + 1)
    ]
    mark = st.builds(Mark, st.text(max_size=200), st.booleans(), st.sampled_from([-1, 0, 1]))
    marks = {p.id: said for p in passages if (said := draw(mark)) != Mark()}
    return Whole(draw(st.text(max_size=500)), draw(settings_kept), earlier(size), passages, marks)


@settings(max_examples=60)
@given(wholes())
def test_any_story_comes_back(whole: Whole) -> None:
    written = dump(*tree_of(whole))
    assert load(written) == whole
    assert dump(*tree_of(load(written))) == written


EMPTY_LISTS: list[Any] = [[]] * 200_000  # 200 such stories held up everyone for 10 s in a list


@pytest.mark.parametrize(
    "unknown",
    [
        {"x": EMPTY_LISTS},
        {"model": EMPTY_LISTS},
        {"model": "x" * 201},
        {"temperature": EMPTY_LISTS},
        {"temperature": 3},
        {"temperature": None},
        {"seed": 10**400},
        {"steering": EMPTY_LISTS},
        {"steering": {"memory": EMPTY_LISTS}},
        {"steering": {"memory": "x" * 20_001}},
        {"steering": {"lore": EMPTY_LISTS}},
        {"steering": {"lore": [{"keys": EMPTY_LISTS}]}},
        {"steering": {"x": EMPTY_LISTS}},
        {"stop": EMPTY_LISTS},
        {"stop": ["x" * 201]},
        {"loop_guard": EMPTY_LISTS},
        {PICKED: EMPTY_LISTS},
    ],
)
def test_what_the_page_would_never_have_stored_is_left_out(unknown: dict[str, Any]) -> None:
    story = json.loads(WHOLE)
    story["settings"] = unknown | {"top_k": 3}
    story["passages"][1]["params"] = unknown | {"top_k": 3}
    whole = load(json.dumps(story).encode())
    assert whole.settings == whole.passages[1].params == {"top_k": 3}


@settings(max_examples=60)
@given(st.data())
def test_a_wrong_value_anywhere_is_refused_or_read(data: st.DataObject) -> None:
    story = json.loads(WHOLE)
    target = data.draw(st.sampled_from([story, *story["passages"]]))
    target[data.draw(st.sampled_from([*target, "more"]))] = data.draw(json_values)
    try:
        whole = load(json.dumps(story).encode())
    except StoryError:
        return
    assert load(dump(*tree_of(whole))) == whole


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Sets what `passages.1.role` or the like names."""

    def apply(story: Any) -> None:
        *way, last = path.split(".")
        for name in way:
            story = story[int(name) if name.isdigit() else name]
        story[int(last) if last.isdigit() else last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("storygen", 2, "version 2, and 1 is known here: update storygen"),
        ("storygen", True, "version true"),
        ("more", 1, r"\['more'\], which is not known"),
        ("title", 7, "title 7: it must be a text"),
        ("title", "x" * 501, "title of 501 characters, and 500 can be taken"),
        ("settings", [], "settings a list: it must be an object"),
        ("settings", {"x": "y" * 1_000_000}, "settings of 1,000,0"),
        ("head", 5, "head 5: it must be the number of a passage, 1 to 4"),
        ("head", "3", "head '3': it must be the number"),
        ("head", 3.0, "head 3.0: it must be the number"),
        ("passages", {}, "passages that are no list"),
        ("passages.0", 7, "passage 1 that is no object"),
        ("passages.1.number", 3, r"passages\[1\].number 3 where 2 should follow"),
        ("passages.1.parent", 2, r"passages\[1\].parent 2: it must be .* 1 to 1"),
        ("passages.0.parent", 1, r"passages\[0\].parent 1: it must be left out"),
        ("passages.2.source", 4, r"passages\[2\].source 4: it must be .* 1 to 2"),
        ("passages.1.role", "robot", r'role \'robot\': it must be "writer" or "model"'),
        ("passages.1.text", None, "text null: it must be a text"),
        ("passages.1.text", "x" * 2_000_001, "text of 2,000,001 characters"),
        ("passages.1.at", "yesterday", "at 'yesterday': it must be a time"),
        ("passages.1.at", "2026-05-01T12:30:15", "it must be a time"),
        ("passages.1.at", "0001-01-01T00:00:00+14:00", "it must be a time"),
        ("passages.1.model", 7, "model 7: it must be a text"),
        ("passages.1.params", "hot", "params 'hot': it must be an object"),
        ("passages.1.finish_reason", "x" * 17, "finish_reason of 17 characters"),
        ("passages.1.name", "x" * 201, "name of 201 characters"),
        ("passages.1.favourite", 1, "favourite 1: it must be false or true"),
        ("passages.1.rating", 2, "rating 2: it must be -1 or 0 or 1"),
        ("passages.1.rating", True, "rating true: it must be -1 or 0 or 1"),
        ("passages.1.state", "streaming", r"passages\[1\].\['state'\], which is not known"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(path: str, value: object, sentence: str) -> None:
    story = deepcopy(json.loads(WHOLE))
    change(path, value)(story)
    with pytest.raises(
        StoryError, match=f"^This story was not read: the file has .*{sentence}"
    ) as e:
        load(json.dumps(story).encode())
    assert len(str(e.value)) < 250


@pytest.mark.parametrize("name", ["title", "settings", "passages", "number", "role", "text", "at"])
def test_what_is_missing_is_named(name: str) -> None:
    story = json.loads(WHOLE)
    (story if name in story else story["passages"][0]).pop(name)
    with pytest.raises(StoryError, match=f"{name}"):
        load(json.dumps(story).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"title": "x"}',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"storygen": NaN}',
        b'{"storygen": 1e999}',
        b'{"storygen": ' + b"9" * 5000 + b"}",
        b'"' + b"x" * 1000,
    ],
)
def test_what_is_no_story_is_refused(data: bytes) -> None:
    with pytest.raises(StoryError, match=r"^This story was not read: the file .*\.$") as refused:
        load(data)
    assert len(str(refused.value)) < 250


def test_too_much_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILE", 10)
    with pytest.raises(StoryError, match="bytes, and 10 can be taken"):
        load(WHOLE)
    monkeypatch.setattr(archive, "MAX_FILE", 10**9)
    monkeypatch.setattr(archive, "MAX_PASSAGES", 3)
    with pytest.raises(StoryError, match="more than 3 passages"):
        load(WHOLE)


def test_times_of_other_places_become_utc() -> None:
    story = json.loads(WHOLE)
    story["passages"][0]["at"] = MAY.astimezone(timezone(timedelta(hours=5))).isoformat()
    assert dump(*tree_of(load(json.dumps(story).encode()))) == WHOLE


def test_what_a_copy_has_from_its_source_is_written_once() -> None:
    copies = [*PASSAGES, replace(PASSAGES[1], id="e", parent_id="c", source_id="b")]
    copies.append(replace(copies[-1], id="f", parent_id="e", source_id="e"))
    written = dump(STORY, StoryTree(copies, "f", {}))
    assert written.count("Rain “fell”".encode()) == 1
    assert [p.text for p in load(written).passages] == [p.text for p in copies]
    assert load(written).passages[5].params == PARAMS
    assert dump(*tree_of(load(written))) == written


def branch_of(copies: int) -> bytes:
    """A passage of a thousand characters, and copies of it one after another."""
    at = MAY.isoformat()
    told: list[dict[str, Any]] = [{"number": 1, "role": "writer", "text": "x" * 1000, "at": at}]
    for number in range(2, copies + 2):
        told.append({"number": number, "parent": number - 1, "source": 1, "role": "model"})
        told[-1]["at"] = at
    whole = {"storygen": 1, "title": "", "settings": {}, "head": copies + 1, "passages": told}
    return json.dumps(whole).encode()


def test_a_branch_of_copies_may_be_as_long_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILE", 20_000)
    whole = load(branch_of(19))
    assert sum(len(passage.text) for passage in whole.passages) == 20_000
    with pytest.raises(StoryError) as refused:
        load(branch_of(20))
    assert str(refused.value) == (
        "This story was not read: the file has 21,000 characters on the branch to passages[20], "
        "with those of copies, and 20,000 can be taken."
    )


def test_settings_of_copies_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    story = json.loads(branch_of(19))
    story["passages"][0]["params"] = {"stop": ["x" * 200] * 8}
    monkeypatch.setattr(archive, "MAX_FILE", 20_000)
    with pytest.raises(StoryError, match=r"on the branch to passages\[7\], with those of copies"):
        load(json.dumps(story).encode())


async def test_a_story_of_many_edits_is_read_however_many_there_were(
    store: StoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"Chapter {n}. " + "It rained. " * 500 for n in range(10)]
    first, *others = [
        Passage(str(n), "", str(n - 1) if n else None, "model", text, MAY, params={"top_k": n})
        for n, text in enumerate(texts)
    ]
    story = await store.add_story(
        OWNER, title="", settings={}, passages=[first, *others], head_id="9"
    )
    for n in range(20):
        head = (await store.tree(OWNER, story.id)).branch()[0]
        story = await store.rewrite(OWNER, story.id, {head.id: f"Chapter {n}. So."})
    tree = await store.tree(OWNER, story.id)
    written = dump(story, tree)
    assert sum(len(passage.text) for passage in tree) > 10 * len(written)
    monkeypatch.setattr(archive, "MAX_FILE", len(written))
    assert [passage.text for passage in load(written).passages] == [p.text for p in tree]
