"""The bill of materials says what is installed, and an audit that could not ask is not green."""

import json
import re
from typing import Any

import pytest

from scripts import audit, sbom
from storygen.settings import ROOT

BILL: dict[str, Any] = json.loads(sbom.FILE.read_text(encoding="utf-8"))
REFERENCES = {each["bom-ref"] for each in BILL["components"]}


def test_every_pin_is_in_the_bill_at_its_version() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = {re.sub(r"\[.*\]", "", line).lower().replace("_", "-") for line in lines if line}
    listed = {f"{each['name']}=={each['version']}" for each in BILL["components"]}
    assert pins <= listed


def test_every_package_is_there_once_and_leads_to_others_that_are() -> None:
    assert len(REFERENCES) == len(BILL["components"])
    needs = {each["ref"]: each["dependsOn"] for each in BILL["dependencies"]}
    assert needs.keys() == REFERENCES | {"storygen"}
    reached, waiting = set[str](), ["storygen"]
    while waiting:
        new = set(needs[waiting.pop()]) - reached
        reached |= new
        waiting += new
    assert reached == REFERENCES


def test_every_package_names_its_licence() -> None:
    for each in BILL["components"]:
        assert each["licenses"][0]["license"]["name"]
        assert re.fullmatch(r"pkg:pypi/[a-z0-9-]+@[\w.]+", each["purl"]), each["purl"]


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        ([{"name": "a", "version": "1", "vulns": []}], 0, "No vulnerability is known of 1"),
        (
            [{"name": "a", "skip_reason": "not found"}],
            3,
            "Not audited: pip-audit could ask",
        ),
        ([], 3, "Not audited"),
        (
            [
                {
                    "name": "a",
                    "version": "1",
                    "vulns": [{"id": "CVE-2026-1", "fix_versions": ["2"]}],
                }
            ],
            1,
            "a 1: CVE-2026-1, fixed in 2",
        ),
    ],
)
def test_an_audit_is_green_only_where_every_package_was_asked_about(
    capsys: pytest.CaptureFixture[str], told: list[dict[str, Any]], code: int, words: str
) -> None:
    assert audit.report(told, 1) == code
    assert words in capsys.readouterr().out
