"""The fuzz targets of the tests, for as long as one likes.

    python -m benchmarks.reliability.fuzz                      list the targets
    python -m benchmarks.reliability.fuzz all                  each with its budget: an hour
    python -m benchmarks.reliability.fuzz TARGET... [--cases N] [--seconds S]

Properties are those of the tests, with N examples each (of the store, routes, events and pages a
share). Three readers are fed bytes by atheris, which sees what they lead to (pip install
atheris==3.0.0; where it is not there they are left out), for S seconds, or N inputs where that is
given. Prints a line a target; the exit code is 1 if anything was found.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Target:
    """Tests by files and -k expression, with as many examples as make a budget; or a reader."""

    tests: str = ""
    only: str = ""
    cases: int = 0
    reader: str = ""


TARGETS = {
    "tensors": Target(reader="tensors"),
    "drafts": Target(reader="drafts"),
    "archives": Target(reader="archives"),
    "checkpoints": Target(
        "tests/checkpoints/importers/test_hostile.py", "test_any or let_through", cases=1000
    ),
    "tokenizers": Target("tests/test_tokenizers.py", "bpe or char or streamed", cases=20_000),
    "sampling": Target("tests/test_sampling.py", "any_logits or row_depends", cases=10_000),
    "settings": Target(
        "tests/test_params.py tests/chat/test_controls.py", "any_value or whatever_comes", 10_000
    ),
    "prose": Target("tests/chat/test_prose.py", cases=2000),
    "shown": Target("tests/security/test_payloads.py", "any_text", cases=5000),  # 2,000 texts
    "store": Target("tests/story/test_store_model.py", cases=6000),  # 2,100 stories
    "routes": Target("tests/security/test_fuzz.py", "any_request", cases=8000),  # 2,000 requests
    "events": Target("tests/security/test_fuzz.py", "any_events", cases=2800),  # 5,000 events
}


def main() -> int:
    """Run what is named, one after another."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", choices=["all", *TARGETS, []], metavar="TARGET")
    parser.add_argument("--cases", type=int)
    parser.add_argument("--seconds", type=int, default=60)
    args = parser.parse_args()
    if not args.targets:
        print("\n".join(TARGETS))
    names = list(TARGETS) if "all" in args.targets else args.targets
    found = [run(name, args.cases, args.seconds) for name in names]
    return int(any(found))


def run(name: str, cases: int | None, seconds: int) -> bool:
    """One target; whether it found something."""
    target, begun = TARGETS[name], time.monotonic()
    if target.reader and importlib.util.find_spec("atheris") is None:
        print(f"{name}: left out, atheris is not installed", flush=True)
        return False
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.NamedTemporaryFile("w+") as log, tempfile.TemporaryDirectory(dir=memory) as here:
        command = _fed(target.reader, cases, seconds) if target.reader else _tested(target)
        examples = str(cases or target.cases)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"FUZZ_EXAMPLES": examples, "PYTHONPATH": path}
        environment |= {"TMPDIR": here} if target.reader else {}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False
        )
        log.seek(0)
        said = log.read()
    took = time.monotonic() - begun
    tried = sum(
        map(int, re.findall(r"^(?:tried|stat::number_of_executed_units:)\s+(\d+)", said, re.M))
    )
    print(f"{name}: {tried:,} cases in {took:.0f} s, exit code {done.returncode}", flush=True)
    if done.returncode:
        print(said[-6000:])
    return done.returncode != 0


def _tested(target: Target) -> list[str]:
    plugin = ["-p", "benchmarks.reliability.counted"]
    command = [sys.executable, "-m", "pytest", *target.tests.split(), "-q", "-x", *plugin]
    return [*command, *(["-k", target.only] if target.only else [])]


def _fed(reader: str, cases: int | None, seconds: int) -> list[str]:
    program = str(Path(__file__).with_name("readers.py"))
    return [sys.executable, program, reader, f"-runs={cases or -1}", f"-max_total_time={seconds}"]


if __name__ == "__main__":
    sys.exit(main())
