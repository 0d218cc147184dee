"""The chat's life cycle: one handler per event. Start it with: chainlit run app.py"""

import asyncio
import gc
import logging
import os
import secrets
import sys
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import chainlit as cl
from chainlit.config import APP_ROOT, config
from chainlit.context import context
from chainlit.data.base import BaseDataLayer
from chainlit.server import app, sio
from chainlit.session import WebsocketSession
from chainlit.types import ThreadDict
from starlette.datastructures import Headers

from storygen import logs, machines, metrics
from storygen.accounts.keys import Keys
from storygen.chat import (
    admin,
    api,
    elsewhere,
    events,
    files,
    guards,
    page,
    presses,
    sign_in,
    sticky,
    windows,
)
from storygen.chat.doors import WRITER, Door, LocalDoor, PasswordDoor, ProxyDoor, asking
from storygen.chat.ending import Ending
from storygen.chat.health import Readiness
from storygen.chat.history import StoryHistory
from storygen.chat.starters import opening_lines
from storygen.chat.state import Chat, Studio
from storygen.engines import engine_of
from storygen.errors import StorygenError
from storygen.hosts import is_loopback
from storygen.launch import require_free_port, require_models, sole_use
from storygen.observed import Observed
from storygen.serve import app as serve
from storygen.settings import ROOT, Settings, load_settings
from storygen.story import purge
from storygen.story.quota import MEGABYTE
from storygen.story.store import StoryStore


def door_of(settings: Settings) -> Door:
    """How the settings want it told who asks."""
    if settings.auth == "password":
        return PasswordDoor()
    if settings.auth == "proxy":
        return ProxyDoor(settings.proxy_header, proxies_of(settings))
    return LocalDoor()


def proxies_of(settings: Settings) -> list[IPv4Network | IPv6Network]:
    """The proxies that are believed."""
    return [ip_network(proxy) for proxy in settings.trusted_proxies]


def checked_settings() -> Settings:
    """The settings, once it is certain that the page can be served with them, and safely."""
    settings = load_settings()
    if settings.auth == "none":
        guards.require_loopback(config.run.host, settings.allow_exposed)
    if settings.auth == "proxy":
        guards.require_known_proxies(settings.proxy_header, settings.trusted_proxies)
    guards.require_long_secret(os.environ.get("CHAINLIT_AUTH_SECRET"))
    guards.require_closed_config(config.features, Path(APP_ROOT), ROOT)
    guards.writable(settings.data_dir)
    require_models(settings)
    if not config.run.watch:  # while it watches, the port is our own
        require_free_port(config.run.host, config.run.port)
    return settings


ENGINE_SECONDS = 2.0  # for its step to end, once every passage is stored
logger = logging.getLogger("storygen.app")

try:
    settings = checked_settings()
    logs.install(settings.log, settings.log_level)
    lock = sole_use(settings.data_dir)  # as long as this process lives
    studio, door = Studio(engine_of(settings)), door_of(settings)
except StorygenError as error:
    sys.exit(str(error))

if door.is_shared:  # Chainlit's tokens never leave the server, so nobody else needs the key
    os.environ["CHAINLIT_AUTH_SECRET"] = secrets.token_urlsafe(guards.SECRET_BYTES)
    os.environ["FORWARDED_ALLOW_IPS"] = ""  # the door asks for itself whom a proxy speaks for
else:
    os.environ.setdefault("CHAINLIT_AUTH_SECRET", guards.secret(settings.data_dir))
readiness, ending = Readiness(studio), Ending(studio)
metrics.watch(lambda: machines.load_of(studio.engine, settings.slots))
is_local = settings.auth == "none" and is_loopback(config.run.host)
keys = None if is_local else Keys()  # without which no program may ask
asked = machines.routes(readiness, settings.metrics_token.get_secret_value())
ours = [*api.routes(studio), *files.routes(studio), *admin.routes(studio)]
ours += [*presses.routes(), *sticky.routes(), *serve.routes(studio.engine, keys)]
if isinstance(door, PasswordDoor):
    ours += sign_in.routes(door, sio, proxies_of(settings))
page.install(app, settings.allow_origins, [*ours, *asked], door)
app.add_middleware(Observed)
events.listen(sio, studio)
windows.guard(sio, door)
running: set[asyncio.Task[None]] = set()


def this_chat() -> Chat:
    """The chat of the session that Chainlit is calling for."""
    assert isinstance(context.session, WebsocketSession), "every window has a socket"
    return studio.chat(context.session)


@cl.on_app_startup
async def start() -> None:
    """Get ready to write, or say why not and end."""
    try:
        room = settings.storage_mb * MEGABYTE if door.is_shared else 0
        studio.store = await StoryStore.open(settings.store_url, room)
        await door.open(studio.store.database)
        if keys is not None:
            keys.open(studio.store.database)
        await studio.engine.start()
        logs.install(settings.log, settings.log_level)  # uvicorn has brought its own by now
        readiness.prove()
        running.add(asyncio.create_task(windows.watch(sio, door)))
        running.add(asyncio.create_task(elsewhere.attend(studio)))
        days = settings.keep_deleted_days
        running.add(asyncio.create_task(purge.attend(studio.store.growing, days)))
        ending.listen()
        gc.freeze()  # to look through all that was imported, again and again, stops every stream
        logger.info("The page is at http://%s:%d", config.run.host, config.run.port)
    except StorygenError as error:
        sys.stderr.write(f"{error}\n")
        os._exit(1)  # Chainlit would log the error and serve a page that cannot work
    except Exception:
        logger.exception("The server could not be started.")
        os._exit(1)  # as above


@cl.on_app_shutdown
async def stop() -> None:
    """Stop every passage, keep what there is of it, and close."""
    try:
        await studio.stop_all()
        with suppress(TimeoutError):  # compiling cannot be interrupted, and need not be
            await asyncio.wait_for(studio.engine.close(), ENGINE_SECONDS)
        try:
            await door.tend()
        finally:
            await studio.store.close()
    except Exception:
        logger.exception("The server could not be closed in order.")
        os._exit(1)  # Chainlit would end with 0


@cl.header_auth_callback
async def local_writer(headers: Headers) -> cl.User | None:
    """Where there is no login, whoever may reach the page is the one writer."""
    return None if door.is_shared else cl.User(identifier=WRITER)


@cl.data_layer
def history() -> BaseDataLayer:
    """Chainlit's history is a view of our stories."""
    return StoryHistory(studio.store, asking)


@cl.set_starters
async def starters(user: cl.User | None) -> list[cl.Starter]:
    """Opening lines to begin with."""
    return opening_lines(studio.models(user.identifier if user else ""))


@cl.on_chat_start
async def new_story() -> None:
    """A window on a story that does not exist until something is written."""
    await events.begin(studio, this_chat())


@cl.on_chat_resume
async def open_story(thread: ThreadDict) -> None:
    """A window on a story from the list, with the settings it had."""
    await events.resume(studio, this_chat(), thread)


@cl.on_chat_end
async def leave() -> None:
    """The window is gone: nobody reads what is being written for it."""
    events.leave(studio, this_chat())


async def press(action: cl.Action) -> None:
    """A button under the last passage."""
    await events.press(studio, this_chat(), action)


for name in events.VERBS:
    cl.action_callback(name)(press)
