"""What a database's errors mean for whoever runs storygen: the driver's words, and the way out."""

from typing import Final

NOT_SAVED: Final = "Nothing was saved: "

# By the name of SQLite's error.
_SQLITE: Final = {
    "SQLITE_BUSY": "Another program holds it: close that one and try again.",
    "SQLITE_FULL": NOT_SAVED + "make room on the disk and try again.",
    "SQLITE_IOERR": NOT_SAVED + "see whether the disk is full or failing, then try again.",
    "SQLITE_READONLY": NOT_SAVED + "let this user write the file and its folder.",
    "SQLITE_CANTOPEN": "Let this user read and write the file and its folder.",
    "SQLITE_CORRUPT": "Move the file away to start anew; sqlite3's .recover may save its stories.",
    "SQLITE_NOTADB": "Move the file away: a new one is made at the next start.",
}
# By the beginning of PostgreSQL's error code.
_POSTGRESQL: Final = {
    "28": "See whether STORYGEN_DATABASE_URL names the right user and password.",
    "3D000": "Make it with createdb, or correct its name in STORYGEN_DATABASE_URL.",
    "42501": "Let this user own the database: ALTER DATABASE ... OWNER TO ...",
    "53100": NOT_SAVED + "make room on the server's disk and try again.",
    "53": NOT_SAVED + "the server has no room for more; try again later.",
    "55P03": NOT_SAVED + "another program holds it; try again.",
    "57P": NOT_SAVED + "its server is stopping or starting; try again in a moment.",
    "08": NOT_SAVED + "see whether its server runs and can be reached, then try again.",
}
_NO_ANSWER: Final = _POSTGRESQL["08"]
_ANY: Final = "Try again."


def remedy(reason: BaseException) -> str:
    """What to do about a driver's error, or about one of the operating system's."""
    sqlite_name = getattr(reason, "sqlite_errorname", "")
    code = getattr(reason, "sqlstate", None) or ""
    for name, known in ((sqlite_name, _SQLITE), (code, _POSTGRESQL)):
        for beginning, sentence in known.items():
            if name.startswith(beginning):
                return sentence
    is_unreachable = isinstance(reason, OSError) or "connection" in str(reason).lower()
    return _NO_ANSWER if is_unreachable else _ANY


def words(reason: BaseException) -> str:
    """The driver's own words, without the rows that PostgreSQL quotes on further lines."""
    return str(reason).splitlines()[0] if str(reason) else type(reason).__name__


DAMAGED: Final = _SQLITE["SQLITE_CORRUPT"]
