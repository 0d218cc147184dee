"""Chainlit's command line, with our logs before its first import.

The reason it exists: libraries log while they are imported, in a form and a place of their own.
Run as: python -m storygen.begin run app.py ...
"""

import sys

from storygen import logs
from storygen.errors import SettingsError
from storygen.settings import load_settings


def main() -> None:
    """Install the logs that the settings want, then do what `chainlit` does."""
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.exit(str(error))
    logs.install(settings.log, settings.log_level)
    from chainlit.cli import cli

    cli(prog_name="chainlit")


if __name__ == "__main__":
    main()
