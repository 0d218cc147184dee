"""A PostgreSQL server of the tests' own, on a socket in a folder of its own, gone afterwards."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote, urlsplit

PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
NOBODY = "nobody"  # PostgreSQL refuses to run as root
# What is lost with the power is nothing a test asks about.
QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
SMALL = {"shared_buffers": "16MB", "max_connections": "60", "listen_addresses": ""}
# guest needs a password; everybody else is who they say they are.
ENTRY = "local all guest scram-sha-256\nlocal all all trust\n"
# Whoever is left over from a test that failed would hold its tables.
EMPTY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid();
DO $$ DECLARE names text; BEGIN
SELECT string_agg(format('%I', tablename), ', ') INTO names FROM pg_tables
WHERE schemaname = 'public' AND tablename <> 'alembic_version';
IF names IS NOT NULL THEN EXECUTE 'TRUNCATE ' || names; END IF;
END $$
"""


def program(name: str) -> str | None:
    """Where a program of PostgreSQL's server lies; Debian keeps it off the PATH."""
    return shutil.which(name, path=os.pathsep.join([*map(str, PLACES), os.environ["PATH"]]))


class Server:
    """A cluster that can be stopped and started; each database it gives out is new."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self._number = count()
        self._process: subprocess.Popen[bytes] | None = None
        self._user = {"user": NOBODY, "group": "nogroup"} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(folder, **self._user)
        options = ["--username=storygen", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]
        self._call("initdb", f"--pgdata={self.data}", "--no-sync", *options)
        (self.data / "pg_hba.conf").write_text(ENTRY)

    def start(self) -> None:
        """Run until stop; returns when it answers."""
        chosen = QUICK | SMALL | {"unix_socket_directories": str(self.folder)}
        options = [word for name, value in chosen.items() for word in ("-c", f"{name}={value}")]
        server = program("postgres")
        assert server is not None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [server, "-D", self.data, *options], stdout=log, stderr=log, **self._user
            )
        for _ in range(1200):
            if not subprocess.run([program("pg_isready"), "-q", "-h", self.folder]).returncode:
                return
            assert self._process.poll() is None, (self.folder / "log").read_text()
        raise AssertionError("PostgreSQL does not answer.")

    def stop(self) -> None:
        """End it as a power cut does; whoever is connected is thrown out."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def run(self, *statements: str, database: str = "postgres") -> str:
        """What psql answers, as the one who may do everything."""
        commands = [word for statement in statements for word in ("-c", statement)]
        return self._call("psql", "-XAtq", "-h", self.folder, "-U", "storygen", database, *commands)

    def new_database(self) -> str:
        """The URL of a database that nobody has used."""
        name = f"stories_{next(self._number)}"
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def emptied(self, url: str) -> str:
        """The URL of a database whose tables hold nothing any more: a new one takes longer."""
        name = urlsplit(url).path[1:]
        self.run(EMPTY, database=name)
        return url

    def url(self, database: str, user: str = "storygen") -> str:
        """A database of this server, as a setting names it."""
        return f"postgresql+asyncpg://{user}@/{database}?host={quote(str(self.folder))}"

    def _call(self, name: str, *arguments: str | Path) -> str:
        path = program(name)
        assert path is not None, f"{name} is not installed"
        done = subprocess.run(
            [path, *arguments], cwd=self.folder, capture_output=True, text=True, **self._user
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def running() -> Iterator[Server]:
    """A server for as long as the block takes."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # a socket's path may have 107 characters
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
