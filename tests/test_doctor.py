"""The doctor finds what is broken, says what to do, changes nothing and reads no story."""

import asyncio
import http.server
import json
import os
import shutil
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL
from pathlib import Path

import pytest

from storygen import doctor
from storygen.cli import main
from storygen.doctor import Finding, examine
from storygen.settings import ROOT, Settings
from storygen.story.store import StoryStore


@pytest.fixture
def settings(tmp_path: Path, tiny_weights: Path, native_folder: Path, library: CDLL) -> Settings:
    """An installation that is well, on a port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "native").symlink_to(native_folder)  # compiled once for all tests
    asyncio.run(made(data))
    return Settings(
        data_dir=data,
        weights_dir=tiny_weights,
        first_model="tiny",
        port=port,
        database_url="",
        device="cpu",
        dtype="fp32",
        _env_file=None,
    )


async def made(data: Path) -> None:
    await (await StoryStore.open(f"sqlite+aiosqlite:///{data / 'stories.db'}")).close()


def told(findings: Iterator[Finding], state: str) -> list[str]:
    return [str(finding) for finding in findings if finding.state == state]


def test_an_installation_that_is_well_has_nothing_to_put_right(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "TOO_LITTLE", 0)
    findings = list(examine(settings))
    assert told(iter(findings), "bad") == []
    text = "\n".join(map(str, findings))
    assert "tiny writes (fp32, first token in " in text
    assert "letters writes" in text
    assert "schema 0" in text


def test_a_package_of_another_version_and_one_that_is_missing_are_named(
    settings: Settings, tmp_path: Path
) -> None:
    listed = tmp_path / "requirements.txt"
    listed.write_text("chainlit==1.0\nno-such-package[extra]==2.0\n")
    old, missing = told(doctor.packages(settings, listed), "bad")
    assert "chainlit is 2." in old
    assert "not 1.0. Run: pip install" in old
    assert "no-such-package is missing, not 2.0" in missing
    assert told(doctor.packages(settings), "bad") == []
    assert list(doctor.packages(settings, tmp_path / "none")) == []


def test_an_old_python_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1, "final", 0))
    assert told(doctor.python(settings), "bad") == [
        "bad   Python 3.9.1. Install Python 3.11, 3.12 or 3.13."
    ]


def test_files_that_others_may_read_are_named_with_the_command(settings: Settings) -> None:
    (settings.data_dir / "stories.db").chmod(0o644)
    (found,) = told(doctor.data_directory(settings), "bad")
    assert found.endswith(f"Run: chmod 600 {settings.data_dir / 'stories.db'}")


def test_a_full_disk_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(settings.data_dir)._replace(free=50_000_000)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage)
    (found,) = told(doctor.data_directory(settings), "bad")
    assert "0.1 GB free. Make room on that disk." in found


def test_a_short_secret_is_said_and_not_shown(settings: Settings) -> None:
    (settings.data_dir / "auth_secret").write_text("gardener")
    (found,) = told(doctor.secret(settings), "bad")
    assert "too short for a secret" in found
    assert "gardener" not in found


def test_a_damaged_database_and_one_of_the_future_are_said(settings: Settings) -> None:
    file = settings.data_dir / "stories.db"
    assert told(doctor.database(settings), "ok")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert "made by a newer storygen. Update" in told(doctor.database(settings), "bad")[0]
    file.write_bytes(b"x" * 5_000)
    for beside in ("-wal", "-shm"):
        Path(f"{file}{beside}").unlink(missing_ok=True)
    (found,) = told(examine_only(settings, doctor.database), "bad")
    assert "stories.db" in found
    file.unlink()
    assert "made at the first start" in told(doctor.database(settings), "ok")[0]
    assert not file.exists()


def examine_only(settings: Settings, check: doctor.Check) -> Iterator[Finding]:
    """What is found by one check, as examine tells it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "CHECKS", (check,))
        yield from examine(settings)


def test_what_chainlits_config_leaves_open_is_said(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert "cannot be read" in told(doctor.chainlit_config(settings), "bad")[0]
    (tmp_path / ".chainlit").mkdir()
    config = (ROOT / ".chainlit/config.toml").read_text()
    file = tmp_path / ".chainlit/config.toml"
    file.write_text(config)
    assert told(examine_only(settings, doctor.chainlit_config), "bad") == []
    for closed in ("unsafe_allow_html = false\n", "allow_thread_sharing = false\n"):
        for opened in ("", closed.replace("false", "true"), closed.replace("_", "-", 1)):
            file.write_text(config.replace(closed, opened))
            (found,) = told(examine_only(settings, doctor.chainlit_config), "bad")
            assert closed.split(" ")[0] in found


def test_a_clock_behind_its_own_files_is_said(settings: Settings) -> None:
    later = time.time() + 7_200
    os.utime(settings.data_dir / "stories.db", (later, later))
    (found,) = told(doctor.clock(settings), "bad")
    assert re_seconds(found) > 7_000


def re_seconds(found: str) -> int:
    return int(found.split(" is ")[1].split()[0].replace(",", ""))


@contextmanager
def serving(port: int, answers: dict[str, tuple[int, bytes]]) -> Iterator[None]:
    """A page on a port that gives these answers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("health", "ready", "state", "words"),
    [
        ('{"status": "ok"}', (200, '{"status": "ready"}'), "ok", "is ready"),
        ('{"status": "ok"}', (503, '{"reason": "there is no model"}'), "note", "there is no model"),
        ("<html>", (200, ""), "bad", "does not say that it is well"),
        ("[]", (200, ""), "bad", "does not say that it is well"),
    ],
)
def test_a_running_page_is_asked_how_it_is(
    settings: Settings, health: str, ready: tuple[int, str], state: str, words: str
) -> None:
    answers = {"/health": (200, health.encode()), "/ready": (ready[0], ready[1].encode())}
    with serving(settings.port, answers):
        (found,) = told(doctor.page(settings), state)
    assert words in found


def test_a_port_of_another_program_is_said(settings: Settings) -> None:
    assert "is free" in told(doctor.page(settings), "ok")[0]
    with socket.create_server(("127.0.0.1", settings.port)) as silent:
        silent.settimeout(0.1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(doctor, "ANSWER_SECONDS", 0.2)
            (found,) = told(examine_only(settings, doctor.page), "bad")
    assert "Address already in use" in found


def test_a_public_page_of_many_whose_proxy_is_not_named_is_said(settings: Settings) -> None:
    public = {"auth": "password", "allow_origins": ("http://lan.example", "https://a.example")}
    (found,) = doctor.proxy(settings.model_copy(update=public))
    assert found.state == "note"
    assert "https://a.example" in str(found)
    assert "STORYGEN_TRUSTED_PROXIES" in str(found)
    for known in (
        public | {"trusted_proxies": ("127.0.0.1/32",)},
        public | {"auth": "none"},
        public | {"allow_origins": ("http://lan.example",)},
    ):
        assert list(doctor.proxy(settings.model_copy(update=known))) == []


def test_a_model_that_cannot_be_loaded_is_named_and_the_others_write(
    settings: Settings, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    shutil.copytree(settings.weights_dir, weights)
    (weights / "letters/model.safetensors").write_bytes(b"not weights")
    broken = settings.model_copy(update={"weights_dir": weights})
    findings = list(doctor.models(broken))
    assert "letters cannot write" in told(iter(findings), "bad")[0]
    assert "tiny writes" in told(iter(findings), "ok")[0]


def test_the_command_ends_with_1_where_something_is_to_be_put_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def examined(state: str) -> tuple[int, str, str]:
        found = Finding(state, "The roof", "Mend it.")  # type: ignore[arg-type]  # one of three words
        monkeypatch.setattr(doctor, "examine", lambda settings: iter([found]))
        code = main(["doctor"])
        return code, *capsys.readouterr()

    assert examined("ok") == (0, "ok    The roof. Mend it.\n", "")
    code, out, err = examined("bad")
    assert (code, out) == (1, "bad   The roof. Mend it.\n")
    assert err == "1 thing to put right: see above.\n"


def test_no_story_is_quoted(settings: Settings) -> None:
    async def write() -> None:
        store = await StoryStore.open(settings.store_url)
        story = await store.create_story("writer", title="The gardener did it")
        await store.add_passage("writer", story.id, "writer", "The gardener did it.")
        await store.close()

    asyncio.run(write())
    text = json.dumps([str(finding) for finding in examine(settings)])
    assert "gardener" not in text


def test_a_model_server_that_is_not_there_is_said_with_its_address(settings: Settings) -> None:
    away = settings.model_copy(update={"engine_url": "http://127.0.0.1:1"})
    (finding,) = doctor.models(away)
    assert finding.state == "bad"
    assert "cannot be reached" in str(finding.remedy)
    assert "http://127.0.0.1:1" in str(finding.remedy)
