"""How soon a page answers while something else goes on there."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

# In a process of its own: whoever keeps the page busy is busy too.
_WATCH = """
import sys, time, urllib.request
while True:
    began = time.perf_counter()
    urllib.request.urlopen(sys.argv[1]).read()
    print(time.perf_counter() - began, flush=True)
    time.sleep(0.05)
"""


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[list[float]]:
    """Seconds for each answer of url's /health, asked for every 50 ms while the block runs; there
    when it has ended. The block begins when the first has come, not while Python starts."""
    answers: list[float] = []
    watching = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WATCH, f"{url}/health", stdout=asyncio.subprocess.PIPE
    )
    assert watching.stdout is not None
    await watching.stdout.readline()
    try:
        yield answers
    finally:
        watching.terminate()
        said, _ = await watching.communicate()
        answers += [float(line) for line in said.split()]
