"""python -m storygen serve: the API alone, without the page."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from storygen import logs, metrics
from storygen.errors import SettingsError
from storygen.hosts import is_loopback
from storygen.settings import Settings

if TYPE_CHECKING:  # takes a while: not for other commands, nor for --help
    from storygen.accounts.keys import Keys
    from storygen.engine.interface import Engine
    from storygen.story.database import Database

PORT = 8001
ENDING_SECONDS = 25  # for what is being written, once it is asked to end
logger = logging.getLogger(__name__)


def add_serve(commands: Any, run: Callable[..., None]) -> None:
    """Describe the command; run is called with the arguments and the settings."""
    parser = commands.add_parser("serve", help="serve the models to other programs, without a page")
    parser.add_argument("--host", metavar="ADDRESS", help="address to serve on; STORYGEN_HOST")
    parser.add_argument("--port", type=int, default=PORT, metavar="N", help=f"{PORT}")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="write with replicas under Ray Serve, of the cluster there or of this machine alone",
    )
    parser.add_argument("--replicas", type=int, default=1, metavar="N", help="of each model; 1")
    parser.add_argument(
        "--max-replicas", type=int, default=0, metavar="N", help="under load; as many as at first"
    )
    parser.set_defaults(run=run)


def run(settings: Settings, engine: "Engine", host: str, port: int) -> None:
    """Serve until a signal comes, then finish what is being written."""
    asyncio.run(_serve(settings, engine, host, port))


async def _serve(settings: Settings, engine: "Engine", host: str, port: int) -> None:
    import uvicorn

    from storygen.connections import Connection
    from storygen.machines import load_of
    from storygen.serve.app import application

    database, keys = await keys_on(settings, host)
    try:
        await engine.start()
        metrics.watch(lambda: load_of(engine, settings.slots))
        app = application(
            engine, keys=keys, metrics_token=settings.metrics_token.get_secret_value()
        )
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=Connection,
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=ENDING_SECONDS,
        )
        logs.install(settings.log, settings.log_level)
        needed = "with a key" if keys else "for this machine, without a key"
        logger.info("The API is at http://%s:%d/v1, %s.", host, port, needed)
        server = uvicorn.Server(config)
        server.capture_signals = lambda: _until_signal(server)  # type: ignore[method-assign]  # in its place
        await server.serve()
    finally:
        await engine.close()
        if database is not None:
            await database.close()


async def keys_on(settings: Settings, host: str) -> "tuple[Database | None, Keys | None]":
    """What keys are looked up in; nothing where none is needed. Raises SettingsError where nobody
    could ask. The key that the page would show to this server is enough, without a database."""
    own = "" if settings.engine_url else settings.engine_key.get_secret_value()
    if settings.auth == "none" and is_loopback(host) and not own:
        return None, None
    from storygen.accounts.keys import Keys

    if settings.auth == "none" and own:
        return None, Keys(own=own)
    from storygen.story.database import Database

    database = await Database.open(settings.store_url, is_served=True)
    keys = Keys(database, own)
    if not own and not await keys.count():
        await database.close()
        raise SettingsError(
            f"The API on {host} needs keys, and there are none. Make a user and a key first "
            "(python -m storygen users add NAME, keys add NAME), set STORYGEN_ENGINE_KEY, or serve "
            "on 127.0.0.1 with STORYGEN_AUTH=none."
        )
    return database, keys


@contextlib.contextmanager
def _until_signal(server: Any) -> Iterator[None]:
    """SIGTERM and SIGINT end the server in order; uvicorn's own way would then kill the process by
    the same signal, which looks like a failure."""
    loop = asyncio.get_running_loop()
    ends = (signal.SIGTERM, signal.SIGINT)
    for number in ends:
        loop.add_signal_handler(number, server.handle_exit, number, None)
    try:
        yield
    finally:
        for number in ends:
            loop.remove_signal_handler(number)
