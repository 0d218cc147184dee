"""What can go wrong for a reason the reader can act on.

StorygenError
├── AccountError       an account that cannot be made, found or changed
├── CheckpointError    a model directory that cannot be read or trusted
├── ModelNotFoundError a model name that is not in the catalogue
├── ParamsError        a sampling parameter outside its range
├── PromptError        a prompt that cannot be continued
├── EngineError        generation that could not start or finish
│   ├── BusyError      the queue is full
│   └── QuotaError     a user's tokens are used up
├── SettingsError      a setting that cannot be used
├── StoryError         a story, passage or draft that cannot be found or stored
│   ├── NoStoryError   a story that is not there, or is somebody else's
│   └── DatabaseError  the story database cannot be used just now
└── TrainError         a recipe, corpus or run that cannot go on

Each message is one sentence for a person: the value, the place, the way out. The chat shows it,
a command prints it on standard error and exits with 1. Mistakes of our own are asserts instead.
"""


class StorygenError(Exception):
    """Base of every error whose message is meant for the reader."""


class AccountError(StorygenError):
    """An account cannot be made, found or changed, or nobody can sign in now."""


class CheckpointError(StorygenError):
    """A model directory is missing, damaged or not what it says it is."""


class ModelNotFoundError(StorygenError):
    """No model of this name is in the catalogue."""


class ParamsError(StorygenError):
    """A sampling parameter is of the wrong kind or out of range."""


class PromptError(StorygenError):
    """The prompt is empty or too long to be read."""


class EngineError(StorygenError):
    """Generation could not start or could not finish."""


class BusyError(EngineError):
    """Every slot is taken and the queue is full."""


class QuotaError(EngineError):
    """A user was written all the tokens that are theirs for now."""


class SettingsError(StorygenError):
    """A setting from the environment or .env cannot be used."""


class StoryError(StorygenError):
    """A story, passage or draft cannot be found, changed or stored."""


class NoStoryError(StoryError):
    """There is no such story, or it was deleted, or it is somebody else's."""


class DatabaseError(StoryError):
    """The story database cannot be used just now; nothing was changed."""


class TrainError(StorygenError):
    """A recipe, a corpus or a run cannot be used as it is."""
