"""The sidebar: what it offers, and what is made of what comes back."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.catalogue import ModelInfo
from storygen.chat.controls import (
    BALANCED,
    CONTROLS,
    CUSTOM,
    PRESETS,
    Choices,
    applied,
    first_choices,
    preset_of,
    remembered,
    widgets,
)
from storygen.params import RANGES, SamplingParams


def model(name: str, **more: Any) -> ModelInfo:
    """A model that is nothing but a name."""
    sizes = {"block_size": 64, "n_layer": 1, "n_embd": 8, "vocab_size": 10}
    return ModelInfo(name=name, directory=Path(name), **sizes, **more)


MODELS = [
    model("mystery", display_name="Mystery", suggested={"temperature": 0.7, "top_k": 40}),
    model("fantasy", display_name="Fantasy", suggested={"temperature": 1.1}),
]
NOW = first_choices(MODELS)


def by_id(tabs: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """All widgets of a sidebar by their ids."""
    return {widget["id"]: widget for tab in tabs for widget in tab["inputs"]}


STEERED = {"stop", "banned", "end_at_sentence", "loop_guard"}  # by the story, not the sidebar
FIXED = {"dry_base", "dry_allowed_length"}


def test_every_parameter_has_a_control_or_is_the_storys() -> None:
    assert set(CONTROLS) == {field.name for field in fields(SamplingParams)} - STEERED - FIXED


def test_new_story_starts_with_the_first_model_and_its_suggestions() -> None:
    assert NOW == Choices("mystery", SamplingParams(temperature=0.7, top_k=40))


def test_without_models_the_sidebar_still_opens() -> None:
    assert "model" not in by_id(widgets(first_choices([]), []))


def test_bad_suggestion_does_not_keep_a_model_from_being_used() -> None:
    bad = model("bad", suggested={"temperature": "hot", "top_k": 7, "colour": 1})
    assert first_choices([bad]).params == SamplingParams(top_k=7)


def test_tabs_hold_what_the_writer_needs_first_and_the_rest() -> None:
    story, advanced = widgets(NOW, MODELS)
    assert [w["id"] for w in story["inputs"]] == [
        "model",
        "preset",
        "temperature",
        "top_k",
        "max_new_tokens",
    ]
    assert [w["id"] for w in advanced["inputs"]] == [
        "top_p",
        "min_p",
        "repetition_penalty",
        "frequency_penalty",
        "presence_penalty",
        "dry_multiplier",
        "seed",
    ]
    assert all(w["tooltip"] for tab in (story, advanced) for w in tab["inputs"])
    assert by_id([story])["model"]["items"] == [
        {"label": "Mystery", "value": "mystery"},
        {"label": "Fantasy", "value": "fantasy"},
    ]


def test_sliders_stay_within_what_the_engine_takes() -> None:
    for name, control in CONTROLS.items():
        if name != "seed":
            _, low, high = RANGES[name]
            assert low <= control.low < control.high <= high


def test_models_that_would_read_the_same_are_told_apart() -> None:
    twins = [model("a", display_name="Tales"), model("b", display_name="Tales")]
    labels = [
        item["label"] for item in by_id(widgets(first_choices(twins), twins))["model"]["items"]
    ]
    assert labels == ["Tales (a)", "Tales (b)"]


def test_values_are_taken_at_once() -> None:
    values = {"model": "mystery", "temperature": 1, "top_k": 5, "max_new_tokens": 30, "seed": " 9 "}
    choices, problems = applied(values, NOW, MODELS)
    assert choices.params == SamplingParams(temperature=1.0, top_k=5, max_new_tokens=30, seed=9)
    assert problems == []


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_empty_seed_is_a_new_one_each_time(empty: str | None) -> None:
    now = Choices("mystery", SamplingParams(seed=4))
    assert applied({"seed": empty}, now, MODELS)[0].params.seed is None


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("temperature", 10**18, 2.0),
        ("temperature", -1e308, 0.0),
        ("temperature", 10**400, 2.0),
        ("top_k", -5, 0),
        ("max_new_tokens", 0, 1),
        ("max_new_tokens", 5000, 4096),
        ("top_p", 0, 0.01),
        ("repetition_penalty", 0.5, 1.0),
    ],
)
def test_number_out_of_range_becomes_the_nearest_and_is_told(
    name: str, value: float, taken: float
) -> None:
    choices, problems = applied({name: value}, NOW, MODELS)
    assert getattr(choices.params, name) == taken
    assert len(problems) == 1
    assert CONTROLS[name].label in problems[0]


JUNK = [True, "hot", [], {}, [[1]], float("nan"), float("inf"), "1e999", b"7"]


@pytest.mark.parametrize("name", sorted(CONTROLS))
@pytest.mark.parametrize("junk", JUNK, ids=str)
def test_junk_leaves_the_old_value_and_says_so_in_one_short_sentence(
    name: str, junk: object
) -> None:
    choices, problems = applied({name: junk}, NOW, MODELS)
    assert choices == NOW
    assert len(problems) == 1
    assert len(problems[0]) < 250


def test_megabyte_of_junk_is_not_repeated() -> None:
    for values in ({"seed": "9" * 10**6}, {"x" * 10**6: 1}, {"model": "m" * 10**6}):
        _, problems = applied(values, NOW, MODELS)
        assert len(problems) == 1
        assert len(problems[0]) < 250


@pytest.mark.parametrize("values", ["junk", None, 7, [("temperature", 1)]])
def test_settings_that_are_no_settings_change_nothing(values: object) -> None:
    choices, problems = applied(values, NOW, MODELS)
    assert choices == NOW
    assert len(problems) == 1


@given(
    st.dictionaries(
        st.sampled_from([*CONTROLS, "model", "other"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=2),
            max_leaves=4,
        ),
    )
)
def test_whatever_comes_what_is_kept_can_be_written_with(values: dict[str, Any]) -> None:
    choices, _ = applied(values, NOW, MODELS)
    assert choices.model in {"mystery", "fantasy"}
    assert SamplingParams(**{n: getattr(choices.params, n) for n in CONTROLS}) == choices.params
    assert json.loads(json.dumps(choices.as_settings())) == choices.as_settings()
    assert remembered(choices.as_settings(), MODELS) == choices


def test_unknown_model_is_refused() -> None:
    choices, problems = applied({"model": "../etc"}, NOW, MODELS)
    assert choices == NOW
    assert "There is no model" in problems[0]


def test_new_model_brings_its_suggestions_where_the_writer_chose_nothing() -> None:
    mine = replace(NOW, params=replace(NOW.params, top_k=99))
    choices, _ = applied({"model": "fantasy"}, mine, MODELS)
    assert choices.params.temperature == 1.1  # followed the model
    assert choices.params.top_k == 99  # the writer's own


def test_story_whose_model_is_gone_opens_with_another() -> None:
    settings = Choices("lost", SamplingParams(temperature=1.5)).as_settings()
    choices = remembered(settings, MODELS)
    assert choices.model == "mystery"
    assert choices.params.temperature == 1.5


# Presets


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_all_but_length_and_seed_and_is_known_again(name: str) -> None:
    mine = replace(NOW.params, max_new_tokens=70, seed=5, dry_multiplier=1.0, top_p=0.5)
    choices, problems = applied({"preset": name}, Choices("mystery", mine), MODELS)
    assert problems == []
    assert (choices.params.max_new_tokens, choices.params.seed) == (70, 5)
    assert choices.params.dry_multiplier == 0
    assert preset_of(choices, MODELS) == name
    assert by_id(widgets(choices, MODELS))["preset"]["initial"] == name


def test_a_number_moved_away_from_its_preset_is_the_writers_own() -> None:
    whole_form = {"preset": BALANCED, **NOW.as_settings(), "temperature": 0.9}
    choices, _ = applied(whole_form, NOW, MODELS)
    assert choices.params.temperature == 0.9
    assert preset_of(choices, MODELS) == CUSTOM


def test_balanced_is_what_the_model_suggests() -> None:
    assert preset_of(NOW, MODELS) == BALANCED
    other, _ = applied({"model": "fantasy"}, NOW, MODELS)
    assert preset_of(other, MODELS) == BALANCED
    assert other.params.temperature == 1.1


@pytest.mark.parametrize("value", ["", None, 5, [], {}, "cold", CUSTOM])
def test_no_preset_of_this_name_changes_nothing(value: object) -> None:
    assert applied({"preset": value}, NOW, MODELS)[0] == NOW
