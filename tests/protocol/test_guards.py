"""What the running page refuses: other origins and hosts, foreign names, closed routes, bodies."""

import asyncio
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from socketio.exceptions import ConnectionError as Refused

from tests.protocol.conftest import (
    FAKE,
    PATIENCE,
    ROOT,
    STARTING,
    Connect,
    Server,
    environment,
    free_port,
    get,
    post,
    serve,
)

CHAINLIT = [sys.executable, "-m", "chainlit", "run"]

ID = "6fd6ba3c-5bb5-4cbf-9d1b-6fd8bb6b22f5"


def auth(**values: Any) -> dict[str, Any]:
    """What a browser says of itself, with other values."""
    usual = {"clientType": "webapp", "sessionId": str(uuid4()), "threadId": "", "userEnv": "{}"}
    return usual | {"chatProfile": ""} | values


@pytest.mark.parametrize(
    "claims",
    [
        {"sessionId": "../public"},
        {"sessionId": ""},
        {"sessionId": 7},
        {"sessionId": str(uuid4()).upper()},
        {"threadId": "x' OR '1'='1"},
        {"threadId": "../../etc"},
        {"clientType": "copilot"},
    ],
)
async def test_socket_must_name_itself_by_uuids(connect: Connect, claims: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        await connect(auth=auth(**claims))
    assert not (ROOT / "public" / "x").exists()


async def test_of_21_files_at_once_each_is_taken_or_refused_in_a_sentence(server: Server) -> None:
    headers, path = {"Cookie": server.cookie}, "/api/import?name=21.txt"
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=PATIENCE) as browser:
        text = b"It was a dark night. " * 10_000
        answers = await asyncio.gather(*(browser.post(path, content=text) for _ in range(21)))
        taken = [answer.json()["id"] for answer in answers if answer.status_code == 200]
        refused = [answer for answer in answers if answer.status_code != 200]
        assert taken
        assert refused
        assert {answer.status_code for answer in refused} == {429}
        assert all("wait" in answer.json()["error"] for answer in refused)
        listed = (await browser.get("/api/stories?limit=50&q=dark+night")).json()["stories"]
        assert set(taken) <= {story["id"] for story in listed}
        assert (await browser.post(path, content=text)).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1", "http://"])
async def test_socket_of_another_origin_is_refused(connect: Connect, origin: str) -> None:
    with pytest.raises(Refused):
        await connect(Origin=origin)


async def test_socket_of_the_page_itself_is_taken(connect: Connect, server: Server) -> None:
    client = await connect(Origin=server.url)
    assert client.socket.connected


async def test_socket_without_the_cookie_is_refused(server: Server, connect: Connect) -> None:
    with pytest.raises(Refused):
        await connect(Cookie="")


@pytest.mark.parametrize("path", ["/", "/user", "/project/settings", "/public/theme.json"])
def test_request_of_another_origin_is_refused(server: Server, path: str) -> None:
    for origin in ("http://evil.example", "null", "http://localhost:1"):
        response = get(server.url + path, headers={"Origin": origin})
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers


def test_other_host_names_are_refused(server: Server) -> None:
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
        assert get(server.url, headers={"Host": host}).status_code == 403
    for host in ("localhost", f"127.0.0.1:{server.port}", "[::1]:8000", "LOCALHOST:1"):
        assert get(server.url, headers={"Host": host}).status_code == 200


CLOSED = [
    ("POST", "/project/file?session_id=x"),
    ("PUT", "/project/thread/share"),
    ("PUT", "/project/element"),
    ("DELETE", "/project/element"),
    ("PUT", "/feedback"),
    ("DELETE", "/feedback"),
    ("POST", "/mcp"),
    ("POST", "/login"),
    ("POST", "/logout"),
    ("POST", "/auth/jwt"),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_what_the_page_does_not_use_is_closed(
    server: Server, cookie: str, method: str, path: str
) -> None:
    response = httpx.request(
        method, server.url + path, timeout=PATIENCE, headers={"Cookie": cookie}, json={}
    )
    assert response.status_code in {404, 405}


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/redoc",
        "/openapi.json",
        f"/project/share/{ID}",
        "/copilot/index.js",
        "/auth/oauth/github",
        f"/project/thread/{ID}/element/{ID}",
        "/project/file/x",
    ],
)
def test_closed_addresses_show_only_the_page(server: Server, cookie: str, path: str) -> None:
    page = get(server.url, headers={"Cookie": cookie})
    closed = get(server.url + path, headers={"Cookie": cookie})
    assert closed.text == page.text


def test_files_outside_public_are_not_served(server: Server) -> None:
    for path in ("/public/../app.py", "/public/%2e%2e/app.py", "/assets/..%2f..%2fserver.py"):
        assert "import" not in get(server.url + path).text[:200]


@pytest.mark.parametrize("path", ["/assets/%00", "/public/a%00.css", "/%00", "/project/%00"])
def test_an_address_with_a_null_character_is_refused(server: Server, path: str) -> None:
    assert get(server.url + path).status_code == 400


def test_unknown_story_is_not_found(server: Server, cookie: str) -> None:
    for story_id in (str(uuid4()), "x", "..", "x' OR '1'='1"):
        response = get(f"{server.url}/project/thread/{story_id}", headers={"Cookie": cookie})
        assert response.status_code in {200, 404}
        assert "steps" not in response.text


def test_stories_are_listed_only_with_the_cookie(server: Server) -> None:
    query = {"pagination": {"first": 10}, "filter": {}}
    assert post(f"{server.url}/project/threads", json=query).status_code == 401


def test_long_bodies_are_refused_unread(server: Server, cookie: str) -> None:
    headers = {"Cookie": cookie, "Content-Type": "application/json"}
    url = f"{server.url}/project/action"
    assert post(url, content=b"x" * 2_000_000, headers=headers).status_code == 413
    pieces = (b"x" * 1000 for _ in range(3))
    assert post(url, content=pieces, headers=headers).status_code == 413


def test_every_answer_carries_the_security_headers(server: Server) -> None:
    for path in ("/", "/health", "/public/theme.json", "/user", "/nowhere"):
        headers = get(server.url + path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-eval" not in policy
        assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]


def test_loading_the_page_does_not_hold_up_the_others(server: Server) -> None:
    script = re.search(r'src="(/assets/index-[^"]+)"', get(server.url).text)
    assert script is not None
    response = get(server.url + script[1], headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in response.headers  # packing takes half a second of the loop
    assert "immutable" in response.headers["cache-control"]  # and it is loaded once


def test_page_names_no_other_host(server: Server) -> None:
    html = get(server.url).text
    assert "//" not in html.replace(server.url, "").replace("<!-", "")
    assert "katex" not in html


LAUNCH = ["env", "STORYGEN_PORT={port}", sys.executable, "-m", "storygen.launch"]


@pytest.mark.parametrize("command", [FAKE, LAUNCH])
def test_what_a_first_start_makes_is_for_its_user_alone(
    tmp_path: Path, command: list[str], tiny_weights: Path
) -> None:
    data = tmp_path / "data"
    more = {"STORYGEN_WEIGHTS_DIR": str(tiny_weights), "STORYGEN_DTYPE": "fp32"}
    page = serve(tmp_path, command, STORYGEN_DATA_DIR=str(data), **more)
    assert page.stop() == 0
    made = [data, *(path for path in data.iterdir() if path.is_file())]
    assert {"auth_secret", "stories.db"} <= {path.name for path in made}
    assert [path for path in made if path.stat().st_mode & 0o077] == []


def test_secret_is_kept_and_private(server: Server) -> None:
    secret = server.data / "auth_secret"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_text()) >= 48


def test_start_that_cannot_work_is_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    """`chainlit run app.py` itself, for each of five mistakes; at once, for it starts slowly."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "file").write_text("not a directory")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "stories.db").write_bytes(b"no database" * 1000)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        mistakes = {
            "cannot be served on port": (ROOT, tmp_path, "--port", str(taken.getsockname()[1])),
            "STORYGEN_ALLOW_EXPOSED": (ROOT, tmp_path, "--host", "0.0.0.0"),
            "STORYGEN_DATA_DIR": (ROOT, tmp_path / "file" / "data", "--port", str(free_port())),
            "stories.db": (ROOT, tmp_path / "broken", "--port", str(free_port())),
            f"start storygen in {ROOT}": (elsewhere, tmp_path),
        }
        started = {
            words: subprocess.Popen(
                [*CHAINLIT, str(ROOT / "app.py"), "--headless", *arguments],
                cwd=place,
                env=environment(data, CHAINLIT_APP_ROOT=str(place)),
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            for words, (place, data, *arguments) in mistakes.items()
        }
        for words, process in started.items():
            _, said = process.communicate(timeout=STARTING)
            assert process.returncode == 1, words
            assert words in said
            assert "Traceback" not in said
