"""python -m storygen serve, as it is started and ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from storygen.connections import Connection
from storygen.engine.fake import FakeEngine
from storygen.serve import command
from storygen.settings import Settings

PATIENCE = 120.0  # seconds; a busy machine is no failure
ROOT = Path(__file__).parent.parent.parent


def settings(data: Path, weights: Path, **more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if "STORYGEN" not in name}
    chosen = {"STORYGEN_DATA_DIR": str(data), "STORYGEN_WEIGHTS_DIR": str(weights)}
    return ours | chosen | {"STORYGEN_DTYPE": "fp32", "STORYGEN_THREADS": "1"} | more


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def serving(env: dict[str, str], *words: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    command = [sys.executable, "-m", "storygen", "serve", "--port", str(port), *words]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline
            try:
                if httpx.get(f"{url}/ready", timeout=PATIENCE).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        yield process, url
    finally:
        process.kill()
        process.wait()


def test_what_is_being_written_is_finished_when_the_server_is_ended(
    tmp_path: Path, tiny_weights: Path
):
    with serving(settings(tmp_path, tiny_weights)) as (process, url):
        body = {"model": "letters", "prompt": "It was", "max_tokens": 300, "stream": True}
        lines: list[str] = []
        began = threading.Event()

        def read() -> None:
            with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=PATIENCE) as got:
                for line in got.iter_lines():
                    lines.append(line)
                    began.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert began.wait(PATIENCE)
        process.send_signal(signal.SIGTERM)
        reader.join(PATIENCE)
        assert process.wait(PATIENCE) == 0
    told = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert told[-1] == "[DONE]"
    pieces = [json.loads(line)["choices"][0] for line in told[:-1]]
    assert pieces[-1]["finish_reason"] == "length"
    assert len("".join(piece["text"] for piece in pieces)) == 300


def test_the_installations_own_key_is_enough_where_others_may_ask(
    tmp_path: Path, tiny_weights: Path
):
    key = "a-secret-of-the-installation"
    env = settings(tmp_path, tiny_weights, STORYGEN_ENGINE_KEY=key)
    with serving(env, "--host", "0.0.0.0") as (_, url):
        assert httpx.get(f"{url}/v1/models").status_code == 401
        headers = {"authorization": f"Bearer {key}"}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200


def test_nobody_is_served_beyond_loopback_without_keys(tmp_path: Path, tiny_weights: Path):
    for more, words in [({}, ["--host", "0.0.0.0"]), ({"STORYGEN_AUTH": "password"}, [])]:
        ended = subprocess.run(
            [sys.executable, "-m", "storygen", "serve", "--port", str(free_port()), *words],
            cwd=ROOT,
            env=settings(tmp_path, tiny_weights, **more),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert ended.returncode == 1
        assert "needs keys, and there are none" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_a_sentence(tmp_path: Path, tiny_weights: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = subprocess.run(
            [sys.executable, "-m", "storygen", "serve", "--port", port],
            cwd=ROOT,
            env=settings(tmp_path, tiny_weights),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (ended.returncode, "with --port" in ended.stderr) == (1, True)


def test_it_does_not_wait_for_ever_for_who_says_nothing(monkeypatch, tmp_path: Path):
    def begun(config: uvicorn.Config) -> None:
        raise StoppedError(config.http)

    class StoppedError(Exception):
        pass

    monkeypatch.setattr(uvicorn, "Server", begun)
    with pytest.raises(StoppedError) as stopped:
        command.run(Settings(data_dir=tmp_path), FakeEngine(), "127.0.0.1", free_port())
    assert stopped.value.args == (Connection,)
