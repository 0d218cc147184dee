"""Whatever an installation gets wrong is one line at its start: the key, the value, the rule."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal, get_origin

import annotated_types
import pytest
from pydantic import SecretStr

from storygen.errors import SettingsError, StorygenError
from storygen.launch import require_database, require_models
from storygen.settings import ROOT, Settings, load_settings

LONG = "x" * 5_000

# Values that cannot be, where a field's type does not say so; each must be refused at the start.
WRONG: dict[str, list[str]] = {
    "data_dir": ["/what?", "/proc/nowhere/stories"],
    "weights_dir": ["/what?", "/nowhere/weights"],
    "first_model": ["no-such-model", "../mystery", LONG],
    "database_url": ["stories", "sqlite+aiosqlite://", "postgresql+asyncpg://u:pw@127.0.0.1:1/x"],
    "engine_url": ["server", "ftp://127.0.0.1", "http://", "http://a:b@127.0.0.1", "http://x/?y"],
    "engine_key": ["two words", "caf\u00e9", "a\tb"],
    "host": ["example.org", "300.0.0.1", ""],
    "allow_origins": ["*", "stories.example", "ftp://stories.example"],
    "metrics_token": ["short"],
    "trusted_proxies": ["proxy", "10.0.0.0/33"],
    "proxy_header": ["Remote User", "X:\\r\\nY"],
}


def wrong_values(name: str) -> list[str]:
    """Values that the field must not take: of another type, and beyond its range."""
    field = Settings.model_fields[name]
    if name in WRONG:
        return WRONG[name]
    if get_origin(field.annotation) is Literal:
        return ["", "no-such-choice", LONG]
    if field.annotation is bool:
        return ["perhaps", "2"]
    if field.annotation in (int, float):
        beyond: list[Any] = ["many", "", "1e999", "nan"]
        for rule in field.metadata:
            if isinstance(rule, annotated_types.Ge):
                beyond.append(rule.ge - 1)
            if isinstance(rule, annotated_types.Le):
                beyond.append(rule.le + 1)
        assert len(beyond) == 6, f"{name} has no lower or no upper bound"
        return [str(value) for value in beyond]
    raise AssertionError(f"WRONG has no value for {name}: what must not be taken?")


CASES = [(name, value) for name in Settings.model_fields for value in wrong_values(name)]


def start(settings: Settings) -> None:
    """What is looked at before anything is begun; see launch.main."""
    require_models(settings)
    if settings.database_url:
        require_database(settings.store_url)
    from storygen.chat.guards import writable

    writable(settings.data_dir)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    for name in [name for name in os.environ if name.startswith("STORYGEN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STORYGEN_DATA_DIR", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "value"), CASES, ids=[f"{name}-{value[:20]}" for name, value in CASES]
)
def test_a_wrong_value_of_any_setting_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"STORYGEN_{name.upper()}", value)
    began = time.monotonic()
    with pytest.raises(StorygenError) as caught:
        start(load_settings())
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert f"STORYGEN_{name.upper()}" in sentence or name in ("data_dir", "database_url")
    assert "pw@" not in sentence  # a password in a URL is not told
    if Settings.model_fields[name].annotation is SecretStr:
        assert value not in sentence
    assert time.monotonic() - began < 30  # seconds on a busy machine; 3 where it is not


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_mistyped_key_is_named_with_the_one_that_was_meant(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mistyped = f"STORYGEN_{name.upper()[:-1]}{'Y' if name[-1] != 'y' else 'X'}"
    monkeypatch.setenv(mistyped, "1")
    with pytest.raises(SettingsError, match=rf"^{mistyped} is no setting of storygen: did you"):
        load_settings()


def launched(tmp_path: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"STORYGEN_DATA_DIR": str(tmp_path)} | settings
    command = [sys.executable, "-m", "storygen.launch"]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def test_the_started_program_says_the_line_and_ends_with_1(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]  # takes connections and never answers
        url = f"postgresql+asyncpg://writer:pw@127.0.0.1:{port}/stories"
        for settings in (
            {"STORYGEN_SLOTS": "0"},
            {"STORYGEN_FIRST_MODEL": "no-such-model"},
            {"STORYGEN_DATABASE_URL": url},
        ):
            done = launched(
                tmp_path, STORYGEN_PORT=str(port + 1 if port < 65535 else 1025), **settings
            )
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.count("\n") == 1
            assert ":pw@" not in done.stderr


def test_an_untouched_installation_may_begin_without_a_model(tmp_path: Path) -> None:
    settings = Settings.model_construct(_fields_set=set(), weights_dir=tmp_path / "none")
    require_models(settings)
