"""Start the page: read the settings, check port and data directory, then become Chainlit's server.

The reason it exists: Chainlit ends with exit code 0 when its port is taken, and wants to write
beside its configuration, which a read-only container does not allow.
"""

import asyncio
import os
import shutil
import socket
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from storygen.catalogue import Catalogue
from storygen.errors import DatabaseError, SettingsError, StorygenError
from storygen.settings import ROOT, Settings, load_settings

DATABASE_SECONDS = 3.0  # it may take to answer; whoever starts the page waits for this
# Chainlit takes these common names for options of its own; DEBUG=app:* would end it.
CHAINLIT_SWITCHES = {"CI", "DEBUG", "HEADLESS", "NO_CACHE", "WATCH"}


def require_free_port(host: str, port: int, chosen_with: str = "STORYGEN_PORT") -> None:
    """Raise SettingsError unless every address of host can be listened on at port."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, _, _, _, address in addresses:
            socket.create_server(address[:2], family=family).close()
    except OSError as error:
        raise SettingsError(
            f"storygen cannot be served on port {port} of {host}: "
            f"{os.strerror(error.errno or 0)}. Close the program that has the port, or choose "
            f"another with {chosen_with}."
        ) from error


def sole_use(directory: Path) -> FileLock:
    """Have the directory to ourselves until the lock is released or the process ends, however.

    Raises SettingsError when another process has it: each takes passages that are being written
    for cut off by a crash, and would end those of the other. A second call in one process has the
    same lock.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / "in-use"
        lock = FileLock(path, mode=0o600, blocking=False, is_singleton=True, fallback_to_soft=False)
        lock.acquire()
    except Timeout as error:
        raise SettingsError(
            f"The stories in {directory} are in use by another storygen. Go to its page, close it, "
            "or choose another directory with STORYGEN_DATA_DIR."
        ) from error
    except OSError as error:
        raise SettingsError(
            f"{directory} cannot be used: {error.strerror}. Stories are kept there; "
            "choose another directory with STORYGEN_DATA_DIR."
        ) from error
    return lock


def require_models(settings: Settings) -> None:
    """Raise SettingsError when a folder or a model was chosen that is not there; where a server
    has the models, none need be here."""
    if settings.engine_url:
        return
    chosen = settings.model_fields_set
    if "weights_dir" in chosen and not settings.weights_dir.is_dir():
        raise SettingsError(
            f"STORYGEN_WEIGHTS_DIR={str(settings.weights_dir)!r} is no directory. Name the one "
            "whose directories are models, such as weights."
        )
    names = [info.name for info in Catalogue(settings.weights_dir).models()]
    if "first_model" in chosen and settings.first_model not in names:
        raise SettingsError(
            f"STORYGEN_FIRST_MODEL={settings.first_model!r} is no model in "
            f"{settings.weights_dir}. Models there: {', '.join(names) or 'none'}."
        )


def require_database(url: str) -> None:
    """Raise StoryError or DatabaseError, each a sentence, when no database answers at url."""
    from storygen.story.database import Database  # half a second: not where SQLite is used

    async def ask() -> None:
        database = Database.as_it_is(url)
        try:
            async with asyncio.timeout(DATABASE_SECONDS), database.read() as connection:
                await connection.exec_driver_sql("SELECT 1")
        except TimeoutError:
            raise DatabaseError(
                f"{database.place} did not answer within {DATABASE_SECONDS:g} seconds. See whether "
                "its server runs and can be reached, or correct STORYGEN_DATABASE_URL."
            ) from None
        finally:
            await database.close()

    asyncio.run(ask())


def copy_page(root: Path, copy: Path) -> None:
    """Put what Chainlit reads from its app root (config, theme, welcome page) into copy, anew.

    Raises SettingsError when copy cannot be written.
    """
    try:
        shutil.rmtree(copy, ignore_errors=True)
        for name in (".chainlit", "public"):
            shutil.copytree(root / name, copy / name)
        for page in root.glob("chainlit*.md"):
            shutil.copy(page, copy)
    except OSError as error:
        raise SettingsError(
            f"The page's files cannot be copied to {copy}: {error}. "
            "Choose another directory with STORYGEN_DATA_DIR."
        ) from error


def main() -> int:
    """Replace this process by Chainlit's server; returns 1, with a sentence, when it cannot."""
    try:
        settings = load_settings()
        require_free_port(settings.host, settings.port)
        require_models(settings)
        page = ROOT
        lock = sole_use(settings.data_dir)
        if settings.database_url:
            require_database(settings.store_url)
        if not os.access(ROOT, os.W_OK):
            page = settings.data_dir / "page"
            copy_page(ROOT, page)
        lock.release()  # for the server, which takes it again
    except StorygenError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    command = [sys.executable, "-m", "storygen.begin", "run", str(ROOT / "app.py"), "--headless"]
    command += ["--host", settings.host, "--port", str(settings.port)]
    env = {name: value for name, value in os.environ.items() if name not in CHAINLIT_SWITCHES}
    os.execve(sys.executable, command, env | {"CHAINLIT_APP_ROOT": str(page)})


if __name__ == "__main__":
    sys.exit(main())
