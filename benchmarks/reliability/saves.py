"""What it costs a training run that its checkpoints are on the disk before they count.

    python -m benchmarks.reliability.saves [--mb 500] [--saves 5] [--dir DIR]

Writes checkpoints of that size as a run does, with and without waiting for the disk, and says what
share of a run it is when one is written as often as the recipes have it. DIR is a folder on the
disk that is meant, this one if not said.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch

from storygen import files
from storygen.train.checkpoint import write_checkpoint
from storygen.train.config import TrainConfig

MOST = 0.05  # of a run


def main() -> int:
    """Measure; 1 where the disk costs more than it may."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mb", type=int, default=500)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=Path())
    args = parser.parse_args()
    state = {"weights": torch.randn(args.mb * 10**6 // 4)}
    every = 60 * TrainConfig.model_fields["checkpoint_minutes"].default
    with tempfile.TemporaryDirectory(dir=args.dir) as run:

        def save(step: int) -> None:
            write_checkpoint(Path(run), step, {**state}, {"step": step})

        synced = [timed(save, step) for step in range(args.saves)]
        with patch.object(files, "sync", lambda _: None):
            unsynced = [timed(save, step) for step in range(args.saves, 2 * args.saves)]
    seconds = statistics.median(synced)
    disk = max(0.0, seconds - statistics.median(unsynced))
    print(f"{args.mb} MB: {seconds:.2f} s a checkpoint, {disk:.2f} s of it for the disk")
    print(f"every {every:.0f} s: {seconds / every:.2%} of a run, {disk / every:.2%} for the disk")
    return int(disk / every > MOST)


def timed(save: Callable[[int], None], step: int) -> float:
    """Seconds of a save."""
    began = time.perf_counter()
    save(step)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
