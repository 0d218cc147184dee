"""The container: one place to write, no rights, bounds, and a check that knows well from unwell."""

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from storygen.settings import ROOT


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    """The one service of compose.yaml."""
    (found,) = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].values()
    return found


@pytest.fixture(scope="module")
def image() -> dict[str, list[str]]:
    """The instructions of the Dockerfile's last stage, by name."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    found: dict[str, list[str]] = {}
    for line in text.split("\nFROM ")[-1].splitlines()[1:]:
        if match := re.match(r"([A-Z]+) (.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def bytes_of(size: str) -> int:
    """A size as compose writes it.

    >>> bytes_of("4g"), bytes_of("256m")
    (4294967296, 268435456)
    """
    return int(size[:-1]) * 2 ** {"k": 10, "m": 20, "g": 30}[size[-1]]


def test_there_is_one_place_to_write(service: dict[str, Any], image: dict[str, list[str]]) -> None:
    assert service["read_only"] is True
    assert [volume.partition(":")[2] for volume in service["volumes"]] == ["/data"]
    assert image["VOLUME"] == ["/data"]
    assert "STORYGEN_DATA_DIR=/data" in image["ENV"][0]
    (scratch,) = service["tmpfs"]  # in memory, gone with the container
    place, _, options = scratch.partition(":")
    size = re.search(r"size=(\w+)", options)
    assert place == "/tmp"
    assert size is not None
    assert bytes_of(size[1]) < bytes_of(service["mem_limit"]) // 4


def test_nothing_is_granted(service: dict[str, Any], image: dict[str, list[str]]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    granting = {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode"}
    assert granting & service.keys() == set()
    assert all(user.split(":")[0] not in ("0", "root") for user in image["USER"])
    assert not service.get("user", "10001").startswith(("0", "root"))


def test_memory_processes_and_logs_are_bounded(service: dict[str, Any]) -> None:
    assert bytes_of(service["mem_limit"]) <= 8 * 2**30
    assert 64 <= service["pids_limit"] <= 1024  # 8 threads a model, their opener, pandoc
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


def test_there_is_time_to_end_in_order(
    service: dict[str, Any], image: dict[str, list[str]]
) -> None:
    assert image["STOPSIGNAL"] == ["SIGTERM"]
    assert json.loads(image["ENTRYPOINT"][0])[0] == "python"  # no shell that keeps the signal
    assert service["init"] is True
    longest = re.search(
        r"^SECONDS = ([\d.]+)", (ROOT / "storygen/chat/ending.py").read_text(), re.M
    )
    assert longest is not None
    assert int(service["stop_grace_period"].removesuffix("s")) > float(longest[1])


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server whose /health has this status, all else 404; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("status", "is_well"), [(200, True), (503, False), (404, False)])
def test_the_health_check_knows_well_from_unwell(
    image: dict[str, list[str]], status: int, is_well: bool
) -> None:
    words = image["HEALTHCHECK"][0]
    program, option, code = json.loads(words[words.index("[") :])
    assert (program, option) == ("python", "-c")
    with answering(status) as port:
        # A proxy in the environment must not be asked how this machine is.
        env = os.environ | {"STORYGEN_PORT": str(port), "http_proxy": "http://192.0.2.1:9"}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True)
    assert (done.returncode == 0) == is_well
