"""What a request says: JSON, bounded, and every field of it known and of its kind."""

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.requests import Request

from storygen.serve.refusals import Refused

MOST_BYTES = 8_000_000
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
            raise Refused(400, f"{self._where}{name[:80]} is no field here: {known}.", param=name)

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


async def fields_of(request: Request) -> Fields:
    """The body's; raises Refused."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        sentence = f"The body must be application/json, not {kind[:80] or 'of no stated kind'}."
        raise Refused(415, sentence)
    body = await _bounded(request)
    try:
        found = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        told = str(error) if isinstance(error, json.JSONDecodeError | _NoNumber) else "not UTF-8"
        raise Refused(400, f"The body is not JSON: {told}.") from None
    if not isinstance(found, dict):
        raise Refused(400, f"The body must be an object, not {short(found)}.")
    return Fields(found)


async def _bounded(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            told = f"The body has more than {MOST_BYTES:,} bytes: send less at a time."
            raise Refused(413, told)
    return bytes(body)


class _NoNumber(ValueError):
    """NaN and infinities, which JSON has not."""


def _no_number(name: str) -> NoReturn:
    raise _NoNumber(f"{name} is no number")
