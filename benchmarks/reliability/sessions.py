"""Windows opened and closed by the thousand: what the server's memory is afterwards.

    python -m benchmarks.reliability.sessions [--count 1000] [--messages 10] [--warm-up 100]

Each window opens, has a few messages answered, and is closed; some vanish without a word, some
while a passage is being written. Some before these make the server as large as it has to be.
Prints a line with the memory in MB, and ends with 1 when it grew by more than 50 MB. The promise is
of 100 messages each; 10 are what one core does of them in half an hour.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.protocol.conftest import Client, Server, serve

GROWTH = 50  # MB
AT_ONCE = 8
SETTLING = 330.0  # seconds; the server keeps a session for 300 after its window is gone
COMMAND = [sys.executable, "-m", "tests.protocol.serve", "{port}"]


def resident(server: Server) -> float:
    """MB of memory that the server has."""
    status = Path(f"/proc/{server.process.pid}/status").read_text(encoding="ascii")
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1000


async def visit(server: Server, cookie: str, number: int, messages: int) -> None:
    """One window, from its opening to its end."""
    draw = random.Random(number)
    client = Client(server, cookie)
    await client.connect()
    await client.set(max_new_tokens=20)
    for n in range(messages):
        await client.send(f"Message {n}. " + "A long line of some story. " * 50)
        await client.finished()
    if draw.random() < 0.3:
        await client.send("And while it is being written:")
        await client.until(lambda: any(event == "stream_start" for _, event, _ in client.events))
    if draw.random() < 0.3:
        await client.socket.eio.ws.close()  # without a word
    await client.socket.disconnect()


async def visits(server: Server, cookie: str, numbers: range, messages: int) -> None:
    """All of them, some at a time."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with free:
            await visit(server, cookie, number, messages)

    await asyncio.gather(*(one(number) for number in numbers))


def main() -> int:
    """Measure before and after."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=100, help="windows before the count")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = serve(Path(folder) / "data", COMMAND)
        try:
            asyncio.run(visits(server, server.cookie, range(args.warm_up), args.messages))
            time.sleep(SETTLING)
            before, begun = resident(server), time.monotonic()
            counted = range(args.warm_up, args.warm_up + args.count)
            asyncio.run(visits(server, server.cookie, counted, args.messages))
            took, peak = time.monotonic() - begun, resident(server)
            time.sleep(SETTLING)
            after = resident(server)
        finally:
            code = server.stop()
    print(
        f"{args.count} windows of {args.messages} messages, {took:.0f} s: {before:.0f} MB before, "
        f"{peak:.0f} at their end, {after:.0f} later; exit code {code}"
    )
    return int(after > before + GROWTH)


if __name__ == "__main__":
    sys.exit(main())
