"""python -m storygen users: accounts from the command line, also while the page runs."""

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from storygen.accounts.models import give
from storygen.errors import AccountError

if TYPE_CHECKING:  # takes a while: not for other commands, nor for --help
    from storygen.accounts.users import Account, Users

WINDOWS_END = 3.0  # seconds: windows.py notices within two, and keeps what was being written
Verb: TypeAlias = "Callable[[Users, argparse.Namespace], Awaitable[str]]"

LOCAL_WRITER = "writer"  # whose the stories are that were written without a login


def add_users(commands: Any, run: Callable[..., None]) -> None:
    """Describe the command and its verbs; run is called with the arguments and the settings."""
    parser = commands.add_parser("users", help="who may write here, where more than one may")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, act: Verb, help: str, *, named: bool = True) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = verbs.add_parser(name, help=help)
        if named:
            added.add_argument("name", metavar="NAME")
        added.set_defaults(run=run, act=act)
        return added

    add = verb("add", _add, "make an account; the password is asked for, or read from a pipe")
    add.add_argument("--admin", action="store_true", help="may see how the installation does")
    add.add_argument("--no-password", action="store_true", help="for STORYGEN_AUTH=proxy")
    inherits = add.add_mutually_exclusive_group()
    inherits.add_argument(
        "--take-local-stories",
        action="store_const",
        const=LOCAL_WRITER,
        dest="user_id",
        help="with the stories that were written here without a login",
    )
    inherits.add_argument(
        "--take-stories-of",
        dest="user_id",
        metavar="ID",
        help="with those that a removed user left behind",
    )
    listing = verb("list", _list, "all accounts, in figures", named=False)
    listing.add_argument("--json", action="store_true", help="print a JSON list")
    verb("password", _password, "another password; ends every session of the user")
    rename = verb("rename", _rename, "another name for a user, who keeps all else")
    rename.add_argument("new", metavar="NEW")
    verb("disable", _disable, "let nobody in by this name, at once; the stories stay")
    verb("enable", _enable, "let the user in again")
    verb("sign-out", _sign_out, "end every session of the user, at once")
    verb("make-admin", _make_admin, "let the user see how the installation does")
    verb("unmake-admin", _unmake_admin, "let the user write, and no more")
    own = verb("give", _give, "let nobody but this user write with a model")
    own.add_argument("model", metavar="MODEL")
    share = verb("share", _share, "let everybody write with a model again", named=False)
    share.add_argument("model", metavar="MODEL")
    remove = verb("remove", _remove, "remove an account")
    stories = remove.add_mutually_exclusive_group(required=True)
    stories.add_argument("--with-stories", action="store_true", help="and every story, for ever")
    stories.add_argument("--keep-stories", action="store_true", help="but not its stories")


def run(args: argparse.Namespace, url: str, weights_dir: Path) -> str:
    """Do what was asked, on the database at url; what there is to say of it."""
    args.weights_dir = weights_dir
    from storygen.accounts.users import Users  # as above
    from storygen.story.database import Database

    async def act() -> str:
        database = await Database.open(url)
        try:
            return await args.act(Users(database), args)
        finally:
            await database.close()

    return asyncio.run(act())


async def _add(users: "Users", args: argparse.Namespace) -> str:
    password = None if args.no_password else _asked_password()
    user = await users.add(args.name, password, is_admin=args.admin, user_id=args.user_id)
    return f"{user.name} may write here{' and is an administrator' if user.is_admin else ''}."


async def _list(users: "Users", args: argparse.Namespace) -> str:
    accounts = await users.accounts()
    if args.json:
        return json.dumps([_described(account) for account in accounts], ensure_ascii=False)
    lines = [_line(account) for account in accounts]
    return "\n".join(lines or ["There are no accounts: python -m storygen users add NAME"])


async def _password(users: "Users", args: argparse.Namespace) -> str:
    user = await users.user(args.name)
    await users.set_password(user.name, _asked_password())
    return f"{user.name} has another password now, and has to sign in anew everywhere."


async def _rename(users: "Users", args: argparse.Namespace) -> str:
    user = await users.rename(args.name, args.new)
    return f"{args.name} is {user.name} now."


async def _disable(users: "Users", args: argparse.Namespace) -> str:
    await users.disable(args.name)
    return f"{args.name} is let in no more. The stories stay."


async def _enable(users: "Users", args: argparse.Namespace) -> str:
    await users.enable(args.name)
    return f"{args.name} may sign in again."


async def _sign_out(users: "Users", args: argparse.Namespace) -> str:
    ended = await users.sign_out(args.name)
    return f"{args.name} is signed out: {ended} session{'' if ended == 1 else 's'} ended."


async def _make_admin(users: "Users", args: argparse.Namespace) -> str:
    user = await users.set_admin(args.name, True)
    return f"{user.name} is an administrator."


async def _unmake_admin(users: "Users", args: argparse.Namespace) -> str:
    user = await users.set_admin(args.name, False)
    return f"{user.name} is no administrator."


async def _give(users: "Users", args: argparse.Namespace) -> str:
    user = await users.user(args.name)
    give(args.weights_dir, args.model, user.id)
    return f"Nobody but {user.name} may write with {args.model} now."


async def _share(_: "Users", args: argparse.Namespace) -> str:
    give(args.weights_dir, args.model, "")
    return f"Everybody may write with {args.model} now."


async def _remove(users: "Users", args: argparse.Namespace) -> str:
    if args.with_stories:  # what a window that is still open writes must not be left behind
        await users.disable(args.name)
        await asyncio.sleep(WINDOWS_END)
    user, count = await users.remove(args.name, with_stories=args.with_stories)
    stories = f"{count} {'story' if count == 1 else 'stories'}"
    if args.with_stories:
        return f"{user.name} is removed, with {stories}."
    return (
        f"{user.name} is removed; {stories} stay, which nobody can open. "
        f"`users add NAME --take-stories-of {user.id}` gives them to somebody."
    )


def _asked_password() -> str:
    """Typed twice without being shown, or a line of a pipe."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise AccountError("The two are not the same, so nothing was changed. Try again.")
    return password


def _line(account: "Account") -> str:
    user = account.user
    kinds = ["admin"] * user.is_admin + ["disabled"] * (user.disabled_at is not None)
    seen = f"last here {account.seen_at:%Y-%m-%d %H:%M} UTC" if account.seen_at else "signed out"
    told = f"{account.stories:5} stories  {account.sign_ins:3} signed in  {seen}"
    return "  ".join([f"{user.name:20}", told, *kinds])


def _described(account: "Account") -> dict[str, Any]:
    user = {name: str(v) if hasattr(v, "year") else v for name, v in asdict(account.user).items()}
    seen = account.seen_at and str(account.seen_at)
    return user | {"stories": account.stories, "sign_ins": account.sign_ins, "seen_at": seen}
