"""What the machine itself does: how fast it reads memory, and how busy others keep it."""

import ctypes
import os
import resource
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("bandwidth.c")
LINE = 64  # bytes of a cache line
READ_FOR = 0.06  # seconds


class Memory:
    """A buffer that is read from its beginning to a given size, over and over, by some threads."""

    def __init__(self, folder: Path, threads: int, largest: int) -> None:
        """Compiles the reader with the machine's own instructions, in folder."""
        library = folder / "bandwidth.so"
        folder.mkdir(parents=True, exist_ok=True)
        command = ["cc", "-O3", "-march=native", "-shared", "-fPIC", str(SOURCE)]
        subprocess.run([*command, "-o", str(library)], check=True)
        self._read = ctypes.CDLL(str(library)).read_all
        self._read.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        self._read.restype = ctypes.c_uint64
        self._threads = threads
        self._buffer = np.ones(largest // 8 + LINE, dtype=np.uint64)
        self._start = -(-self._buffer.ctypes.data // LINE) * LINE
        self._pool = ThreadPoolExecutor(threads)

    def bandwidth(self, size: float) -> float:
        """Bytes per second when `size` bytes are read again and again, each thread its own part."""
        part = int(size) // self._threads // LINE * LINE
        parts = [self._start + n * part for n in range(self._threads)]
        passes, seconds = 1, 0.0
        while seconds < READ_FOR:
            passes = max(passes + 1, int(passes * 1.3 * READ_FOR / seconds) if seconds else 1)
            began = time.perf_counter()
            list(self._pool.map(lambda start, n=passes: self._read(start, part, n), parts))
            seconds = time.perf_counter() - began
        return part * self._threads * passes / seconds


class Watch:
    """What share of this process' cores others took since the watch was started.

    Time that the host of a virtual machine gave to others counts, too.
    """

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), _busy(), _own()

    def others(self) -> float:
        """The share, from 0 to 1."""
        elapsed = (time.monotonic() - self._began) * len(os.sched_getaffinity(0))
        return max(0.0, (_busy() - self._busy) - (_own() - self._own)) / elapsed


def _busy() -> float:
    """Seconds that the cores this process may use have worked, for whomever."""
    cores = {f"cpu{n}" for n in os.sched_getaffinity(0)}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in cores:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_memory() -> int:
    """Most bytes this process has had in memory, files it has mapped included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("Linux says VmHWM")
