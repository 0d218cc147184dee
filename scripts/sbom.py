"""What an installation consists of, as a CycloneDX file: every package that requirements.txt pins
or that those need, with version, licence and what needs what. Run it where they are installed:

    python scripts/sbom.py            write docs/sbom.json anew
    python scripts/sbom.py --check    exit with 1 when it is not what is installed
"""

import json
import re
import sys
import uuid
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "sbom.json"
NAMESPACE = uuid.UUID("6f0d6f4e-52a5-4f0a-9a3e-0b1f6f9a7c11")


def pins() -> list[Requirement]:
    """What requirements.txt asks for."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def needed(roots: list[Requirement]) -> dict[str, tuple[Distribution, set[str]]]:
    """Every installed package that the roots lead to, with the names of those it needs."""
    found: dict[str, tuple[Distribution, set[str]]] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(root, extra) for root in roots for extra in ("", *root.extras)]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # for another system, such as a CUDA library of torch
        _, needs = found.setdefault(name, (package, set()))
        for text in package.requires or []:
            each = Requirement(text)
            if each.marker is None or each.marker.evaluate({"extra": extra}):
                needs.add(canonicalize_name(each.name))
                waiting += [(each, inner) for inner in ("", *each.extras)]
    return found


def version(package: Distribution) -> str:
    """The public version: torch's CPU and CUDA builds are the same release."""
    return package.version.partition("+")[0]


def licence(package: Distribution) -> str:
    """As its makers say it: an expression, a short name, or what they are classified as."""
    about = package.metadata
    said = about.get("License-Expression") or about.get("License") or ""
    if first := said.strip().partition("\n")[0].strip():  # the whole text begins with its name
        return first[:80]
    kinds = [k for k in about.get_all("Classifier") or [] if k.startswith("License ::")]
    return " AND ".join(kind.rpartition(" :: ")[2] for kind in kinds) or "not stated"


def reference(package: Distribution) -> str:
    """Its name in the world of package indexes."""
    return f"pkg:pypi/{canonicalize_name(package.name)}@{version(package)}"


def bill() -> dict[str, Any]:
    """The whole file. The same packages give the same file: it has no date."""
    found = dict(sorted(needed(pins()).items()))
    direct = sorted(reference(found[canonicalize_name(pin.name)][0]) for pin in pins())
    components = [
        {
            "type": "library",
            "bom-ref": reference(package),
            "name": name,
            "version": version(package),
            "purl": reference(package),
            "licenses": [{"license": {"name": licence(package)}}],
        }
        for name, (package, _) in found.items()
    ]
    needs = [
        {
            "ref": reference(package),
            "dependsOn": sorted(reference(found[name][0]) for name in names if name in found),
        }
        for package, names in found.values()
    ]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    release = re.search(r'^version = "(.*)"', project, re.MULTILINE)
    assert release is not None
    product = {"type": "application", "bom-ref": "storygen", "name": "storygen"}
    serial = uuid.uuid5(NAMESPACE, json.dumps(components))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": product | {"version": release[1]}},
        "components": components,
        "dependencies": [{"ref": "storygen", "dependsOn": direct}, *needs],
    }


def main() -> int:
    """Write the file, or compare it."""
    text = json.dumps(bill(), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--check"]:
        if FILE.is_file() and FILE.read_text(encoding="utf-8") == text:
            return 0
        sys.stderr.write(f"{FILE} is not what is installed: run python scripts/sbom.py\n")
        return 1
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
