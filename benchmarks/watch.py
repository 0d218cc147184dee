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
    time.sleep(0.02)
"""


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[list[float]]:
    """Seconds for each answer of url's /health while the block runs, there when it has ended."""
    answers: list[float] = []
    watching = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _WATCH, f"{url}/health", stdout=asyncio.subprocess.PIPE
    )
    try:
        yield answers
    finally:
        watching.terminate()
        said, _ = await watching.communicate()
        answers += [float(line) for line in said.split()]
