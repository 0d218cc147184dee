import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.errors import StoryError
from storygen.story import steering as steering_module
from storygen.story.steering import Lore, Steering, StoryEnd, from_json, steering_of

WHOLE = Steering(
    memory="Ann is dead.",
    note="[Sad.]",
    note_depth=3,
    lore=(Lore("Ann", ("Ann", "the pilot"), "She flies.", on=False), Lore()),
    title="The Red Moth",
    stop=("\n\n", " THE END"),
    banned=("suddenly", "of course"),
    end_at_sentence=True,
    loop_guard=False,
)


def test_what_is_kept_is_read_back() -> None:
    assert from_json(json.loads(json.dumps(WHOLE.as_json()))) == WHOLE
    assert steering_of({"steering": WHOLE.as_json()}) == WHOLE


def test_what_is_missing_has_its_default() -> None:
    assert from_json({}) == Steering() == steering_of({})
    assert from_json({"lore": [{"name": "Ann"}]}) == Steering(lore=(Lore("Ann"),))


def test_phrases_are_trimmed_stop_strings_are_not_and_empty_ones_are_left_out() -> None:
    steering = from_json(
        {"banned": [" so ", " ", ""], "stop": [" END", "", "\n"], "title": " a  b"}
    )
    assert steering == Steering(banned=("so",), stop=(" END", "\n"), title="a b")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ([], "Steering must be an object, not a list"),
        ({"moods": 1}, "Steering has no 'moods'"),
        ({"memory": 5}, "memory must be text, not 5"),
        ({"memory": "x" * 20_001}, "memory has 20,001 characters: at most 20,000"),
        ({"note_depth": 51}, "note_depth must be a whole number from 0 to 50, not 51"),
        ({"note_depth": True}, "note_depth must be a whole number"),
        ({"note_depth": 10**40}, "not a huge number"),
        ({"lore": "Ann"}, "lore must be a list, not 'Ann'"),
        ({"lore": [{}] * 301}, "lore has 301 entries: at most 300"),
        ({"lore": [{}, {"key": ""}]}, "Lore entry 2 has no 'key'"),
        ({"lore": [{"on": 1}]}, "on is on or off, true or false, not 1"),
        ({"stop": ["x"] * 9}, "stop has 9 entries: at most 8"),
        ({"banned": [5]}, "banned has 5: each must be a text"),
        ({"banned": ["x" * 101]}, "banned has 'xxx.*of at most 100 characters"),
        ({"loop_guard": "yes"}, "loop_guard is on or off"),
        ({"lore": [{"text": "x" * 4000}] * 60}, "have .* characters together: at most 200,000"),
    ],
)
def test_what_cannot_be_kept_is_named(wrong: Any, sentence: str) -> None:
    with pytest.raises(StoryError, match=sentence):
        from_json(wrong)
    assert steering_of({"steering": wrong}) == Steering()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NAMES = st.sampled_from(sorted(Steering().as_json()))


@given(st.dictionaries(NAMES, VALUES) | VALUES)
def test_anything_is_taken_or_refused_with_a_sentence(value: Any) -> None:
    try:
        steering = from_json(value)
    except StoryError:
        return
    assert from_json(json.loads(json.dumps(steering.as_json()))) == steering


# What the keys of lore are found in


def slowly_found(key: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(key)}(?!\w)", text, re.IGNORECASE) is not None


IOTA = "\u0345"  # a mark below a vowel, which a regular expression takes for the letter as well
WILD = "aBbe_-. \n\0é́İıiIſsSKkΣςσµμßẞﬅﬆΐ\u1fd3ΰ\u1fe3Ωωǆǅⓐ1٣²天😀\ud800"
LETTERS = st.sampled_from(WILD) | st.characters(exclude_characters=IOTA)


@given(st.data())
def test_keys_are_found_as_by_a_regular_expression(data: st.DataObject) -> None:
    text = data.draw(st.text(LETTERS, max_size=30))
    start, size = data.draw(st.integers(0, 30)), data.draw(st.integers(1, 5))
    some = st.sampled_from([text[start:][:size], text[start:][:size].swapcase()])
    key = data.draw(some | st.text(LETTERS, max_size=3)) or "a"
    assert StoryEnd(text).has(key) == slowly_found(key, text)


def test_letters_are_alike_where_a_regular_expression_says_so() -> None:
    first = map(chr, range(0x20000))  # no letter behind has two cases
    cased = "".join(c for c in first if c != IOTA and (c.lower() != c or c.upper() != c))
    alike: dict[str, list[str]] = {}
    for letter in cased:
        alike.setdefault(steering_module._folded(letter), []).append(letter)
    for folded, letters in alike.items():
        assert re.findall(folded, cased, re.IGNORECASE) == letters


def test_a_mark_below_a_letter_is_no_letter() -> None:
    assert StoryEnd(f"α{IOTA}").has("Α")
    assert not StoryEnd("αι").has(f"α{IOTA}")


def test_the_end_of_a_story_is_prepared_once_for_all_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[int] = []
    bounded = steering_module._bounded

    def spied(text: str) -> str:
        prepared.append(len(text))
        return bounded(text)

    monkeypatch.setattr(steering_module, "_bounded", spied)
    end = StoryEnd("-" * 4000)
    keys = tuple(f"{'-' * 98}{a}{b}" for a in "天地" for b in "玄黄")
    assert not Lore("x", keys, "told").comes_up_in(end)
    assert prepared == [4000, 100, 100, 100, 100]
