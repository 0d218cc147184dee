"""The models under a real Ray Serve on this machine: a minute. Without Ray it is skipped."""

import os
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from storygen.errors import SettingsError
from storygen.serve.ray_start import load
from storygen.settings import ROOT
from tests.protocol.conftest import free_port, get


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "")
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("storygen.serve.ray", "storygen.serve.ray_router"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(SettingsError, match=r"requirements-ray\.txt"):
        load()


@pytest.fixture(scope="module")
def said(tmp_path_factory, tiny_weights, native_folder) -> dict[str, str]:
    """What a process says in which Ray runs: it must be told things before it is imported, and its
    threads and children should end with it."""
    pytest.importorskip("ray", reason="requirements-ray.txt is not installed")
    env = {name: value for name, value in os.environ.items() if not name.startswith("STORYGEN_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.serve.ray_play", str(tiny_weights), str(native_folder)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line]
    return {line[0]: line[1] for line in lines}


def test_replicas_write_what_an_engine_alone_writes(said):
    assert said["written"] == "true"


def test_a_replica_killed_in_the_middle_of_passages_loses_no_word(said):
    assert said["killed"] == "true"


def test_questions_and_errors_arrive(said):
    assert said["words"] == "true"
    assert "PromptError" in said["mark"]


def test_a_passage_that_is_left_runs_no_longer(said):
    assert said["running"] == "0"


def test_the_api_answers_under_ray_serve(said):
    assert said["models"] == '["tiny"]'
    assert said["text"] == "true"
    assert said["refused"] == "404"


def test_a_front_that_ends_leaves_another_its_models(tmp_path, tiny_weights, native_folder):
    pytest.importorskip("ray", reason="requirements-ray.txt is not installed")
    ray, port = Path(sys.executable).with_name("ray"), str(free_port())
    env = {name: value for name, value in os.environ.items() if not name.startswith("STORYGEN_")}
    env |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a" * 64,
        "RAY_USAGE_STATS_ENABLED": "0",
        "STORYGEN_WEIGHTS_DIR": str(tiny_weights),
        "STORYGEN_DATA_DIR": str(native_folder.parent),
    }
    head = ["start", "--head", "--block", "--include-dashboard=false", f"--port={port}"]
    here = ["--node-ip-address=127.0.0.1", "--num-cpus=4", "--object-store-memory=104857600"]

    @contextmanager
    def running(*command):
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)
            try:
                yield
            finally:
                process.terminate()
                process.wait(60)

    @contextmanager
    def front():
        at = free_port()
        serving = [sys.executable, "-m", "storygen", "serve", "--ray", f"127.0.0.1:{port}"]
        with running(*serving, "--port", str(at)):
            for _ in range(240):
                try:
                    get(f"http://127.0.0.1:{at}/ready")
                    break
                except httpx.TransportError:
                    time.sleep(0.5)
            else:
                raise AssertionError((tmp_path / "log").read_text())
            yield f"http://127.0.0.1:{at}"

    with running(ray, *head, *here), ExitStack() as first:
        first.enter_context(front())
        with front() as second:
            asked = {"model": "tiny", "prompt": "It was night", "max_tokens": 5, "temperature": 0}
            before = httpx.post(f"{second}/v1/completions", json=asked, timeout=60).json()
            first.close()
            after = httpx.post(f"{second}/v1/completions", json=asked, timeout=60).json()
            assert len(before["choices"][0]["text"]) > 0
            assert before["choices"][0]["text"] == after["choices"][0]["text"]
