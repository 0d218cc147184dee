"""The real page in a process of its own, and socket clients that behave like browsers, or not.

TEST_ENGINE has the pages of all these tests, and of those in a browser, write elsewhere:

    server   each with the same engine behind `python -m storygen serve`
    ray      the same; where the real models write, they do under Ray Serve
    http://  at this address, whatever models there are; tests marked `own_words` are skipped
"""

import asyncio
import html
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import socketio

ROOT = Path(__file__).resolve().parents[2]
# Seconds that a busy machine may take to answer, and to start; no test waits so long to pass.
PATIENCE, STARTING = 180, 600

get, post = partial(httpx.get, timeout=PATIENCE), partial(httpx.post, timeout=PATIENCE)


class Server:
    """A running page."""

    engine: "Server | None" = None  # that it writes with, if it is elsewhere

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path, data: Path) -> None:
        self.process, self.port, self.log, self.data = process, port, log, data
        self.url = f"http://127.0.0.1:{port}"

    @property
    def cookie(self) -> str:
        """What the page gives every browser that opens it."""
        return f"access_token={get(self.url).cookies['access_token']}"

    @property
    def memory(self) -> float:
        """MB that it has."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1000

    def stop(self) -> int:
        """End it as a service manager does; the exit code."""
        self.process.terminate()
        code = self.process.wait(timeout=PATIENCE)
        self.end_engine()
        return code

    def end_engine(self) -> None:
        """End the one that it wrote with, if it has not ended."""
        if self.engine is not None and self.engine.process.poll() is None:
            self.engine.stop()

    def said(self) -> str:
        """The log, and that of its engine."""
        return self.log.read_text() + (self.engine.said() if self.engine else "")


def errors_in(log: str) -> list[str]:
    """The lines by which a server tells of errors that nobody foresaw: ours and those of libraries,
    which are records of level ERROR, and tracebacks of what came before our logs were there."""
    return re.findall(r"^(?:\S+ (?:ERROR|CRITICAL) .*|.*Traceback .*)$", log, re.MULTILINE)


def free_port() -> int:
    """A port that nobody has, nor was given before: it may not be in use yet."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        if port not in GIVEN:
            GIVEN.add(port)
            return port


def environment(data: Path, **more: str) -> dict[str, str]:
    """The environment of a page whose stories are kept in data, whatever a .env here says."""
    # Chainlit takes these names for options of its own.
    kept = {k: v for k, v in os.environ.items() if k not in {"CI", "DEBUG", "WATCH", "HEADLESS"}}
    kept |= {"CHAINLIT_APP_ROOT": str(ROOT), "PYTHONPATH": str(ROOT)}
    kept |= {"STORYGEN_DATA_DIR": str(data), "STORYGEN_DATABASE_URL": ""}
    return kept | {"STORYGEN_ALLOW_EXPOSED": "false", "STORYGEN_ALLOW_ORIGINS": ""} | more


def serve(data: Path, command: list[str] | None = None, **more: str) -> Server:
    """Start the page and wait until it answers; data is made if it is missing."""
    if ELSEWHERE.startswith("http"):
        more = {"STORYGEN_ENGINE_URL": ELSEWHERE} | more
    elif ELSEWHERE and "STORYGEN_ENGINE_URL" not in more:
        return serve_with_engine(data, command, **more)
    return _started(data, command or FAKE, **more)


def serve_with_engine(data: Path, command: list[str] | None = None, **more: str) -> Server:
    """The same with its engine in a server of its own."""
    for ended in (page for page in SERVED if page.process.poll() is not None):
        ended.end_engine()
    alone = more | {"STORYGEN_AUTH": "none"}
    engine = _started(data, engine_of(command or FAKE), "engine.log", **alone)
    try:
        server = _started(data, command or FAKE, **more | {"STORYGEN_ENGINE_URL": engine.url})
    except BaseException:
        engine.stop()
        raise
    server.engine = engine
    SERVED.append(server)
    return server


def _started(data: Path, command: list[str], name: str = "server.log", **more: str) -> Server:
    """A server that answers."""
    port = free_port()
    data.mkdir(parents=True, exist_ok=True)
    log = data / name
    arguments = [part.format(port=port) for part in command]
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments, cwd=ROOT, env=environment(data, **more), stdout=output, stderr=output
        )
    server = Server(process, port, log, data)
    deadline = time.monotonic() + STARTING
    while time.monotonic() < deadline and process.poll() is None:
        try:
            get(f"{server.url}/health")
            return server
        except httpx.TransportError:
            time.sleep(0.1)
    process.kill()
    raise AssertionError(f"The page did not start:\n{log.read_text()}")


def engine_of(command: list[str]) -> list[str]:
    """The command that serves what a page would have written with."""
    ray = ["--ray"] if ELSEWHERE == "ray" else []
    if command == REAL:
        return [sys.executable, "-m", "storygen", "serve", "--port", "{port}", *ray]
    module = "scripted" if "tests.protocol.scripted" in command else "serve"
    return [sys.executable, "-m", f"tests.protocol.{module}", "{port}", "engine", *ray]


ELSEWHERE = os.environ.get("TEST_ENGINE", "")
GIVEN: set[int] = set()  # ports
SERVED: list[Server] = []  # pages that were started with engines of their own


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where the models are strangers, what asks for the tests' own engine's words cannot pass."""
    strange = pytest.mark.skip(
        reason="It asks for the words, or the pace, of the tests' own engine."
    )
    for item in items:
        if ELSEWHERE.startswith("http") and item.get_closest_marker("own_words"):
            item.add_marker(strange)


@pytest.fixture(scope="session", autouse=True)
def _no_engine_is_left() -> Iterator[None]:
    """Those of pages that were killed end, too."""
    yield
    for page in SERVED:
        page.end_engine()


FAKE = [sys.executable, "-m", "tests.protocol.serve", "{port}"]
REAL = [sys.executable, "-m", "chainlit", "run", "app.py", "--headless", "--port", "{port}"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page with an engine that answers at once, shared by all tests."""
    server = serve(tmp_path_factory.mktemp("page"))
    yield server
    server.stop()


class Client:
    """A browser's socket."""

    def __init__(self, server: Server, cookie: str, story_id: str = "", **headers: str) -> None:
        """headers go with every request, beside the cookie."""
        self.server, self.cookie = server, cookie
        self.headers = {"Cookie": cookie, **headers}
        self.session_id, self.story_id = str(uuid4()), story_id
        self.socket = socketio.AsyncClient(reconnection=False, request_timeout=PATIENCE)
        self.events: list[tuple[float, str, Any]] = []
        self.messages: dict[str, dict[str, Any]] = {}
        self.buttons: list[dict[str, Any]] = []
        self.is_busy = False
        self.toasts: list[str] = []
        self.settings: list[Any] = []
        self._changed = asyncio.Event()
        self.socket.on("*", self._take)

    async def _take(self, event: str, data: Any = None) -> None:
        self.events.append((time.monotonic(), event, data))
        match event:
            case "new_message" | "update_message" | "stream_start":
                if data["type"].endswith("_message"):
                    self.messages[data["id"]] = self.messages.get(data["id"], {}) | data
            case "stream_token":
                message = self.messages[data["id"]]
                before = "" if data["isSequence"] else message["output"]
                message["output"] = before + data["token"]
            case "delete_message":
                self.messages.pop(data["id"], None)
            case "resume_thread":
                self.messages = {step["id"]: step for step in data["steps"]}
            case "action":
                self.buttons.append(data)
            case "remove_action":
                ids = [button["id"] for button in self.buttons]
                if data["id"] in ids:
                    self.buttons.pop(ids.index(data["id"]))
            case "task_start" | "task_end":
                self.is_busy = event == "task_start"
            case "toast":
                self.toasts.append(data["message"])
            case "chat_settings":
                self.settings.append(data)
            case "first_interaction":
                self.story_id = data["thread_id"]
        self._changed.set()

    async def connect(self, auth: dict[str, Any] | None = None, **headers: str) -> None:
        """Open the socket and say so, as the page does."""
        usual = {
            "clientType": "webapp",
            "sessionId": self.session_id,
            "threadId": self.story_id,
            "userEnv": "{}",
            "chatProfile": "",
        }
        await self.socket.connect(
            self.server.url,
            socketio_path="/ws/socket.io",
            transports=["websocket"],
            auth=usual if auth is None else auth,
            headers={**self.headers, **headers},
            wait_timeout=PATIENCE,
        )
        await self.socket.emit("connection_successful")
        await self.until(lambda: bool(self.settings) and not self.is_busy)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was received makes the condition true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def send(self, text: str, **more: Any) -> str:
        """Send a message; its id."""
        message_id = str(uuid4())
        message = {"id": message_id, "name": "writer", "type": "user_message", "output": text}
        self.events.clear()
        await self.socket.emit("client_message", {"message": message | more, "fileReferences": []})
        return message_id

    async def set(self, **values: Any) -> None:
        """Move the sidebar's controls."""
        await self.socket.emit("chat_settings_edit", values)

    async def press(self, name: str, **more: Any) -> httpx.Response:
        """Press a button that is there."""
        await self.until(lambda: not self.is_busy)
        action = self.actions[name] | more
        self.events.clear()
        async with httpx.AsyncClient(base_url=self.server.url, timeout=PATIENCE) as http:
            return await http.post(
                "/project/action",
                json={"sessionId": self.session_id, "action": action},
                headers=self.headers,
            )

    async def finished(self) -> None:
        """Wait until what was last asked for is over."""
        await self.until(lambda: any(event == "task_end" for _, event, _ in self.events))
        await self.until(lambda: not self.is_busy)

    @property
    def actions(self) -> dict[str, dict[str, Any]]:
        """The buttons by name; no two may have the same."""
        by_name = {button["name"]: button for button in self.buttons}
        assert len(by_name) == len(self.buttons), self.buttons
        return by_name

    @property
    def outputs(self) -> list[str]:
        """What is on the screen, as one reads it."""
        return [_read(message) for message in self.messages.values()]

    @property
    def passage(self) -> str:
        """The last thing a model wrote, as it is stored."""
        written = [m for m in self.messages.values() if m["type"] == "assistant_message"]
        return _read(written[-1]) if written else ""


def _read(message: dict[str, Any]) -> str:
    """What Markdown makes of a message, code spans and references being all there is in it."""
    output = str(message["output"])
    is_plain = message["type"] == "user_message"
    return output if is_plain else html.unescape(output.replace("`", ""))


Connect = Callable[..., Awaitable[Client]]


@pytest.fixture
def cookie(server: Server) -> str:
    """A browser's cookie for the shared server."""
    return server.cookie


@asynccontextmanager
async def connecting(server: Server, cookie: str) -> AsyncIterator[Connect]:
    """Clients of a server, closed at the end."""
    clients: list[Client] = []

    async def connect(story_id: str = "", **options: Any) -> Client:
        client = Client(server, cookie, story_id)
        clients.append(client)
        await client.connect(**options)
        return client

    yield connect
    for client in clients:
        await client.socket.disconnect()


@pytest.fixture
async def connect(server: Server, cookie: str) -> AsyncIterator[Connect]:
    """Opens a window of the shared server."""
    async with connecting(server, cookie) as connect:
        yield connect
