"""A system's process, seen from the one that measures."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers import PEERS, Missing

# No calls to the makers of OpenVINO and nncf, no look-ups on the hub.
QUIET = {"CI": "true", "NNCF_CI": "1", "HF_HUB_OFFLINE": "1"}


class Process:
    """Starts a worker; close it by leaving the `with` block.

    Raises Missing with its reason where the system cannot run here. What it prints goes to a log.
    """

    def __init__(self, name: str, directory: Path, work: Path, threads: int, streams: int) -> None:
        peer = PEERS[name]
        work.mkdir(parents=True, exist_ok=True)
        self.name, self.log = name, work / f"{peer.form}.log"
        settings = [str(directory), str(work), str(threads), str(streams)]
        self._start(threads, peer.file, f"prepare {peer.form}", *settings)
        self.close()
        self._start(threads, peer.file, peer.form, *settings)
        self.load: float = self._ready["load"]

    def _start(self, threads: int, *arguments: str) -> None:
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.peers.worker", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | QUIET | {"OMP_NUM_THREADS": str(threads)},
            )
        self._ready = self._reply()
        if "missing" in self._ready:
            self.close()
            raise Missing(self._ready["missing"])

    def ask(self, **request: Any) -> dict[str, Any]:
        """The reply to a request of worker.turn."""
        assert self._process.stdin is not None
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            lines = self.log.read_text(errors="replace").splitlines()
            raise Missing(f"it failed: {lines[-1] if lines else 'without a word'} ({self.log})")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
