"""``msl-network hostname`` changes or lists the trusted hosts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ._cli_parser import Commands, add_command
from .constants import DATABASE
from .utils import ensure_root_path

if TYPE_CHECKING:
    from .database import HostnamesTable

__all__ = ["add_parser_hostname", "execute"]

HELP = "Change or list the trusted hosts."

DESCRIPTION = """Change or list the trusted hosts.

From them, and from no others, come those who connect to a manager that was
started with --auth-hostname. A host is known by the first part of its name, or
by its address if it has no name. As long as none is in the table, this computer
is, by all of its names and addresses.
"""

EPILOG = """Examples:

  # trust two hosts
  msl-network hostname add lab7 lab8

  # trust one of them no longer
  msl-network hostname remove lab8

  # in another database
  msl-network hostname add lab7 --database lab.sqlite3

  # who is trusted?
  msl-network hostname list
"""

# What the actions that change the table are called when they are done.
_DONE = {"insert": "inserted", "add": "added", "remove": "removed", "delete": "deleted"}


def add_parser_hostname(parser: Commands) -> None:
    """Add the command to those of a parser."""
    command = add_command(parser, "hostname", execute, help=HELP, description=DESCRIPTION, epilog=EPILOG)
    command.add_argument(
        "action",
        choices=[*_DONE, "list"],
        help="What to do. insert is as add, and delete as remove.",
    )
    command.add_argument("names", nargs="*", help="The hosts.")
    command.add_argument("-d", "--database", help="The database that the manager uses.")


def execute(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        sqlite3.Error: the database cannot be used.
    """
    from .database import HostnamesTable

    if args.action != "list" and not args.names:
        print(f"No hostnames were {_DONE[args.action]}")
        return
    path = args.database or DATABASE
    ensure_root_path(path)
    with HostnamesTable(database=path) as table:
        if args.action == "list":
            print(f"Trusted devices in {table.path}\n\nHostnames:")
            for name in table.hostnames():
                print(f"  {name}")
            return
        for name in args.names:
            _change(table, args.action, name)


def _change(table: HostnamesTable, action: str, name: str) -> None:
    try:
        if action in ("insert", "add"):
            table.insert(name)
        else:
            table.delete(name)
    except ValueError as error:
        print(str(error).replace("Cannot delete", f"Cannot {action}", 1))
    else:
        print(f"{_DONE[action].capitalize()} {name}")
