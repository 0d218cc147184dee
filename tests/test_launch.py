"""storygen.launch: a page that cannot be served is refused with a sentence."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from storygen.decode.build import native_library
from storygen.errors import SettingsError
from storygen.launch import copy_page, require_free_port, sole_use
from storygen.settings import ROOT


def launch(**settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "storygen.launch"]
    env = os.environ | settings
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_port_in_use_is_one_sentence_and_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = launch(STORYGEN_PORT=port)
    assert done.returncode == 1
    assert f"port {port} of 127.0.0.1: Address already in use" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_setting_out_of_range_is_one_sentence_and_exit_code_1() -> None:
    done = launch(STORYGEN_PORT="70000")
    assert done.returncode == 1
    assert done.stderr.startswith("STORYGEN_PORT='70000' cannot be used")
    assert done.stderr.count("\n") == 1


def test_a_free_port_stays_free_after_the_check() -> None:
    port = free_port()
    require_free_port("127.0.0.1", port)
    require_free_port("127.0.0.1", port)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"of 192\.0\.2\.1: Cannot assign requested address"):
        require_free_port("192.0.2.1", 8000)  # from the block kept for documentation


def page(root: Path) -> Path:
    (root / ".chainlit").mkdir(parents=True)
    (root / ".chainlit/config.toml").write_text("[project]\n")
    (root / "public").mkdir()
    (root / "public/theme.json").write_text("{}")
    (root / "chainlit.md").write_text("welcome")
    return root


def test_the_page_is_copied_without_what_an_earlier_copy_held(tmp_path: Path) -> None:
    root, copy = page(tmp_path / "app"), tmp_path / "data/page"
    copy_page(root, copy)
    (root / "public/theme.json").rename(root / "public/logo.svg")
    copy_page(root, copy)
    names = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert names == {".chainlit/config.toml", "public/logo.svg", "chainlit.md"}


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the directory should be")
    with pytest.raises(SettingsError, match=r"data/page: .*Not a directory.*STORYGEN_DATA_DIR"):
        copy_page(page(tmp_path / "app"), tmp_path / "data/page")


HOLD = "import sys; from pathlib import Path; from storygen.launch import sole_use\n"
HOLD += "lock = sole_use(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


def test_a_data_directory_has_one_program_until_that_ends_however(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for end in (subprocess.Popen.terminate, subprocess.Popen.kill):
        command = [sys.executable, "-c", HOLD, str(data)]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == "held\n"
            with pytest.raises(SettingsError, match=f"^The stories in {data} are in use by"):
                sole_use(data)
            second = launch(STORYGEN_DATA_DIR=str(data), STORYGEN_PORT=str(free_port()))
            assert second.returncode == 1
            assert second.stderr.startswith(f"The stories in {data} are in use by another storygen")
            assert second.stderr.count("\n") == 1
            end(first)
        sole_use(data).release()


def test_a_data_directory_is_held_once_more_by_the_process_that_has_it(tmp_path: Path) -> None:
    lock = sole_use(tmp_path)  # as when Chainlit loads the app anew
    assert sole_use(tmp_path) is lock
    assert (tmp_path / "in-use").stat().st_mode & 0o777 == 0o600
    lock.release(force=True)


def test_a_data_directory_is_made_for_its_user_alone(tmp_path: Path) -> None:
    """By a start, or by whatever command compiles the decoder before the first one."""
    sole_use(tmp_path / "data").release(force=True)
    native_library(tmp_path / "other" / "native")
    for made in ("data", "other"):
        assert (tmp_path / made).stat().st_mode & 0o777 == 0o700


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"file/data cannot be used: .*STORYGEN_DATA_DIR"):
        sole_use(tmp_path / "file" / "data")
