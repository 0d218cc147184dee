"""Ask pip-audit for known vulnerabilities of every package in docs/sbom.json.

Exit codes: 0 none is known, 1 some are, 3 not audited. pip-audit itself ends with 0 when it could
not ask about a package, which is not the same as knowing of nothing.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent.parent / "docs" / "sbom.json"
FOUND, NOT_AUDITED = 1, 3
OPTIONS = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json", "--timeout=10"]


def main() -> int:
    """Ask, and say in a line for each package what came of it."""
    components = json.loads(FILE.read_text(encoding="utf-8"))["components"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as pins:
        pins.writelines(f"{each['name']}=={each['version']}\n" for each in components)
        pins.flush()
        command = [sys.executable, "-m", "pip_audit", *OPTIONS, "--requirement", pins.name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        told: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        sys.stderr.write(f"Not audited: pip-audit failed ({reason}).\n")
        return NOT_AUDITED
    return report(told, len(components))


def report(told: list[dict[str, Any]], count: int) -> int:
    """What pip-audit told of `count` packages, on standard output; the exit code."""
    known = [
        f"{each['name']} {each['version']}: {problem['id']}, fixed in "
        f"{', '.join(problem['fix_versions']) or 'no version yet'}"
        for each in told
        for problem in each.get("vulns", [])
    ]
    asked = sum("vulns" in each for each in told)
    sys.stdout.writelines(f"{line}\n" for line in known)
    if known:
        sys.stdout.write(f"{len(known)} known vulnerabilities in {asked} of {count} packages.\n")
        return FOUND
    if asked < count:
        sys.stdout.write(
            f"Not audited: pip-audit could ask about {asked} of {count} packages. Run this where "
            "pypi.org can be reached.\n"
        )
        return NOT_AUDITED
    sys.stdout.write(f"No vulnerability is known of {count} packages.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
