"""The README says what is so: its tree, its settings, its dependencies, its figures."""

import re
import subprocess

import pytest

from storygen.catalogue import Catalogue
from storygen.settings import ROOT, Settings

README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its two top lines."""
    section = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_setting_is_in_the_table_with_its_default_and_meaning():
    expected = []
    for name, field in Settings.model_fields.items():
        default = str(field.default).replace(f"{ROOT}/", "") if field.default != () else ""
        shown = default.lower() if isinstance(field.default, bool) else default
        cell = f"`{shown}`" if shown else ""
        expected.append([f"`STORYGEN_{name.upper()}`", cell, field.description])
    assert rows("Settings") == expected


@pytest.mark.parametrize(
    ("heading", "file"),
    [
        ("Dependencies", "requirements.txt"),
        ("Dependencies for development", "requirements-dev.txt"),
        ("Dependencies of replicas under Ray Serve", "requirements-ray.txt"),
    ],
)
def test_every_dependency_has_its_line_and_its_reason(heading, file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    names = [re.split(r"==|\[", line)[0] for line in lines if re.match(r"[A-Za-z]", line)]
    table = rows(heading)
    assert [row[0] for row in table] == names
    assert all(len(row) == 2 and row[1] for row in table)


def test_the_tree_names_what_is_there():
    tree = README.split("\n## What is where\n", 1)[1].split("```", 2)[1]
    named, parents = set(), []
    for line in tree.splitlines():
        if match := re.match(r"^( *)(\S+)(?: {2,}.*)?$", line):
            depth = len(match[1]) // 2
            parents = [*parents[:depth], match[2].rstrip("/")]
            path = "/".join(parents)
            assert (ROOT / path).exists(), path
            named.add(path)
    listed = subprocess.run(
        ["git", "ls-files", "storygen/*.py", "app.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    modules = {path for path in listed if not path.endswith(("__init__.py", "__main__.py"))}
    modules = {path for path in modules if "/versions/" not in path}
    assert modules - named == set()


def test_the_table_of_models_has_the_figures_of_their_cards():
    table = {row[0].strip("`"): row for row in rows("Models")}
    models = {info.name: info for info in Catalogue(ROOT / "weights").models()}
    assert set(table) == set(models)
    for name, info in models.items():
        assert f"{info.bits_per_byte:.3f}" in table[name], name


def test_the_screenshot_is_a_picture_of_the_page():
    (path,) = set(re.findall(r"!\[[^]]*\]\((docs/[^)]+\.png)\)", README))
    assert (ROOT / path).read_bytes().startswith(b"\x89PNG")
