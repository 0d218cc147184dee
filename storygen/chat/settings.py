"""Settings as they are moved: taken at once, remembered with the story, shown wherever they are."""

import asyncio

from storygen.chat.controls import applied, preset_of, widgets
from storygen.chat.state import Chat, Studio

REST = 0.6  # seconds


async def apply_settings(
    studio: Studio, chat: Chat, values: object, *, redraw: bool = False
) -> None:
    """Take what the sidebar or the workspace sends, at once; say what could not be taken; remember
    the rest. redraw shows the sidebar anew whatever came of it."""
    models = studio.engine.models()
    before = chat.choices
    chat.choices, problems = applied(values, before, models)
    if problems and problems[0] != chat.told_setting:
        more = f" (and {len(problems) - 1} more like this)" if problems[1:] else ""
        await chat.screen.toast(problems[0] + more, "warning")
    chat.told_setting = problems[0] if problems else ""
    if redraw or problems or chat.choices.model != before.model:
        await chat.screen.settings(widgets(chat.choices, models))
    elif preset_of(chat.choices, models) != preset_of(before, models):
        chat.start(_show_at_rest(studio, chat))
    if chat.is_stored and chat.choices != before:
        settings = chat.choices.as_settings()
        await studio.store.update_settings(chat.owner, chat.story_id, settings)
    await chat.screen.tell(settings=told(studio, chat))


async def _show_at_rest(studio: Studio, chat: Chat) -> None:
    """Show which preset the settings are of now, once a slider lies still: shown while it moves, it
    would jump back."""
    seen = None
    while seen != chat.choices:
        seen = chat.choices
        await asyncio.sleep(REST)
    await chat.screen.settings(widgets(chat.choices, studio.engine.models()))


def told(studio: Studio, chat: Chat) -> dict[str, object]:
    """The settings as the workspace shows them."""
    models = studio.engine.models()
    names = {model.name: model.display_name for model in models}
    return chat.choices.as_settings() | {
        "model_name": names.get(chat.choices.model, chat.choices.model),
        "preset": preset_of(chat.choices, models),
    }
