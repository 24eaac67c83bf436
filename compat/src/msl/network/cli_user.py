"""``msl-network user`` changes or lists the users."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ._cli_parser import HOW_PASSWORDS_ARE_GIVEN, Commands, add_command
from ._passwords import given_password
from .constants import DATABASE
from .utils import ensure_root_path

if TYPE_CHECKING:
    from .database import UsersTable

__all__ = ["add_parser_user", "execute"]

HELP = "Change or list the users."

DESCRIPTION = """Change or list the users.

As one of them logs in who connects to a manager that was started with
--auth-login, and as an administrator who wants to administrate one.
"""

EPILOG = """Examples:

  # a user, with a password of two words
  msl-network user add marie --password open sesame

  # an administrator, with the password that is in a file
  msl-network user add pierre --password secret.txt --admin

  # marie becomes an administrator; pierre is one no longer
  msl-network user update marie --admin
  msl-network user update pierre

  # in another database
  msl-network user remove marie --database lab.sqlite3

  # who is there?
  msl-network user list
"""

# What the actions that change the table are called when they are done.
_DONE = {
    "insert": "{} has been inserted",
    "add": "{} has been added",
    "remove": "{} has been removed",
    "delete": "{} has been deleted",
    "update": "Updated {}",
}


def add_parser_user(parser: Commands) -> None:
    """Add the command to those of a parser."""
    command = add_command(parser, "user", execute, help=HELP, description=DESCRIPTION, epilog=EPILOG)
    command.add_argument(
        "action",
        choices=[*_DONE, "list"],
        help="What to do. insert is as add, and delete as remove.",
    )
    command.add_argument("username", nargs="?", help="The user.")
    command.add_argument(
        "-a",
        "--admin",
        action="store_true",
        help="The user is an administrator. Who is updated without\nthis is none.",
    )
    command.add_argument("-d", "--database", help="The database that the manager uses.")
    command.add_argument(
        "-p", "--password", nargs="+", help=f"The user's password.\n{HOW_PASSWORDS_ARE_GIVEN}"
    )


def execute(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        sqlite3.Error: the database cannot be used.
    """
    from .database import UsersTable

    path = args.database or DATABASE
    ensure_root_path(path)
    with UsersTable(database=path) as table:
        if args.action == "list":
            _list(table)
            return
        if not args.username:
            print(f"ValueError: You must specify a username to {args.action}")
            return
        try:
            password, is_from_file = given_password(args.password)
            if is_from_file:
                print("Reading the password from the file")
            _change(table, args.action, args.username, password, args.admin)
        except ValueError as error:
            print(f"ValueError: {error}".replace("Cannot delete", f"Cannot {args.action}", 1))
        else:
            print(_DONE[args.action].format(args.username))


def _change(table: UsersTable, action: str, username: str, password: str | None, is_admin: bool) -> None:
    if action in ("insert", "add"):
        table.insert(username, password or "", is_admin)
    elif action == "update":
        table.update(username, password=password, is_admin=is_admin)
    else:
        table.delete(username)


def _list(table: UsersTable) -> None:
    users = table.users()
    if not users:
        print("There are no users in the database")
        return
    width = max(len("Username"), *(len(name) for name, _ in users))
    print(f"Users in {table.path}\n")
    print(f"{'Username':<{width}} Administrator")
    print(f"{'=' * width} {'=' * len('Administrator')}")
    for name, is_admin in users:
        print(f"{name:<{width}} {is_admin}")
