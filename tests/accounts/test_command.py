"""The command, as it is typed."""

import io
import json
from pathlib import Path

import pytest

from storygen.accounts import command
from storygen.catalogue import Catalogue
from storygen.cli import main
from storygen.settings import Settings

GOOD, BETTER = "rope lantern otter", "otter lantern rope"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Shell:
    """Runs the command with what is piped into it."""

    def __init__(self, capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.capsys, self.patch, self.is_terminal = capsys, patch, False

    def __call__(self, *words: str, typed: str = "") -> tuple[int, str]:
        self.patch.setattr("sys.stdin", Terminal() if self.is_terminal else io.StringIO(typed))
        code = main(["users", *words])
        said = self.capsys.readouterr()
        return code, (said.err if code else said.out).strip()


@pytest.fixture
def users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    monkeypatch.setenv("STORYGEN_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("STORYGEN_DATABASE_URL", raising=False)
    return Shell(capsys, monkeypatch)


def test_a_user_from_the_first_day_to_the_last(users: Shell) -> None:
    assert users("list") == (0, "There are no accounts: python -m storygen users add NAME")
    assert users("add", "Ada", "--admin", typed=f"{GOOD}\n") == (
        0,
        "Ada may write here and is an administrator.",
    )
    assert users("add", "ADA", typed=GOOD)[0] == 1
    (listed,) = json.loads(users("list", "--json")[1])
    assert (listed["name"], listed["is_admin"], listed["stories"]) == ("Ada", True, 0)
    assert GOOD not in json.dumps(listed)
    assert "argon2" not in json.dumps(listed)
    assert users("password", "ada", typed=BETTER)[0] == 0
    assert users("rename", "Ada", "Countess") == (0, "Ada is Countess now.")
    assert users("rename", "COUNTESS", "ada") == (0, "COUNTESS is ada now.")
    assert users("rename", "ada", "Ada")[0] == 0
    assert users("disable", "ada")[0] == 0
    assert "disabled" in users("list")[1]
    assert users("enable", "ada")[0] == 0
    assert users("unmake-admin", "ada") == (0, "Ada is no administrator.")
    assert json.loads(users("list", "--json")[1])[0]["is_admin"] is False
    assert users("make-admin", "ada") == (0, "Ada is an administrator.")
    assert json.loads(users("list", "--json")[1])[0]["is_admin"] is True
    assert users("sign-out", "ada") == (0, "ada is signed out: 0 sessions ended.")
    assert users("remove", "ada", "--keep-stories")[0] == 0
    assert users("sign-out", "ada")[0] == 1


def test_what_becomes_of_the_stories_has_to_be_said(users: Shell) -> None:
    with pytest.raises(SystemExit, match="2"):
        users("remove", "ada")


def test_a_bad_password_is_a_sentence_and_makes_no_user(users: Shell) -> None:
    code, said = users("add", "Ada", typed="short\n")
    assert code == 1
    assert "10 to 200 characters, not 5" in said
    assert "no accounts" in users("list")[1]


def test_passwords_typed_twice_must_be_the_same(
    users: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter([GOOD, BETTER, GOOD, GOOD])
    monkeypatch.setattr(command.getpass, "getpass", lambda _: next(typed))
    users.is_terminal = True
    assert users("add", "Ada") == (
        1,
        "The two are not the same, so nothing was changed. Try again.",
    )
    assert users("add", "Ada")[0] == 0


def test_a_model_is_given_to_one_user_and_back_to_all(
    users: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORYGEN_WEIGHTS_DIR", str(tmp_path))
    sizes = {"n_positions": 64, "n_layer": 1, "n_embd": 8, "vocab_size": 9}
    (tmp_path / "voice").mkdir()
    (tmp_path / "voice" / "config.json").write_text(json.dumps(sizes))
    (tmp_path / "voice" / "storygen.json").write_text('{"display_name": "Ada’s voice"}')
    users("add", "Ada", typed=GOOD)
    ada = json.loads(users("list", "--json")[1])[0]["id"]
    assert users("give", "ada", "voice") == (0, "Nobody but Ada may write with voice now.")
    (info,) = Catalogue(tmp_path).models()
    assert (info.owner, info.display_name) == (ada, "Ada’s voice")
    assert users("give", "bob", "voice")[0] == 1
    assert users("give", "ada", "nothing")[0] == 1
    assert users("share", "voice") == (0, "Everybody may write with voice now.")
    assert Catalogue(tmp_path).models()[0].owner == ""
    (tmp_path / "voice" / "storygen.json").write_text("[3]")
    assert "cannot be changed" in users("share", "voice")[1]
