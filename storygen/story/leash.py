"""Programs that work on what strangers sent: in processes of their own, on a leash.

What is on it ends when it wants too much time or memory, and with the server; nothing it does holds
up this process, where everyone's words come from.
"""

import resource
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import killpg
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, Final

from storygen.errors import StoryError

TOO_MUCH_MEMORY: Final = "it takes too much memory"
_DAMAGED: Final = "it is damaged, or not what it says it is"
_ENVIRONMENT: Final = {"LANG": "C.UTF-8"}

running: set[Popen[bytes]] = set()
stopping = threading.Event()
_own_group: int | None = 0  # each has one, with all that it starts itself


def stop() -> None:
    """End everything, and begin nothing any more: the server is to end."""
    stopping.set()
    for process in list(running):
        _kill(process)


def share_group() -> None:
    """For a process that is on a leash itself: what it starts ends with it."""
    global _own_group
    _own_group = None


@contextmanager
def leashed(
    command: Sequence[str],
    *data: bytes | bytearray,
    seconds: int,
    patience: float,
    memory: int | None = None,
    cwd: str | None = None,
    codes: Mapping[int, str] | None = None,
) -> Iterator[IO[bytes]]:
    """What a program writes that is given data; ended when the block ends.

    Raises StoryError, as the end of a sentence, where it took more than `seconds` of a processor,
    `patience` seconds in all or `memory` bytes, or exits with a code, which codes has words for.
    """
    process = Popen(
        command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        env=_ENVIRONMENT,
        cwd=cwd,
        process_group=_own_group,
    )
    killed = threading.Event()

    def lose_patience() -> None:
        killed.set()
        _kill(process)

    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        _limit(process, seconds, memory)
        running.add(process)
        timer = threading.Timer(0.0 if stopping.is_set() else patience, lose_patience)
        feeder = threading.Thread(target=_feed, args=(process.stdin, data))
        timer.start()
        feeder.start()
        try:
            yield process.stdout
            code = process.wait()
        finally:
            _kill(process)
            timer.cancel()
            feeder.join()
            running.discard(process)
    if stopping.is_set():
        raise StoryError("the server is being stopped, so try again later")
    if killed.is_set() or code == -signal.SIGXCPU:
        raise StoryError(f"it takes longer than {patience if killed.is_set() else seconds:.0f} s")
    if code != 0:
        raise StoryError((codes or {}).get(code, _DAMAGED))


def _limit(process: Popen[bytes], seconds: int, memory: int | None) -> None:
    if not hasattr(resource, "prlimit"):  # which Linux alone has
        return
    with suppress(ProcessLookupError):  # it has ended
        resource.prlimit(process.pid, resource.RLIMIT_CPU, (seconds, seconds + 1))
        if memory is not None:  # what is written to, not what is set aside as Haskell's programs do
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory, memory))


def _kill(process: Popen[bytes]) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        if _own_group is None:
            process.kill()
        else:
            killpg(process.pid, signal.SIGKILL)


def _feed(pipe: IO[bytes], data: Sequence[bytes | bytearray]) -> None:
    """Write what the process reads; it may end before it has read all."""
    with suppress(BrokenPipeError), pipe:
        for part in data:
            pipe.write(part)
