"""A look at an installation: whether everything storygen needs is here and works.

Each finding is a line with what to do about it. Nothing is repaired, and no story is read.
"""

import asyncio
import importlib.metadata
import json
import re
import shutil
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from storygen.catalogue import Catalogue
from storygen.chat import guards
from storygen.engine.interface import Engine
from storygen.errors import StorygenError
from storygen.launch import require_database, require_free_port, require_models
from storygen.params import SamplingParams
from storygen.settings import ROOT, Settings

GIGABYTE = 10**9
LITTLE, TOO_LITTLE = 1 * GIGABYTE, GIGABYTE // 10  # bytes free where the stories are kept
PYTHONS = ((3, 11), (3, 14))  # from, and before
ANSWER_SECONDS = 5.0
LARGE = 2 * GIGABYTE  # a database whose check would take long


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do where it is not well."""

    state: Literal["ok", "note", "bad"]
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.state:4}  {self.what}{'. ' if self.remedy else ''}{self.remedy}"


Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, each as soon as it is made; what takes longest comes last."""
    for check in CHECKS:
        try:
            yield from check(settings)
        except StorygenError as error:  # says itself what to do
            yield Finding("bad", str(error))


def python(settings: Settings) -> Iterator[Finding]:
    """The interpreter."""
    first, beyond = PYTHONS
    version = ".".join(map(str, sys.version_info[:3]))
    if first <= sys.version_info[:2] < beyond:
        yield Finding("ok", f"Python {version}")
    else:
        yield Finding("bad", f"Python {version}", "Install Python 3.11, 3.12 or 3.13.")


def packages(settings: Settings, listed: Path = ROOT / "requirements.txt") -> Iterator[Finding]:
    """The packages, against what is pinned; an image has no list, and was made by it."""
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    pins = [match for line in lines if (match := re.match(r"([\w.-]+)(?:\[.*\])?==(\S+)", line))]
    wrong = 0
    for name, wanted in (pin.groups() for pin in pins):
        try:
            found = importlib.metadata.version(name).partition("+")[0]  # +cpu is a kind of build
        except importlib.metadata.PackageNotFoundError:
            found = ""
        if found != wanted:
            wrong += 1
            remedy = "Run: pip install -r requirements.txt"
            yield Finding("bad", f"{name} is {found or 'missing'}, not {wanted}", remedy)
    if pins and not wrong:
        yield Finding("ok", f"{len(pins)} packages as pinned")


def data_directory(settings: Settings) -> Iterator[Finding]:
    """Where stories and secrets are kept: whether they can be, and who else may see them."""
    directory = guards.writable(settings.data_dir)
    free = shutil.disk_usage(directory).free
    state: Literal["ok", "note", "bad"] = "ok"
    if free < LITTLE:
        state = "note" if free >= TOO_LITTLE else "bad"
    remedy = "" if state == "ok" else "Make room on that disk."
    yield Finding(state, f"{directory} can be written, {free / GIGABYTE:,.1f} GB free", remedy)
    for path in [directory, *(p for p in sorted(directory.iterdir()) if p.is_file())]:
        mode = path.stat().st_mode & 0o777
        if mode & 0o002 or (path.is_file() and path.suffix != ".log" and mode & 0o044):
            allowed = 0o700 if path.is_dir() else 0o600
            what = f"Other users of this machine can read or change {path} (mode {mode:03o})"
            yield Finding("bad", what, f"Run: chmod {allowed:o} {path}")


def secret(settings: Settings) -> Iterator[Finding]:
    """The key that the page's cookies are signed with."""
    path = settings.data_dir / "auth_secret"
    if not path.is_file():
        yield Finding("ok", "The secret of the page's cookies is made at the first start")
    elif path.stat().st_size < guards.SECRET_BYTES:
        yield Finding("bad", f"{path} is too short for a secret", "Delete it: a start makes one.")
    else:
        yield Finding("ok", "The secret of the page's cookies is there")


def database(settings: Settings) -> Iterator[Finding]:
    """Whether the story database answers, is whole, and has a schema that is known here."""
    file = settings.data_dir / "stories.db"
    if not settings.database_url and not file.is_file():
        yield Finding("ok", "The story database is made at the first start")
        return
    require_database(settings.store_url)
    place, revision, known, damage = asyncio.run(_look_at(settings.store_url))
    if damage != "ok":
        yield Finding("bad", f"{place} is damaged", "Restore a backup: docs/storage.md.")
    elif revision is not None and revision not in known:
        yield Finding("bad", f"{place} was made by a newer storygen", "Update storygen.")
    elif revision != known[0]:
        yield Finding("note", f"{place} is of an older schema", "The next start updates it.")
    else:
        yield Finding("ok", f"{place} answers, schema {revision}")


async def _look_at(url: str) -> tuple[str, str | None, list[str], str]:
    """Its place, its schema's revision, the revisions known here from the newest, its health."""
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from storygen.story.database import Database

    config = Config()
    config.set_main_option("script_location", "storygen.story:migrations")
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    story = Database.as_it_is(url)
    try:
        async with story.read() as connection:
            revision = await connection.run_sync(
                lambda c: MigrationContext.configure(c).get_current_revision()
            )
            health = "ok"
            if story.file is not None and story.file.stat().st_size < LARGE:
                answer = await connection.exec_driver_sql("PRAGMA quick_check(1)")
                health = answer.scalar_one()
    finally:
        await story.close()
    return story.place, revision, known, health


def chainlit_config(settings: Settings) -> Iterator[Finding]:
    """Whether Chainlit's configuration keeps closed what has no guard here."""
    try:
        text = (ROOT / ".chainlit" / "config.toml").read_text(encoding="utf-8")
        features = _open_unless_closed(tomllib.loads(text).get("features", {}))
    except (OSError, ValueError) as error:
        reason = type(error).__name__
        yield Finding("bad", f".chainlit/config.toml cannot be read ({reason})", "Restore it.")
        return
    guards.require_closed_config(features, ROOT, ROOT)
    yield Finding("ok", "Chainlit's configuration is closed")


def _open_unless_closed(features: dict[str, Any]) -> Any:
    """Features as Chainlit holds them, where what is not said counts as open."""
    mcp = features.get("mcp", {})
    upload = features.get("spontaneous_file_upload", {}).get("enabled", True)
    return SimpleNamespace(
        unsafe_allow_html=features.get("unsafe_allow_html", True),
        allow_thread_sharing=features.get("allow_thread_sharing", True),
        spontaneous_file_upload=SimpleNamespace(enabled=upload),
        mcp=SimpleNamespace(
            enabled=mcp.get("enabled", True),
            user_servers=SimpleNamespace(enabled=mcp.get("user_servers", {}).get("enabled", True)),
        ),
    )


def clock(settings: Settings) -> Iterator[Finding]:
    """Whether the clock is behind what it has already written: stories would be out of order."""
    files = [path for path in settings.data_dir.glob("*") if path.is_file()]
    newest = max((path.stat().st_mtime for path in [*files, Path(__file__)]), default=0.0)
    behind = newest - time.time()
    if behind > 60:
        yield Finding("bad", f"The clock is {behind:,.0f} seconds behind its own files", "Set it.")
    else:
        yield Finding("ok", "The clock is not behind")


def pandoc(settings: Settings) -> Iterator[Finding]:
    """Whether drafts can be read and books written."""
    from storygen.story import pandoc as program

    document = program.parse(b"It begins.", "markdown")
    assert sum(1 for _ in document.blocks) == 1
    yield Finding("ok", "pandoc reads and writes")


def page(settings: Settings) -> Iterator[Finding]:
    """The port: free, or the page on it answers and is ready."""
    name = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    where = f"http://{f'[{name}]' if ':' in name else name}:{settings.port}"
    try:
        health, ready = _asked(f"{where}/health"), _asked(f"{where}/ready")
    except OSError:
        require_free_port(settings.host, settings.port)
        yield Finding("ok", f"Port {settings.port} is free; no page is running there")
        return
    if health.get("status") != "ok":
        yield Finding("bad", f"The page at {where} does not say that it is well", "See its log.")
        return
    if ready.get("status") == "ready":
        yield Finding("ok", f"The page at {where} is ready")
    else:
        reason = str(ready.get("reason", "another program has the port"))[:200]
        yield Finding("note", f"The page at {where} is not ready: {reason}", "See its log.")


def _asked(url: str) -> dict[str, Any]:
    """What a JSON object at this address says; raises OSError where nobody answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=ANSWER_SECONDS) as answer:
            said = answer.read(10_000)
    except urllib.error.HTTPError as error:
        said = error.read(10_000)
    try:
        found = json.loads(said)
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}


def proxy(settings: Settings) -> Iterator[Finding]:
    """Whether who serves the page to the world, where people sign in, is believed to be a proxy."""
    origin = next((o for o in settings.allow_origins if o.startswith("https:")), None)
    if settings.auth == "password" and origin and not settings.trusted_proxies:
        what = f"STORYGEN_ALLOW_ORIGINS has {origin}, STORYGEN_TRUSTED_PROXIES no proxy"
        remedy = "Name the one that serves it, or all users sign in from one address."
        yield Finding("note", what, remedy)


def processor(settings: Settings) -> Iterator[Finding]:
    """What computes the models: native code or why not, CUDA or why not."""
    import torch

    from storygen.decode.build import described, native_library

    if torch.cuda.is_available():
        yield Finding("ok", f"CUDA: {torch.cuda.get_device_name()}")
    elif torch.version.cuda is None:
        yield Finding("ok", "No CUDA: this PyTorch is built for CPUs")
    else:
        yield Finding("note", "No CUDA: PyTorch finds no card", "Its driver may be missing.")
    try:
        native_library(settings.native_dir)
        yield Finding("ok", described(settings.native_dir))
    except (StorygenError, OSError) as error:
        yield Finding("note", f"No native code ({type(error).__name__})", str(error))


def models(settings: Settings) -> Iterator[Finding]:
    """Whether each model can be loaded and writes."""
    require_models(settings)
    if not settings.engine_url and not Catalogue(settings.weights_dir).models():
        remedy = "Train one: python -m storygen.train RECIPE"
        yield Finding("bad", f"There are no models in {settings.weights_dir}", remedy)
        return
    with asyncio.Runner() as runner:  # so that each finding is told when it is made
        findings = _models(settings)
        while (finding := runner.run(_next(findings))) is not None:
            yield finding


async def _next(findings: AsyncIterator[Finding]) -> Finding | None:
    return await anext(findings, None)


async def _models(settings: Settings) -> AsyncIterator[Finding]:
    engine, how = _elsewhere(settings) if settings.engine_url else _here(settings)
    await engine.start()
    try:
        if trouble := engine.health().trouble:
            yield Finding("bad", "nothing can be written", f"{trouble} ({settings.engine_url})")
        for info in engine.models():
            began = time.perf_counter()
            try:
                params = SamplingParams(max_new_tokens=1, seed=0)
                async for _ in engine.stream(info.name, "The", params):
                    pass
            except StorygenError as error:
                yield Finding("bad", f"{info.name} cannot write", str(error))
                continue
            seconds = time.perf_counter() - began
            yield Finding("ok", f"{info.name} writes ({how}, first token in {seconds:.1f} s)")
    finally:
        await engine.close()


def _here(settings: Settings) -> tuple[Engine, str]:
    """An engine for one passage at a time, and its number format."""
    from storygen.decode.choose import arithmetic, cuda_capability
    from storygen.engine.local import LocalEngine

    by = arithmetic(settings.device, settings.dtype, cuda_capability(), settings.native_dir)
    engine = LocalEngine(
        Catalogue(settings.weights_dir, settings.first_model),
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        slots=1,
        loaded_models=1,
        native=settings.native_dir,
    )
    return engine, by.form


def _elsewhere(settings: Settings) -> tuple[Engine, str]:
    """The engine that asks the model server."""
    from storygen.engines import engine_of

    return engine_of(settings), "at the model server"


CHECKS: tuple[Check, ...] = (
    python,
    packages,
    data_directory,
    secret,
    clock,
    chainlit_config,
    database,
    pandoc,
    page,
    proxy,
    processor,
    models,
)
