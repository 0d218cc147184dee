"""python -m storygen keys: with what programs may ask, also while the server runs."""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # takes a while: not for other commands, nor for --help
    from storygen.accounts.keys import Key, Keys

Verb: TypeAlias = "Callable[[Keys, argparse.Namespace], Awaitable[str]]"


def add_keys(commands: Any, run: Callable[..., None]) -> None:
    """Describe the command and its verbs; run is called with the arguments and the settings."""
    parser = commands.add_parser("keys", help="with what programs may ask the models")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    add = verbs.add_parser("add", help="make a key of a user, and show it, this once")
    add.add_argument("user", metavar="USER")
    add.add_argument("--name", default="", metavar="LABEL", help="to know it again by")
    add.set_defaults(run=run, act=_add)
    listing = verbs.add_parser("list", help="all keys, but for what is secret of them")
    listing.add_argument("--json", action="store_true", help="print a JSON list")
    listing.set_defaults(run=run, act=_list)
    revoke = verbs.add_parser("revoke", help="let nobody in by a key again, at once")
    revoke.add_argument("id", metavar="ID", help="as the list has it")
    revoke.set_defaults(run=run, act=_revoke)


def run(args: argparse.Namespace, url: str) -> str:
    """Do what was asked, on the database at url; what there is to say of it."""
    from storygen.accounts.keys import Keys  # as above
    from storygen.story.database import Database

    async def act() -> str:
        database = await Database.open(url)
        try:
            return await args.act(Keys(database), args)
        finally:
            await database.close()

    return asyncio.run(act())


async def _add(keys: "Keys", args: argparse.Namespace) -> str:
    return await keys.add(args.user, args.name)


async def _list(keys: "Keys", args: argparse.Namespace) -> str:
    found = await keys.keys()
    if args.json:
        return json.dumps([_described(key) for key in found], ensure_ascii=False)
    lines = [_line(key) for key in found]
    return "\n".join(lines or ["There are no keys: python -m storygen keys add USER"])


async def _revoke(keys: "Keys", args: argparse.Namespace) -> str:
    await keys.revoke(args.id)
    return f"{args.id} is revoked."


def _line(key: "Key") -> str:
    used = f"last used {key.used_at:%Y-%m-%d %H:%M} UTC" if key.used_at else "never used"
    return f"{key.id}  {key.user:20}  made {key.created_at:%Y-%m-%d}  {used}  {key.label}".rstrip()


def _described(key: "Key") -> dict[str, Any]:
    told = asdict(key) | {"created_at": str(key.created_at)}
    return told | {"used_at": str(key.used_at) if key.used_at else None}
