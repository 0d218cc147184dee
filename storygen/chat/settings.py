"""Settings as they are moved: taken at once, remembered with the story, shown wherever they are."""

from collections.abc import Mapping

from storygen.chat.controls import applied, preset_of, widgets
from storygen.chat.state import Chat, Studio


async def apply_settings(studio: Studio, chat: Chat, values: object) -> None:
    """Take what the sidebar or the workspace sends, at once; say what could not be taken; remember
    the rest.

    The sidebar sends its whole form, whose preset stays what it was while a slider moves: only one
    that was chosen since the form was shown counts. The form is shown anew where more changed than
    was moved, and not for a slider that leaves its preset: it would jump back.
    """
    models = studio.models(chat.owner)
    before = chat.choices
    if isinstance(values, Mapping) and values.get("preset") == chat.shown_preset:
        values = {name: value for name, value in values.items() if name != "preset"}
    chat.choices, problems = applied(values, before, models)
    if problems and problems[0] != chat.told_setting:
        more = f" (and {len(problems) - 1} more like this)" if problems[1:] else ""
        await chat.screen.toast(problems[0] + more, "warning")
    chat.told_setting = problems[0] if problems else ""
    is_preset = isinstance(values, Mapping) and "preset" in values
    if problems or is_preset or chat.choices.model != before.model:
        await show_settings(studio, chat)
    if chat.is_stored and chat.choices != before:
        settings = chat.choices.as_settings()
        await studio.store.update_settings(chat.owner, chat.story_id, settings)
    await chat.screen.tell(settings=told(studio, chat))


async def show_settings(studio: Studio, chat: Chat) -> None:
    """Fill the sidebar."""
    models = studio.models(chat.owner)
    chat.shown_preset = preset_of(chat.choices, models)
    await chat.screen.settings(widgets(chat.choices, models))


def told(studio: Studio, chat: Chat) -> dict[str, object]:
    """The settings as the workspace shows them."""
    models = studio.models(chat.owner)
    names = {model.name: model.display_name for model in models}
    return chat.choices.as_settings() | {
        "model_name": names.get(chat.choices.model, chat.choices.model),
        "preset": preset_of(chat.choices, models),
    }
