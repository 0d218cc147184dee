"""Backups: a database as one file that says what it is and knows whether it is whole.

A zip archive of a manifest and the database: SQLite's file, or what pg_dump makes. It is made while
storygen runs, and put back while it does not; what was there before is kept beside.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from storygen.errors import StoryError
from storygen.files import sha256, sweep, sync
from storygen.story.claims import RUNNING, claim_file
from storygen.story.database import Database, place_of
from storygen.story.schema import api_keys, sign_ins

FORMAT: Final = 1
MANIFEST, CONTENT = "manifest.json", "database"
MAX_MANIFEST = 10_000
CHUNK = 1 << 20
WORK = ".storygen-backup"  # a folder for what is not whole yet
# A backup older than accounts has no such tables.
SIGN_OUT: Final = """DO $$ BEGIN
IF to_regclass('public.sign_ins') IS NOT NULL THEN DELETE FROM public.sign_ins; END IF;
IF to_regclass('public.api_keys') IS NOT NULL THEN DELETE FROM public.api_keys; END IF;
END $$"""


COUNT: Final = "SELECT count(*) FROM stories"
REVISION: Final = "SELECT version_num FROM alembic_version"


async def back_up(url: str, target: Path) -> Mapping[str, Any]:
    """Write a backup of the database as it is at this moment; its manifest.

    Nothing is made nor brought up to date: who backs up before an update runs the new code beside
    the old. Raises StoryError where there are no stories. Nothing else goes on meanwhile: a signal
    that ends the program would not end a thread.
    """
    file = _file_of(url)
    said = await _said_by_server(url) if file is None else {}
    return _pack(url, file, said, target)


def _file_of(url: str) -> Path | None:
    """Where SQLite keeps a database, None where a server does, or nobody can."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        return None
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return None
    return Path(str(parsed.database)).expanduser().absolute()


async def _said_by_server(url: str) -> dict[str, Any]:
    """What a manifest says of a server's database."""
    database = Database.as_it_is(url)
    try:
        async with database.read() as connection:
            there = await connection.exec_driver_sql(
                "SELECT to_regclass('public.stories') IS NOT NULL "
                "AND to_regclass('public.alembic_version') IS NOT NULL"
            )
            if not there.scalar_one():
                raise StoryError(
                    f"{database.place} has no stories in it, so nothing is backed up. Correct "
                    "STORYGEN_DATABASE_URL."
                )
            return {
                "stories": (await connection.exec_driver_sql(COUNT)).scalar_one(),
                "schema": (await connection.exec_driver_sql(REVISION)).scalar_one(),
            }
    finally:
        await database.close()


def _pack(url: str, file: Path | None, said: Mapping[str, Any], target: Path) -> Mapping[str, Any]:
    if target.exists():
        raise StoryError(f"{target} is there already. Name a file that is not.")
    if file is not None and not file.is_file():
        raise StoryError(
            f"There is no story database {file}, so nothing is backed up. Say where it is with "
            "STORYGEN_DATA_DIR or STORYGEN_DATABASE_URL."
        )
    with _folder_beside(target) as folder:
        content = folder / CONTENT
        if file is not None:
            _copy_sqlite(file, content)
            said = _said_by_file(content, file)
        else:
            _run("pg_dump", url, "--format=custom", "--table=public.*", f"--file={content}")
        manifest = dict(said) | {
            "format": FORMAT,
            "kind": "postgresql" if file is None else "sqlite",
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "bytes": content.stat().st_size,
            "sha256": sha256(content),
        }
        packed = folder / "packed"
        with zipfile.ZipFile(packed, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr(MANIFEST, json.dumps(manifest, indent=2))
            archive.write(content, CONTENT)
        packed.chmod(0o600)
        sync(packed)
        packed.rename(target)
        sync(target.parent)
    return manifest


async def restore(url: str, source: Path) -> str:
    """Put a backup in the place of the database, once it has proved whole; where the old one is.

    Nobody is signed in afterwards: who signed out since must not be in again, nor whoever they
    signed out. Raises StoryError, and changes nothing, while a program uses the database.
    """
    parsed = sa.make_url(url)
    is_file = parsed.get_backend_name() == "sqlite"
    place = _place(str(parsed.database)) if is_file else Path(tempfile.gettempdir()) / "restore"
    with _folder_beside(place) as folder:
        content = folder / CONTENT
        manifest = _unpack(source, content)
        kind = "sqlite" if is_file else "postgresql"
        if manifest["kind"] != kind:
            raise StoryError(
                f"{source} is a backup of {manifest['kind']}, and {place_of(parsed)} is {kind}. "
                "Choose the database that it was made of with STORYGEN_DATABASE_URL."
            )
        if is_file:
            if damage := _damage(content):
                raise StoryError(
                    f"The database in {source} is damaged ({damage}). Choose another backup."
                )
            await _sign_out(f"sqlite+aiosqlite:///{content}")
            return _replace_sqlite(place, content)
        return await _replace_postgresql(url, content)


# All that zipfile, zlib and json raise for what is damaged, encrypted or packed in another way.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    EOFError,
)


def _unpack(source: Path, content: Path) -> Mapping[str, Any]:
    """The manifest of a backup, whose database is unpacked; StoryError for what is none."""
    try:
        with zipfile.ZipFile(source) as archive:
            if archive.getinfo(MANIFEST).file_size > MAX_MANIFEST:
                raise KeyError(MANIFEST)
            manifest = json.loads(archive.read(MANIFEST))
            is_newer = manifest["schema"] not in _known_schemas()
            if is_newer or manifest["format"] != FORMAT:
                raise StoryError(f"{source} was made by a newer storygen. Update storygen first.")
            size, digest, _ = manifest["bytes"], manifest["sha256"], manifest["kind"]
            if archive.getinfo(CONTENT).file_size != size:
                raise zipfile.BadZipFile("its size is not what it says")
            content.touch(mode=0o600)  # it becomes the database
            with archive.open(CONTENT) as packed, content.open("wb") as file:
                shutil.copyfileobj(packed, file, CHUNK)
    except OSError as error:
        raise StoryError(f"{source} cannot be read: {error.strerror or error}.") from error
    except UNREADABLE as error:
        raise StoryError(
            f"{source} is no backup of storygen, or not a whole one ({error}). Choose another."
        ) from error
    if sha256(content) != digest:
        raise StoryError(f"{source} was changed since it was made. Choose another.")
    return dict(manifest)


def _known_schemas() -> set[str]:
    versions = Path(__file__).with_name("migrations") / "versions"
    return {path.name[1:5] for path in versions.glob("r*.py")}


def _copy_sqlite(source: Path, target: Path) -> None:
    """A copy of one moment, in one step, while others write; checked before it is believed."""
    try:
        there = f"{source.as_uri()}?mode=rw"  # and none is made in its place
        with (
            closing(sqlite3.connect(there, uri=True)) as old,
            closing(sqlite3.connect(target)) as new,
        ):
            old.backup(new)
            new.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        if damage := _damage(target):
            raise sqlite3.DatabaseError(damage)
    except sqlite3.Error as error:
        raise StoryError(
            f"{source} cannot be copied ({error}). See whether the disk is full or failing."
        ) from error


def _said_by_file(copy: Path, source: Path) -> dict[str, Any]:
    """What a manifest says of the copy of a file."""
    try:
        with closing(sqlite3.connect(copy)) as database:
            (count,), (revision,) = (database.execute(q).fetchone() for q in (COUNT, REVISION))
    except (sqlite3.Error, TypeError) as error:  # no such table, or nothing in it
        raise StoryError(
            f"{source} has no stories of storygen in it, so nothing is backed up. Say where they "
            "are with STORYGEN_DATA_DIR or STORYGEN_DATABASE_URL."
        ) from error
    return {"stories": count, "schema": revision}


def _damage(file: Path) -> str:
    """What is wrong with a database, or nothing."""
    try:
        with closing(sqlite3.connect(file)) as database:
            found = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found == "ok" and database.execute("PRAGMA foreign_key_check").fetchone():
                found = "a row names another that is missing"
    except sqlite3.Error as error:
        found = str(error)
    return "" if found == "ok" else found


async def _sign_out(url: str) -> None:
    """Bring a database that nobody uses up to date, and end all sign-ins and keys."""
    database = await Database.open(url)
    try:
        async with database.write() as connection:
            await connection.execute(sign_ins.delete())
            await connection.execute(api_keys.delete())  # one may have been revoked since
    finally:
        await database.close()


def _replace_sqlite(place: Path, content: Path) -> str:
    """Exchange the file. At every moment the old one or the new one is there."""
    lock = claim_file(place)
    try:
        sync(content)
        if not place.exists():
            content.replace(place)
            sync(place.parent)
            return ""
        before = place.with_name(f"{place.name}.before-{_now()}")
        try:  # what is in its log goes into the file; the last to close takes the log away
            with closing(sqlite3.connect(place)) as old:
                old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                old.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error:  # too damaged: its log goes with it
            for ending in ("-wal", "-shm"):
                log = place.with_name(place.name + ending)
                if log.exists():
                    log.rename(before.with_name(before.name + ending))
        os.link(place, before)
        content.replace(place)
        sync(place.parent)
        return str(before)
    finally:
        lock.release()


async def _replace_postgresql(url: str, content: Path) -> str:
    """Exchange the tables in one transaction; the old ones stay in a schema of their own."""
    script, move = content.with_name("restore.sql"), content.with_name("move.sql")
    _run("pg_restore", None, "--no-owner", "--no-privileges", f"--file={script}", str(content))
    database = Database.as_it_is(url)
    session = await database.session()
    try:
        with database.errors_as_sentences():
            alone = sa.select(sa.func.pg_try_advisory_lock(RUNNING))
            if not (await session.execute(alone)).scalar_one():
                raise StoryError(f"{database.place} is in use by storygen. Stop that first.")
            tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            names = (await session.exec_driver_sql(tables)).scalars().all()
        before = f"before_{_now().replace('-', '_')}"
        steps = [f"CREATE SCHEMA {before};"]
        quoted = [f'"{name}"' for name in names]
        steps += [f"ALTER TABLE public.{name} SET SCHEMA {before};" for name in quoted]
        move.write_text("\n".join(steps), encoding="utf-8")
        options = ["--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"]
        _run("psql", url, *options, f"--file={move}", f"--file={script}", f"--command={SIGN_OUT}")
    finally:
        await session.close()
        await database.close()
    await (await Database.open(url)).close()  # an older schema is brought up to date
    return f"the schema {before} of the same database"


def _run(name: str, url: str | None, *arguments: str) -> None:
    """Run one of PostgreSQL's programs on a database; StoryError with its words if it fails."""
    program = shutil.which(name)
    if program is None:
        raise StoryError(
            f"{name} is not installed here, and PostgreSQL is backed up and restored with it. On "
            "Debian: apt install postgresql-client"
        )
    environment = dict(os.environ)
    if url is not None:
        parsed = sa.make_url(url)
        query = {name: value for name, value in parsed.query.items() if isinstance(value, str)}
        said = {
            "PGHOST": parsed.host or query.get("host"),
            "PGSSLMODE": query.get("ssl"),
            "PGPORT": parsed.port,
            "PGUSER": parsed.username,
            "PGPASSWORD": parsed.password,
            "PGDATABASE": parsed.database,
        }
        environment |= {key: str(value) for key, value in said.items() if value}
    done = subprocess.run(
        [program, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise StoryError(f"{name} failed ({reason}). Nothing was changed.")


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A new folder on the same disk, for this user alone, gone afterwards; so are those that
    processes left there which were killed."""
    folder = target.with_name(f"{WORK}.new-{os.getpid()}")
    sweep(target.with_name(WORK))
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise StoryError(f"{target.parent} cannot be written: {error.strerror}.") from error
    try:
        yield folder
    except OSError as error:
        raise StoryError(f"{target} cannot be written: {error.strerror}.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place(database: str) -> Path:
    """Where an SQLite file is, or will be."""
    path = Path(database).expanduser().absolute()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoryError(f"{path.parent} cannot be made: {error.strerror}.") from error
    return path


def _now() -> str:
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
