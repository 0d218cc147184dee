"""The sidebar: what a writer can set, in a writer's words, and how a value from outside is taken.

The browser may send anything. A number outside its range becomes the nearest inside, and anything
that is no such value leaves the old one; both are said in one sentence.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from chainlit.input_widget import InputWidget, Select, Slider, Tab, TextInput

from storygen.catalogue import ModelInfo
from storygen.errors import ParamsError
from storygen.params import RANGES, SamplingParams, checked


@dataclass(frozen=True)
class Choices:
    """What the writer has set: a model by its name, and how it writes."""

    model: str
    params: SamplingParams

    def as_settings(self) -> dict[str, Any]:
        """The form in which a story remembers them."""
        numbers = {name: getattr(self.params, name) for name in CONTROLS}
        return {"model": self.model, **numbers}


@dataclass(frozen=True)
class Control:
    """How one sampling parameter appears. The slider spans what is useful, not all RANGES allow."""

    label: str
    tooltip: str
    low: float = 0
    high: float = 0
    step: float = 1


CONTROLS: dict[str, Control] = {
    "temperature": Control(
        "Temperature",
        "How daring the wording is. Low stays with the likeliest words, high surprises and "
        "stumbles more often. 0 always takes the likeliest.",
        high=2,
        step=0.05,
    ),
    "top_k": Control(
        "Top-k",
        "Each word is chosen among this many of the likeliest. Fewer is safer. 0: among all.",
        high=200,
    ),
    "max_new_tokens": Control(
        "Maximum length",
        "Where a passage ends at the latest, in tokens: short words and pieces of longer ones.",
        low=10,
        high=1000,
        step=10,
    ),
    "top_p": Control(
        "Top-p",
        "Leaves out the unlikely words that together make up the rest to 1. 1: leaves out none.",
        low=0.05,
        high=1,
        step=0.05,
    ),
    "min_p": Control(
        "Min-p",
        "Leaves out words less likely than this share of the likeliest. 0: leaves out none.",
        high=1,
        step=0.01,
    ),
    "repetition_penalty": Control(
        "Repetition penalty",
        "Holds back words that were just used. 1: not at all; above 1.3 the prose gets odd.",
        low=1,
        high=2,
        step=0.05,
    ),
    "frequency_penalty": Control(
        "Frequency penalty",
        "Holds back words the more, the more often the model has used them in this passage's view.",
        high=2,
        step=0.05,
    ),
    "presence_penalty": Control(
        "Presence penalty",
        "Holds back words the model has used at all, however often: new ones come sooner.",
        high=2,
        step=0.05,
    ),
    "dry_multiplier": Control(
        "DRY",
        "Keeps the model from writing out again a whole phrase that has just stood there. 0: off; "
        "0.8 is a good first try.",
        high=2,
        step=0.1,
    ),
    "seed": Control(
        "Seed",
        "The same text, settings and seed give the same passage again. Empty: a new one each time.",
    ),
}
STORY_TAB = ("temperature", "top_k", "max_new_tokens")
ADVANCED_TAB = (
    "top_p",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "dry_multiplier",
    "seed",
)

BALANCED, CUSTOM = "balanced", "custom"
# What each preset changes; the rest is as the model suggests, or off.
PRESETS: dict[str, dict[str, float]] = {
    "steady": {"temperature": 0.6, "top_k": 30, "top_p": 0.9},
    BALANCED: {},
    "daring": {"temperature": 1.1, "top_k": 0, "min_p": 0.05},
    "unfiltered": {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
}
_PRESET_LABELS = {
    "Steady: the likeliest words": "steady",
    "Balanced: as the model suggests": BALANCED,
    "Daring: rarer words, no nonsense": "daring",
    "Unfiltered: all that the model might say": "unfiltered",
    "My own": CUSTOM,
}
_KEPT = ("max_new_tokens", "seed")  # no preset touches these

LOWEST_TOP_P = 0.01  # 0 would leave no word at all, and SamplingParams refuses it


def first_choices(models: Sequence[ModelInfo]) -> Choices:
    """What a new story starts with: the first model and what it suggests."""
    return (
        Choices(models[0].name, suggested(models[0])) if models else Choices("", SamplingParams())
    )


def suggested(model: ModelInfo) -> SamplingParams:
    """A model's own suggestions, where they are usable, over the defaults."""
    params = SamplingParams()
    for name, value in model.suggested.items():
        if name in CONTROLS:
            try:
                params = _with(params, {name: value})
            except ParamsError:
                continue  # a model folder with a bad suggestion can still be written with
    return params


def preset_params(name: str, choices: Choices, models: Sequence[ModelInfo]) -> SamplingParams:
    """The parameters of a preset for the chosen model."""
    by_name = {model.name: model for model in models}
    base = suggested(by_name[choices.model]) if choices.model in by_name else SamplingParams()
    kept = {name: getattr(choices.params, name) for name in _KEPT}
    return _with(base, PRESETS[name] | kept)


def preset_of(choices: Choices, models: Sequence[ModelInfo]) -> str:
    """The preset that the parameters are those of; the writer's own where they are of none."""
    matching = (p for p in PRESETS if preset_params(p, choices, models) == choices.params)
    return next(matching, CUSTOM)


def remembered(settings: Mapping[str, Any], models: Sequence[ModelInfo]) -> Choices:
    """The choices a story remembers, as far as they still make sense."""
    known = {name: value for name, value in settings.items() if name in {"model", *CONTROLS}}
    return applied(known, first_choices(models), models)[0]


def applied(values: object, now: Choices, models: Sequence[ModelInfo]) -> tuple[Choices, list[str]]:
    """The choices after `values` came from a browser, and what to tell the writer about them."""
    if not isinstance(values, Mapping):
        return now, ["These settings could not be read; everything is as it was."]
    problems: list[str] = []
    params = now.params
    for name, value in values.items():
        if name in ("model", "preset"):
            continue
        if name not in CONTROLS:
            problems.append(f"There is no setting called {str(name)[:40]!r}.")
            continue
        try:
            taken, problem = _taken(name, value)
            params = _with(params, {name: taken})
        except ParamsError as error:
            problem = f"{CONTROLS[name].label} stays as it was: {error}"
        if problem:
            problems.append(problem)
    choices, problem = _with_model(Choices(now.model, params), values.get("model"), models)
    preset = values.get("preset", CUSTOM)
    if isinstance(preset, str) and preset in PRESETS and preset != preset_of(now, models):
        choices = Choices(choices.model, preset_params(preset, choices, models))
    return choices, problems + ([problem] if problem else [])


def widgets(choices: Choices, models: Sequence[ModelInfo]) -> list[dict[str, Any]]:
    """The sidebar's two tabs, as the page reads them."""
    genre: list[InputWidget] = []
    if models:
        genre.append(
            Select(
                id="model",
                label="Genre model",
                items=_display_names(models),
                initial_value=choices.model,
                tooltip="Which model continues the story. You can change it at any point.",
            )
        )
    preset = Select(
        id="preset",
        label="Style",
        items=_PRESET_LABELS,
        initial_value=preset_of(choices, models),
        tooltip="Sets temperature and all the rest at once. Move any of them and it is your own.",
    )
    story = [*genre, preset, *(_widget(name, choices.params) for name in STORY_TAB)]
    advanced = [_widget(name, choices.params) for name in ADVANCED_TAB]
    tabs = Tab(id="story", label="Story", inputs=story), Tab("advanced", "Advanced", advanced)
    return [tab.to_dict() for tab in tabs]


def _widget(name: str, params: SamplingParams) -> InputWidget:
    control, value = CONTROLS[name], getattr(params, name)
    if name == "seed":
        text = "" if value is None else str(value)
        return TextInput(
            id=name,
            label=control.label,
            initial=text,
            tooltip=control.tooltip,
            placeholder="new each time",
        )
    return Slider(
        id=name,
        label=control.label,
        initial=value,
        min=control.low,
        max=max(control.high, value),
        step=control.step,
        tooltip=control.tooltip,
    )


def _display_names(models: Sequence[ModelInfo]) -> dict[str, str]:
    """Model names by what a writer reads; the name itself where two would read the same."""
    labels = [model.display_name or model.name for model in models]
    return {
        label if labels.count(label) == 1 else f"{label} ({model.name})": model.name
        for label, model in zip(labels, models, strict=True)
    }


def _with_model(
    choices: Choices, name: object, models: Sequence[ModelInfo]
) -> tuple[Choices, str | None]:
    """The choices with another model; what the writer left as it was follows its suggestions."""
    by_name = {model.name: model for model in models}
    if name is None or name == choices.model:
        return choices, None
    if not isinstance(name, str) or name not in by_name:
        return choices, f"There is no model {str(name)[:40]!r} any more; it was not changed."
    before = suggested(by_name[choices.model]) if choices.model in by_name else SamplingParams()
    after = suggested(by_name[name])
    untouched = [n for n in CONTROLS if getattr(choices.params, n) == getattr(before, n)]
    params = _with(choices.params, {n: getattr(after, n) for n in untouched})
    return Choices(name, params), None


def _with(params: SamplingParams, values: dict[str, Any]) -> SamplingParams:
    """Other values, which SamplingParams checks."""
    return replace(params, **values)


def _taken(name: str, value: object) -> tuple[int | float | None, str | None]:
    """A value as its parameter takes it, and a sentence if it had to be changed.

    Raises ParamsError for what is no number at all.
    """
    if name == "seed":
        return _seed(value), None
    _, low, high = RANGES[name]
    low = LOWEST_TOP_P if name == "top_p" else low
    if not _is_number(value) or low <= value <= high:
        return checked(name, value), None
    nearest = low if value < low else high
    label = CONTROLS[name].label
    return checked(name, nearest), f"{label} goes from {low:g} to {high:g}; it is now {nearest:g}."


def _is_number(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _seed(value: object) -> int | float | None:
    """A seed as typed; nothing typed means a new one each time."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, str) and len(value) < 30 and value.strip().isdecimal():
        return checked("seed", int(value))
    return checked("seed", value)
