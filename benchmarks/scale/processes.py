"""What processes have used, as Linux counts it, and what goes through a socket."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def family(process: int) -> list[int]:
    """A process and those that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [process]
    for one in found:
        found += parents.get(one, [])
    return found


def cpu_seconds(process: int) -> float:
    """Processor time of a process and its descendants, those included that have ended and were
    waited for."""
    ticks = 0
    for one in family(process):
        with suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICK


def resident(process: int) -> float:
    """Megabytes (10**6) of a process in memory."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("Linux says VmRSS")


def bytes_asked_to_write(process: int) -> int:
    """Bytes that a process has handed to write() and its like, files and sockets both."""
    for line in Path(f"/proc/{process}/io").read_text().splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise AssertionError("Linux says wchar")


class Counter:
    """Bytes that came from each side of a wire."""

    def __init__(self) -> None:
        self.up = self.down = 0


@asynccontextmanager
async def wire(port: int) -> AsyncIterator[tuple[int, Counter]]:
    """A port of this machine that leads to another, and what has gone through."""
    counter = Counter()

    async def pass_on(
        source: asyncio.StreamReader, target: asyncio.StreamWriter, side: str
    ) -> None:
        while data := await source.read(2**16):
            setattr(counter, side, getattr(counter, side) + len(data))
            target.write(data)
            await target.drain()
        target.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError):
            await asyncio.gather(pass_on(reader, back, "up"), pass_on(there, writer, "down"))

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], counter
