"""What one can do at the end of a story: as buttons under its last passage, and by typing a slash.

A button carries the end it was made for, so that one left over from an earlier moment can tell.
"""

from collections.abc import Sequence

import chainlit as cl
from chainlit.types import CommandDict

from storygen.chat.guards import is_uuid
from storygen.errors import StoryError
from storygen.story.tree import Passage

CONTINUE, VERSIONS, RETRY, WARMER = "continue", "versions", "retry", "warmer"
UNDO, REDO, COPY = "undo", "redo", "copy"

# name: (label, icon, tooltip)
_LOOKS = {
    CONTINUE: ("Continue", "feather", "Let the model write on from here"),
    VERSIONS: ("Three ways", "columns-3", "Let the model go on in three ways, and pick one"),
    RETRY: ("Retry", "rotate-cw", "Have this passage written anew; Undo brings this one back"),
    WARMER: ("Retry warmer", "flame", "Have it written anew, more daringly this once"),
    UNDO: ("Undo", "undo-2", "Back to the story as it was before this step"),
    REDO: ("Redo", "redo-2", "Forward again"),
    COPY: ("Copy", "copy", "Copy this passage"),
}
TITLE = "title"
_TITLE = ("Title", "heading", "What the film is called, for models that begin with a title")


def buttons(branch: Sequence[Passage], *, can_redo: bool) -> list[cl.Action]:
    """What can be done at the end of this branch."""
    ends_with_model = bool(branch) and branch[-1].role == "model"
    is_offered = {
        CONTINUE: bool(branch),
        VERSIONS: bool(branch),
        RETRY: ends_with_model,
        WARMER: ends_with_model and branch[-1].finish_reason == "loop",
        UNDO: bool(branch),
        REDO: can_redo,
        COPY: ends_with_model,
    }
    head_id = branch[-1].id if branch else ""
    return [_button(name, head_id) for name, offered in is_offered.items() if offered]


def commands() -> list[CommandDict]:
    """The same, but for Copy, for those who would rather type: /continue. And /title WORDS."""
    typed = {name: look for name, look in _LOOKS.items() if name != COPY} | {TITLE: _TITLE}
    return [
        CommandDict(
            id=name, description=tooltip, icon=icon, button=False, persistent=False, selected=False
        )
        for name, (_, icon, tooltip) in typed.items()
    ]


def head_of(action: cl.Action) -> str:
    """The end of the story a button was made for; raises StoryError for one the page never had."""
    head_id = action.payload.get("head")
    if head_id == "" or is_uuid(head_id):
        return str(head_id)
    raise StoryError("This button could not be read; reload the page.")


def _button(name: str, head_id: str) -> cl.Action:
    label, icon, tooltip = _LOOKS[name]
    return cl.Action(
        id=f"{name}-{head_id}",  # public/storygen.js finds Copy by it
        name=name,
        payload={"head": head_id},
        label=label,
        icon=icon,
        tooltip=tooltip,
    )
