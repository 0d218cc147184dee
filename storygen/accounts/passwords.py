"""Passwords: which are taken, how they are kept, how they are tried.

The rules are those of NIST SP 800-63B: length counts, kinds of characters do not, and what
everybody tries first is refused.
"""

import asyncio
import secrets
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from storygen.errors import AccountError
from storygen.text import whole_characters

SHORTEST, LONGEST = 10, 200  # characters
MOST_WAITING = 32  # tries that may wait for the two that are being worked out

# Of the lists of leaked passwords, the commonest that are long enough to be taken otherwise.
COMMONEST = frozenset(
    """
    1234567890 12345678910 123456789a 123456789q 0123456789 0987654321 9876543210 1122334455
    1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx3edc qwertyuiop qwerty12345 qwerty123456 qwertyuiop123
    asdfghjkl1 asdfghjklz zxcvbnm123 abcdefghij abcdefghijk abcd123456 abc1234567 a123456789
    password12 password123 password1234 password12345 passw0rd123 mypassword thepassword
    iloveyou12 iloveyou123 iloveyou1234 letmein123 letmein1234 welcome123 welcome1234
    administrator admin12345 admin123456 changeme123 changemenow football123 baseball123
    basketball princess123 sunshine123 superman123 startrek123 correcthorse
    correcthorsebatterystaple
    """.split()
)

_hasher = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)  # RFC 9106, of 64 MiB
_workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="password")
_waiting = 0


def require_good(password: str, name: str) -> None:
    """Raise AccountError for a password that is too short, too long or too easily guessed."""
    text = _normal(password)
    if not SHORTEST <= len(text) <= LONGEST:
        raise AccountError(
            f"A password has {SHORTEST} to {LONGEST} characters, not {len(text)}: "
            "a few words that do not belong together are good."
        )
    plain, own = text.casefold(), _normal(name).casefold()
    if plain in COMMONEST or len(set(plain)) < 3:
        raise AccountError("This password is among the first that are tried: take another.")
    if own and plain.replace(own, "").strip("0123456789 .-_!") == "":
        raise AccountError("The password is the name itself, which is tried first: take another.")


async def hashed(password: str) -> str:
    """What is kept of a password."""
    return await asyncio.get_running_loop().run_in_executor(
        _workers, _hasher.hash, _normal(password)
    )


async def matches(kept: str | None, password: str) -> bool:
    """Whether a password is the one of which this was kept.

    With nothing kept (no such user, no password) it takes as long to say no. Raises AccountError
    when too many are being tried already.
    """
    global _waiting
    if _waiting >= MOST_WAITING:
        raise AccountError("Too many are signing in just now. Try again in a minute.")
    _waiting += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_workers, _try, kept, password)
    finally:
        _waiting -= 1


def _try(kept: str | None, password: str) -> bool:
    nobody = _nobody()  # also where it is not needed: the first call is the slow one
    text = _normal(password)
    try:
        return _hasher.verify(kept or nobody, text[: LONGEST + 1]) and kept is not None
    except (VerificationError, InvalidHashError):
        return False


@cache
def _nobody() -> str:
    """A hash that no password has."""
    return _hasher.hash(secrets.token_urlsafe())


def _normal(password: str) -> str:
    """The same characters, however a keyboard put them together."""
    return unicodedata.normalize("NFKC", whole_characters(password))
