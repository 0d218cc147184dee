"""Start the page: read the settings, check port and data directory, then become Chainlit's server.

The reason it exists: Chainlit ends with exit code 0 when its port is taken, and wants to write
beside its configuration, which a read-only container does not allow.
"""

import os
import shutil
import socket
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from storygen.errors import SettingsError, StorygenError
from storygen.settings import ROOT, load_settings

# Chainlit takes these common names for options of its own; DEBUG=app:* would end it.
CHAINLIT_SWITCHES = {"CI", "DEBUG", "HEADLESS", "NO_CACHE", "WATCH"}


def require_free_port(host: str, port: int) -> None:
    """Raise SettingsError unless every address of host can be listened on at port."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, _, _, _, address in addresses:
            socket.create_server(address[:2], family=family).close()
    except OSError as error:
        raise SettingsError(
            f"The page cannot be served on port {port} of {host}: "
            f"{os.strerror(error.errno or 0)}. Close the program that has the port, or choose "
            "another with STORYGEN_PORT."
        ) from error


def sole_use(directory: Path) -> FileLock:
    """Have the directory to ourselves until the lock is released or the process ends, however.

    Raises SettingsError when another process has it: each takes passages that are being written
    for cut off by a crash, and would end those of the other. A second call in one process has the
    same lock.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / "in-use"
        lock = FileLock(path, blocking=False, is_singleton=True, fallback_to_soft=False)
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
        page = ROOT
        lock = sole_use(settings.data_dir)
        if not os.access(ROOT, os.W_OK):
            page = settings.data_dir / "page"
            copy_page(ROOT, page)
        lock.release()  # for the server, which takes it again
    except StorygenError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    command = [sys.executable, "-m", "chainlit", "run", str(ROOT / "app.py"), "--headless"]
    command += ["--host", settings.host, "--port", str(settings.port)]
    env = {name: value for name, value in os.environ.items() if name not in CHAINLIT_SWITCHES}
    os.execve(sys.executable, command, env | {"CHAINLIT_APP_ROOT": str(page)})


if __name__ == "__main__":
    sys.exit(main())
