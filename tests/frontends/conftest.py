"""Two chats over one PostgreSQL behind nginx with the file that is shipped, all of them real."""

import asyncio
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from storygen.accounts.users import Users
from storygen.story.database import Database
from tests.protocol.conftest import FAKE, PATIENCE, ROOT, STARTING, environment, free_port, get
from tests.story import postgres
from tests.story.conftest import postgresql  # noqa: F401 - a fixture

NAME, PASSWORD = "ada", "rope lantern otter"
UPSTREAM = "X-Chat"  # where the tests are told who answered


@dataclass
class Chat:
    """One chat, which is started again at the same port."""

    port: int
    data: Path
    database_url: str
    origin: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it answers."""
        self.data.mkdir(exist_ok=True)
        chosen = environment(
            self.data,
            STORYGEN_DATABASE_URL=self.database_url,
            STORYGEN_AUTH="password",
            STORYGEN_TRUSTED_PROXIES="127.0.0.1",
            STORYGEN_ALLOW_ORIGINS=self.origin,
        )
        command = [part.format(port=self.port) for part in FAKE]
        log = self.data / "server.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=chosen, stdout=output, stderr=output
            )
        deadline = time.monotonic() + STARTING
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                get(f"{self.url}/health")
                return
            except httpx.TransportError:
                time.sleep(0.1)
        self.process.kill()
        raise AssertionError(f"The chat did not start:\n{log.read_text()}")

    def kill(self) -> None:
        """End it without a word."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """End it in order, if it still runs."""
        if self.process is not None:
            self.process.terminate()
            assert self.process.wait(PATIENCE) == 0


@dataclass
class Town:
    """Everything that runs; url is the proxy's, the only one that browsers know."""

    url: str
    chats: list[Chat]

    def at(self, headers: dict[str, str] | None = None) -> Chat:
        """The chat that answers a browser."""
        told = get(f"{self.url}/auth/config", headers=headers).headers[UPSTREAM]
        port = int(told.split(",")[-1].rpartition(":")[2])  # the last one asked
        (chat,) = (chat for chat in self.chats if chat.port == port)
        return chat

    def browser_of(self, chat: Chat) -> str:
        """The cookie of a browser that the proxy sends to this chat."""
        while True:
            cookie = f"storygen_browser={uuid4().hex}"
            if self.at({"Cookie": cookie}) is chat:
                return cookie

    def until_at(self, chat: Chat, cookie: str) -> None:
        """Wait until this chat answers a browser."""
        while self.at({"Cookie": cookie}) is not chat:
            time.sleep(0.1)

    def other(self, chat: Chat) -> Chat:
        """The one that is not this one."""
        (other,) = (one for one in self.chats if one is not chat)
        return other

    def sign_in(self) -> str:
        """The cookie of a browser in which Ada has signed in, through the proxy."""
        fields = {"name": NAME, "password": PASSWORD}
        origin = {"Origin": self.url}
        answer = httpx.post(f"{self.url}/login", data=fields, headers=origin, timeout=PATIENCE)
        assert answer.status_code == 303, answer.text
        return f"storygen_sign_in={answer.cookies['storygen_sign_in']}"


def configuration(port: int, chats: list[int], folder: Path) -> str:
    """The shipped file with ports and places of a test, and with a header that says who answers."""
    text = (ROOT / "deploy/nginx.conf").read_text().replace("/tmp/", f"{folder}/")
    for number, chat in enumerate(chats, 1):
        text, count = re.subn(rf"\bchat-{number}:8000\b", f"127.0.0.1:{chat}", text)
        assert count == 2
    introduction = "add_header Set-Cookie $introduction always;"
    changes = {
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "worker_processes auto;": "worker_processes 1;",
        "error_log stderr warn;": f"error_log {folder}/error.log warn;",
        introduction: f"{introduction} add_header {UPSTREAM} $upstream_addr always;",
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextmanager
def proxying(port: int, chats: list[int], folder: Path) -> Iterator[str]:
    """nginx for as long as the block takes; its address."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if nginx is None and not os.environ.get("CI"):
        pytest.skip("There is no nginx here. On Debian: apt install nginx-light")
    assert nginx is not None, "CI must have nginx"
    file = folder / "nginx.conf"
    file.write_text(configuration(port, chats, folder))
    switches = "daemon off;" + (" user root;" if os.geteuid() == 0 else "")
    command = [nginx, "-c", str(file), "-e", str(folder / "error.log"), "-g", switches]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + STARTING
        while process.poll() is None and time.monotonic() < deadline:
            try:
                get(url)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        assert process.poll() is None, (folder / "error.log").read_text()
        yield url
    finally:
        process.terminate()
        process.wait()


async def make_accounts(database_url: str) -> None:
    database = await Database.open(database_url)
    await Users(database).add(NAME, PASSWORD)
    await database.close()


@pytest.fixture(scope="session")
def town(
    tmp_path_factory: pytest.TempPathFactory,
    postgresql: postgres.Server,  # noqa: F811 - the fixture above
) -> Iterator[Town]:
    """Everything, started once. A test that ends a chat starts it again."""
    database_url, folder = postgresql.new_database(), tmp_path_factory.mktemp("town")
    with ThreadPoolExecutor(1) as pool:  # a browser's tests have a loop of their own here
        pool.submit(asyncio.run, make_accounts(database_url)).result()
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    chats = [Chat(free_port(), folder / f"chat-{n}", database_url, origin) for n in (1, 2)]
    with proxying(port, [chat.port for chat in chats], folder) as url:
        with ThreadPoolExecutor() as pool:
            list(pool.map(Chat.start, chats))
        yield Town(url, chats)
        for chat in chats:
            chat.stop()
