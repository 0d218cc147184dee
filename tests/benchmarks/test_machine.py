"""The machine's own figures."""

import shutil
import time

import pytest

from benchmarks.machine import Memory, Watch, peak_memory


@pytest.mark.skipif(shutil.which("cc") is None, reason="the reader is compiled")
def test_memory_is_read_faster_than_any_disk_and_slower_than_light(tmp_path):
    memory = Memory(tmp_path, threads=2, largest=8_000_000)
    assert 1e8 < max(memory.bandwidth(8_000_000) for _ in range(10)) < 1e13


def test_what_this_process_does_is_not_the_work_of_others():
    watch, until = Watch(), time.monotonic() + 0.3
    while time.monotonic() < until:
        pass
    assert 0 <= watch.others() < 1.1


def test_a_large_array_raises_the_peak():
    before = peak_memory()
    block = bytearray(b"x" * 50_000_000)
    assert peak_memory() >= before
    assert peak_memory() > len(block)
