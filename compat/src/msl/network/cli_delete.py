"""``msl-network delete`` deletes what the other commands have made."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from armillary.network.locations import Home
from armillary.network.tidying import FileKind, Found, find_files

from ._cli_parser import Commands, add_command
from .constants import HOME_DIR

__all__ = ["add_parser_delete", "execute"]

HELP = "Delete files of the lab network."

DESCRIPTION = """Delete files of the lab network on this computer.

Only files called manager.sqlite3, *.crt, *.key and *.log are deleted, and only
where they belong.
"""

EPILOG = """Examples:

  # all that was logged
  msl-network delete --logs

  # everything, without a question
  msl-network delete --all --yes
"""

_UNITS = ("B", "kB", "MB", "GB", "TB")


def add_parser_delete(parser: Commands) -> None:
    """Add the command to those of a parser."""
    command = add_command(parser, "delete", execute, help=HELP, description=DESCRIPTION, epilog=EPILOG)
    for flags, help in (
        (("-a", "--all"), "Delete all of the following."),
        (("-c", "--certs"), "Delete the certificates, also those that are trusted."),
        (("-d", "--database"), "Delete the database."),
        (("-k", "--keys"), "Delete the private keys."),
        (("-l", "--logs"), "Delete the log files."),
    ):
        command.add_argument(*flags, action="store_true", help=help)
    command.add_argument(
        "-r", "--root", help="The network's home to delete from. Default is that of\nthe user."
    )
    command.add_argument("-q", "--quiet", action="store_true", help="Print nothing but questions.")
    command.add_argument("-y", "--yes", action="store_true", help="Ask no questions.")


def execute(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        OSError: a file cannot be deleted.
    """
    root = args.root or HOME_DIR
    wanted = {
        FileKind.DATABASE: args.database,
        FileKind.CERTIFICATES: args.certs,
        FileKind.KEYS: args.keys,
        FileKind.LOGS: args.logs,
    }
    if not (args.all or any(wanted.values())):
        print("You must specify what you want to delete, for example\n  msl-network delete --keys")
        return
    if not os.path.isdir(root):
        print(f"The {root!r} directory does not exist")
        return
    home = Home(Path(root))
    for kind, is_wanted in wanted.items():
        if args.all or is_wanted:
            _delete(find_files(home, kind), is_quiet=args.quiet, asks=not args.yes)


def _delete(found: Found, *, is_quiet: bool, asks: bool) -> None:
    if not is_quiet:
        _tell(found)
    if not found.paths:
        return
    if asks and not _is_confirmed():
        if not is_quiet:
            print("Okay, not deleting")
        return
    for path in found.paths:
        path.unlink(missing_ok=True)
        if not is_quiet:
            print(f"[Deleted] {path}")


def _tell(found: Found) -> None:
    """Say what is there."""
    if found.kind is FileKind.DATABASE:
        if not found.paths:
            print("No database file found")
            return
        print("\nThe following database will be deleted:")
        for path in found.paths:
            print(f"  {path} [{_size_text(path.stat().st_size)}]")
        return
    print(f"\nSearching for {found.kind.value}s ... ", end="")
    if not found.paths:
        print(f"no {found.kind.value}s found")
        return
    print(f"\n  {len(found.paths)} {found.kind.value}(s) will be deleted [{_size_text(found.size)}]")


def _is_confirmed() -> bool:
    try:
        answer = input("Proceed (Y/n)? ")
    except EOFError:
        print()
        return False
    return answer.strip().lower() in ("", "y", "yes")


def _size_text(size: float) -> str:
    for unit in _UNITS[:-1]:
        if round(size) < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.0f} {_UNITS[-1]}"
