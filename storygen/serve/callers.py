"""Callers: who asks, by a key; or, where there are no keys, a program on this machine."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.requests import Request

from storygen.accounts.command import LOCAL_WRITER
from storygen.accounts.keys import NOBODY, Keys
from storygen.accounts.limiter import Limiter
from storygen.hosts import is_loopback, name_of
from storygen.serve.refusals import BUSY_SECONDS, Refused

MOST_OPEN = 32  # requests of a user
LONGEST_NAME = 200  # of whom a caller speaks for


@dataclass(frozen=True)
class Caller:
    """user is by whom what is short is shared out. Who speaks for many names them: a chat, with
    the installation's own key, or whoever needs none. No user does, not even an administrator."""

    user: str
    speaks_for_many: bool = False

    def on_behalf_of(self, name: str) -> str:
        """Whose request it is."""
        return f"{self.user}/{name[:LONGEST_NAME]}" if name and self.speaks_for_many else self.user


class Callers:
    """Tells who asks. Without keys everybody is the local writer, and nobody may be a web page of
    another origin, or come by another name of this machine (DNS rebinding)."""

    def __init__(self, keys: Keys | None) -> None:
        self._keys = keys
        self._wrong = Limiter()
        self._open = Counter[str]()  # requests of each user that are not answered to the end

    async def caller(self, request: Request) -> Caller:
        """Who asks; raises Refused."""
        if self._keys is None:
            _require_local(request)
            return Caller(LOCAL_WRITER, speaks_for_many=True)
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        user = await self._keys.user(key.strip() if scheme.lower() == "bearer" else "")
        if user is not None:
            return Caller(user.id, speaks_for_many=user.id == NOBODY)
        if key:  # who shows none is not guessing
            address = request.client.host if request.client else ""
            if wait := self._wrong.wait(address):
                told = f"Too many wrong keys. Wait {wait} seconds, then show a valid one."
                raise Refused(429, told, code="too_many_wrong_keys", wait=wait)
            self._wrong.count(address)
        raise Refused(
            401,
            "A valid key is needed, as Authorization: Bearer sg-... Make one with: "
            "python -m storygen keys add USER",
            code="invalid_api_key",
        )

    @contextmanager
    def one_more(self, caller: Caller) -> Iterator[None]:
        """A request of theirs, for as long as the block takes; raises Refused where so many are
        open that their answers alone would be much to keep."""
        if not caller.speaks_for_many and self._open[caller.user] >= MOST_OPEN:
            told = f"{MOST_OPEN} of your requests are open: wait until one is answered and read."
            raise Refused(429, told, code="busy", wait=BUSY_SECONDS)
        self._open[caller.user] += 1
        try:
            yield
        finally:
            self._open[caller.user] -= 1
            self._open = +self._open


def _require_local(request: Request) -> None:
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if not is_loopback(name_of(host)):
        raise Refused(403, f"This API is not served as {host[:80]!r}: ask it as 127.0.0.1.")
    if origin is not None and origin.lower() not in {f"http://{host}".lower()}:
        raise Refused(403, f"Pages of {origin[:80]!r} may not use this API.")
