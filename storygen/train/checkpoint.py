"""The state of a run on disk: everything the next step depends on, newest good one first.

Each checkpoint is a directory step-NNNNNNN with tensors (weights, optimizer moments, random
generators), state.json and SHA256SUMS. The last two are kept, so a damaged one costs minutes.
"""

import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from storygen.errors import TrainError
from storygen.files import atomic_directory, write_sums, wrong_sum

KEPT = 2


def write_checkpoint(
    run: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]
) -> None:
    """Write a checkpoint of this step, all or nothing, and drop those older than the last two.

    Raises TrainError when the disk does not take it; the older ones are then as they were. A run
    that is gone is not made anew: where its store is no longer mounted, that would be elsewhere.
    """
    directory = run / f"step-{step:07d}"
    try:
        os.stat(run)
        with atomic_directory(directory) as new:
            named = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
            save_file(named, new / "state.safetensors")
            (new / "state.json").write_text(json.dumps(state), encoding="utf-8")
            write_sums(new)
    except (OSError, SafetensorError) as error:
        raise TrainError(
            f"{directory} could not be written ({error}). The checkpoint before it is kept, and "
            "--resume goes on from there when the disk takes files again."
        ) from None
    with suppress(OSError):  # it is tried again after the next one
        for old in _newest_first(run)[KEPT:]:
            shutil.rmtree(old)
        for cut_off in run.glob("step-*.*"):  # by a kill; only one process writes into a run
            shutil.rmtree(cut_off)


def read_checkpoint(run: Path) -> tuple[dict[str, Tensor], dict[str, Any], list[str]] | None:
    """Tensors and state of the newest checkpoint that is whole, and the names of damaged newer
    ones; None where there is none. Raises TrainError when all are damaged."""
    damaged: list[str] = []
    for directory in _newest_first(run):
        try:
            if (directory / "SHA256SUMS").is_file() and wrong_sum(directory) is None:
                state = json.loads((directory / "state.json").read_text(encoding="utf-8"))
                return load_file(directory / "state.safetensors"), state, damaged
        except (OSError, ValueError, SafetensorError):
            pass  # told below, like a wrong sum
        damaged.append(directory.name)
    if damaged:
        raise TrainError(
            f"All checkpoints of {run} are damaged ({', '.join(damaged)}). Move them away to begin "
            "anew, or choose another --out."
        )
    return None


def _newest_first(run: Path) -> list[Path]:
    found = [p for p in run.glob("step-*") if re.fullmatch(r"step-\d{7}", p.name)]
    return sorted(found, reverse=True)
