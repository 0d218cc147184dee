"""What a request says: JSON, bounded, and every field of it known and of its kind."""

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.requests import Request

from storygen.incoming import Bounds, Incoming, NotTaken
from storygen.serve.refusals import BUSY_SECONDS, Refused
from storygen.structure import is_plain

MOST_BYTES = 8_000_000
MOST_OF_USER, MOST_TOGETHER = 64_000_000, 256_000_000  # bytes of bodies that are being read
READ_SECONDS = 60.0
MOST_STRUCTURE = 100_000  # characters that are not in texts
LARGEST = 2**63 - 1
LONGEST_NAME = 200


class Fields:
    """The fields of a JSON object, taken one by one; null counts as left out."""

    def __init__(self, found: Mapping[str, Any], where: str = "") -> None:
        self._left = {name: value for name, value in found.items() if value is not None}
        self._where = where

    def take(self, name: str) -> Any:
        """Whatever it is, None where it is not there."""
        return self._left.pop(name, None)

    def text(self, name: str, longest: int = LONGEST_NAME, default: str | None = "") -> str:
        """A text; one with no default must be there."""
        value = self.take(name)
        if value is None:
            if default is None:
                self.refuse(name, "is missing")
            return default
        if not isinstance(value, str):
            self.refuse(name, "must be text", value)
        if len(value) > longest:
            self.refuse(name, f"has {len(value):,} characters and may have {longest:,}")
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Yes or no."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "must be true or false", value)
        return default if value is None else value

    def whole(self, name: str, low: int, high: int) -> int | None:
        """A whole number."""
        value = self.take(name)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value != int(value):
            self.refuse(name, f"must be a whole number from {low} to {high}", value)
        if not low <= value <= high:
            self.refuse(name, f"must be from {low} to {high}", value)
        return int(value)

    def inner(self, name: str) -> "Fields | None":
        """The fields of an object within."""
        value = self.take(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.refuse(name, "must be an object", value)
        return Fields(value, f"{self._where}{name}.")

    def finish(self) -> None:
        """Refuse what nobody has taken."""
        for name in self._left:
            known = "docs/api.md has the list of those there are"
            field = f"{self._where}{name[:80]}"
            raise Refused(400, f"{field} is no field here: {known}.", param=field)

    def refuse(self, name: str, why: str, value: object = None) -> NoReturn:
        """Say what is wrong with a field."""
        shown = "" if value is None else f", not {short(value)}"
        raise Refused(400, f"{self._where}{name} {why}{shown}.", param=f"{self._where}{name}")


def short(value: object) -> str:
    """A value as it can stand in a sentence."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) > 10**30:
        return "a number of more than 30 digits"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:40] + "..."


class Bodies:
    """The bodies of all requests."""

    def __init__(self) -> None:
        self._incoming = Incoming()

    async def fields(self, request: Request, user: str) -> Fields:
        """A user's; raises Refused, and ClientDisconnect."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            sentence = f"The body must be application/json, not {kind[:80] or 'of no stated kind'}."
            raise Refused(415, sentence)
        bounds = Bounds(MOST_BYTES, MOST_OF_USER, MOST_TOGETHER, READ_SECONDS)
        try:
            async with self._incoming.body(request, user, bounds) as body:
                found = _parsed(body)
        except NotTaken as refusal:
            raise _too_much(refusal) from None
        if not isinstance(found, dict):
            raise Refused(400, f"The body must be an object, not {short(found)}.")
        return Fields(found)


def _parsed(body: bytearray) -> Any:
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        if not is_plain(text, MOST_STRUCTURE):
            told = f"The body has more than {MOST_STRUCTURE:,} characters that are not in texts"
            raise Refused(400, f"{told}: no request here has so many fields and lists.")
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        told = str(error) if isinstance(error, json.JSONDecodeError | _NoNumber) else "not UTF-8"
        raise Refused(400, f"The body is not JSON: {told}.") from None


def _too_much(refusal: NotTaken) -> Refused:
    if refusal.status == 413:
        told = f"The body has more than {MOST_BYTES:,} bytes: send less at a time."
        return Refused(413, told)
    if refusal.status == 408:
        told = f"The body was not there within {READ_SECONDS:g} seconds: send it again."
        return Refused(408, told)
    whose = "your" if refusal.status == 429 else "all"
    told = f"Too many bytes of {whose} requests are being read just now: try again in a moment."
    return Refused(refusal.status, told, code="busy", wait=BUSY_SECONDS)


class _NoNumber(ValueError):
    """NaN and infinities, which JSON has not."""


def _no_number(name: str) -> NoReturn:
    raise _NoNumber(f"{name} is no number")
