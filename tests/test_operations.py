"""docs/operations.md speaks of settings, metrics and commands that there are."""

import re

import yaml
from prometheus_client.parser import text_string_to_metric_families

from storygen import metrics
from storygen.settings import ROOT, Settings

PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_its_settings_are_settings() -> None:
    named = {name.lower() for name in re.findall(r"STORYGEN_([A-Z_]+)", PAGE)}
    assert named
    assert named <= Settings.model_fields.keys()


def test_its_metrics_are_measured() -> None:
    metrics.watch(lambda: metrics.Load(0, 0, 1, 0, 0, 0, 0.0))
    families = list(text_string_to_metric_families(metrics.exposition().decode()))
    known = {name for family in families for name in (family.name, f"{family.name}_total")}
    known |= {f"{family.name}_bucket" for family in families if family.type == "histogram"}
    named = set(re.findall(r"\b(?:storygen|process)_[a-z_]+\b", PAGE))
    assert named - known == set()
    ours = {family.name for family in families if family.name.startswith("storygen_")}
    assert {name for name in ours if name not in PAGE} == set()


def test_its_alerts_are_a_rule_file() -> None:
    (rules,) = (yaml.safe_load(text) for text in blocks("yaml") if text.startswith("groups:"))
    (group,) = rules["groups"]
    for rule in group["rules"]:
        assert rule.keys() >= {"alert", "expr", "annotations"}
        assert rule["annotations"]["summary"].endswith(".")
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"])


def test_its_kinds_of_errors_are_kinds() -> None:
    from storygen import errors

    for kind in re.findall(r'kind="(\w+)"', PAGE):
        assert kind == "unexpected" or hasattr(errors, kind)


def test_its_service_waits_for_the_end_and_starts_what_is_there() -> None:
    (unit,) = blocks("ini")
    seconds = re.search(r"TimeoutStopSec=(\d+)", unit)
    assert seconds is not None
    assert int(seconds[1]) > 10
    assert "-m storygen.launch" in unit
