"""What holds the repository together: set-up, pins, imports, container, example settings."""

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
import yaml
from importlinter.cli import use_cases

from storygen.settings import ROOT, Settings


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# Settings


def test_env_example_shows_each_setting_with_its_description_and_default() -> None:
    shown = re.findall(r"((?:^# .*\n)+)", text(".env.example").split("\n\n", 1)[1], re.MULTILINE)
    blocks = [block.replace("# ", "").splitlines() for block in shown]
    described = {block[-1].split("=")[0]: " ".join(block[:-1]) for block in blocks}
    fields = Settings.model_fields.items()
    assert described == {f"STORYGEN_{name.upper()}": field.description for name, field in fields}


def test_env_example_uncommented_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("STORYGEN_")]:
        monkeypatch.delenv(name)
    example = tmp_path / "env"
    example.write_text(text(".env.example").replace("# STORYGEN_", "STORYGEN_"), encoding="utf-8")
    shown = Settings(_env_file=example).model_dump()
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    for name in ("data_dir", "weights_dir"):
        shown[name] = ROOT / shown[name]
    assert shown == defaults


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml"])
def test_the_container_sets_only_settings_that_exist(name: str) -> None:
    named = set(re.findall(r"STORYGEN_([A-Z_]+)", text(name)))
    assert named
    assert named <= {field.upper() for field in Settings.model_fields}


# Packages


def requirements(name: str) -> list[str]:
    return [line for line in text(name).splitlines() if line[:1] not in "-#"]


def project(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower()


def test_every_requirement_is_pinned_once() -> None:
    names = ("requirements.txt", "requirements-dev.txt", "requirements-ray.txt")
    pins = [pin for name in names for pin in requirements(name)]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+(\[[\w,-]+\])?==[\d.]+", pin)] == []
    assert len(pins) == len({project(pin) for pin in pins})


def test_torch_is_the_version_that_comes_as_cpu_and_cuda_build() -> None:
    assert "torch==2.13.0" in requirements("requirements.txt")


def test_the_asynchronous_store_does_not_rely_on_development_packages() -> None:
    # greenlet came with playwright alone once: tests passed, an installation could not start.
    assert any(pin.startswith("SQLAlchemy[asyncio]==") for pin in requirements("requirements.txt"))


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        node.module
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    return {name.split(".")[0] for name in names}


def distributions_imported() -> dict[str, set[str]]:
    """What storygen imports from outside, each with the distributions it may come from."""
    files = [*ROOT.glob("storygen/**/*.py"), ROOT / "app.py"]
    names = set().union(*map(imported, files)) - sys.stdlib_module_names - {"storygen"}
    origin = packages_distributions()
    return {name: {found.lower() for found in origin.get(name, [name])} for name in names}


def test_what_the_product_imports_is_pinned_or_comes_with_chainlit() -> None:
    # The page is a Chainlit application: FastAPI, socket.io and JWT are those it was pinned with.
    chainlits = [line for line in requires("chainlit") or [] if "extra ==" not in line]
    pins = requirements("requirements.txt") + requirements("requirements-ray.txt")
    known = {project(line) for line in pins + chainlits}
    unknown = {name for name, found in distributions_imported().items() if not found & known}
    assert unknown == set()


def test_every_runtime_pin_is_used() -> None:
    used = set().union(*distributions_imported().values())
    used |= {"aiosqlite", "asyncpg"}  # named in the database URL alone
    used.add("pypandoc_binary")  # its program alone, looked up where it lies
    assert {project(pin) for pin in requirements("requirements.txt")} <= used


def test_import_contracts_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(ROOT / "pyproject.toml")
    kept = use_cases.lint_imports(config_filename=config, cache_dir=None, no_logo=True)
    assert kept, capsys.readouterr().out


# make: a stand-in for Python notes how it is called, so nothing is installed.

STAND_IN = """#!/bin/sh
case "$*" in
"-c import sys; sys.exit"*) exit {old} ;;
"-c import ensurepip"*) exit {no_venv} ;;
"-c print"*) echo runs; exit ;;
"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
"-m pip install"*) [ ! -e offline ] || {{ echo "no index" >&2; exit 1; }} ;;
esac
echo "$*" >> calls
"""


class Checkout:
    """A directory with the Makefile, requirements and a python3 that only notes its calls."""

    def __init__(self, path: Path, old: int = 0, no_venv: int = 0) -> None:
        self.path = path
        for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
            shutil.copy(ROOT / name, path)
        self.python = path / "python3"
        self.python.write_text(STAND_IN.format(old=old, no_venv=no_venv))
        self.python.chmod(0o755)

    def make(self, target: str) -> tuple[int, list[str], str]:
        """Exit code, what was called since the last time, what was said on standard error."""
        calls = self.path / "calls"
        calls.unlink(missing_ok=True)
        command = ["make", target, f"PYTHON={self.python}"]
        # The suite itself may run under make, whose options are not for this one.
        env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        done = subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True)
        said = calls.read_text().splitlines() if calls.exists() else []
        return done.returncode, said, done.stderr


def test_make_run_sets_up_once_and_then_only_runs(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    code, calls, _ = checkout.make("run")
    assert code == 0
    assert [call.split()[1] for call in calls] == ["venv", "pip", "storygen.launch"]
    assert checkout.make("run")[1] == ["-m storygen.launch"]


def test_make_test_installs_both_lists_of_packages(tmp_path: Path) -> None:
    _, calls, _ = Checkout(tmp_path).make("test")
    installed = [call.split()[-1] for call in calls[1:-1]]
    assert installed == ["requirements.txt", "requirements-dev.txt"]
    assert calls[-1].startswith("-m pytest")


def test_changed_requirements_are_installed(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.make("run")
    later = (tmp_path / ".venv/installed").stat().st_mtime + 1
    os.utime(tmp_path / "requirements.txt", (later, later))
    assert checkout.make("run")[1][0].endswith("-r requirements.txt")


def test_an_installation_that_failed_is_done_again(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    (tmp_path / "offline").touch()
    code, calls, errors = checkout.make("run")
    assert code != 0
    assert "no index" in errors
    assert "-m storygen.launch" not in calls
    (tmp_path / "offline").unlink()
    code, calls, _ = checkout.make("run")
    assert code == 0
    assert [call.split()[1] for call in calls] == ["pip", "storygen.launch"]


def test_an_environment_whose_interpreter_is_gone_is_made_anew(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.make("run")
    (tmp_path / ".venv/bin/python").unlink()
    _, calls, _ = checkout.make("run")
    assert [call.split()[1] for call in calls] == ["venv", "pip", "storygen.launch"]


def test_an_environment_made_by_hand_is_kept(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    shutil.copy(checkout.python, tmp_path / ".venv/bin/python")
    _, calls, _ = checkout.make("run")
    assert not any(call.startswith("-m venv") for call in calls)


def test_an_old_python_is_named_in_a_sentence(tmp_path: Path) -> None:
    code, calls, errors = Checkout(tmp_path, old=1).make("run")
    assert code != 0
    assert calls == []
    assert errors.startswith("storygen needs Python 3.11, 3.12 or 3.13")


def test_a_missing_venv_module_is_named_with_its_package(tmp_path: Path) -> None:
    code, calls, errors = Checkout(tmp_path, no_venv=1).make("run")
    assert code != 0
    assert calls == []
    assert "apt install python3-venv" in errors


# Continuous integration: a stand-in for make says how each step ended.

MAKE = """#!/bin/sh
echo "running $1"
case "$1" in
check) exit {check} ;;
test) echo "===== 3 passed in 0.12s ====="; [ {test} -eq 0 ] || echo "make: Error"; exit {test} ;;
esac
"""


@pytest.mark.parametrize(("check", "test"), [(0, 0), (1, 0), (0, 2)])
def test_ci_fails_with_each_step_and_ends_with_the_closing_line(
    tmp_path: Path, check: int, test: int
) -> None:
    for name, body in (("make", MAKE.format(check=check, test=test)), ("chromium", "#!/bin/sh\n")):
        (tmp_path / name).write_text(body)
        (tmp_path / name).chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([ROOT / ".ci/run"], env=env, capture_output=True, text=True)
    assert (done.returncode == 0) == (check == test == 0)
    assert done.stdout.splitlines()[-1] == "===== 3 passed in 0.12s ====="


# Container


def test_compose_publishes_to_this_machine_only_and_grants_nothing() -> None:
    service = yaml.safe_load(text("compose.yaml"))["services"]["storygen"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"]
    assert service["pids_limit"]


def test_the_image_runs_as_a_user_without_rights_and_exposes_nothing_by_itself() -> None:
    build, final = text("Dockerfile").split("\nFROM ")[1:]
    assert build.split()[0] == final.split()[0]
    assert re.search(r"^USER (\d+):(\d+)$", final, re.MULTILINE)[1] != "0"
    assert "HEALTHCHECK" in final
    assert not re.search(r"pip|apt-get|STORYGEN_ALLOW_EXPOSED=", final.split("ENV", 1)[1])


def test_only_named_files_enter_the_image() -> None:
    lines = [line for line in text(".dockerignore").splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    named = {line[1:] for line in lines if line.startswith("!")}
    assert named == {
        ".chainlit",
        "app.py",
        "chainlit*.md",
        "public",
        "requirements.txt",
        "storygen",
        "weights",
    }
