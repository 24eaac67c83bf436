"""The command ``msl-network``.

It exits with status 0 even if what it was told to do has failed, as that of 1.0 does. ``armillary network``
has the same commands with true exit statuses.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from functools import cache

from armillary.errors import ArmillaryError

from . import (
    cli_certdump,
    cli_certgen,
    cli_delete,
    cli_hostname,
    cli_keygen,
    cli_start,
    cli_user,
)
from ._version import __version__

__all__ = ["configure_parser", "main"]

DESCRIPTION = """The manager of a lab network, and its files.

Services tell the manager what can be requested from them. Clients send it
their requests, it sends them on to the services, and the results back.
"""


@cache
def configure_parser() -> argparse.ArgumentParser:
    """The parser of the command line. ``parse_args(...).func(...)`` of what it has read runs a command."""
    parser = argparse.ArgumentParser(
        prog="msl-network",
        description=DESCRIPTION,
        formatter_class=argparse.RawTextHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help="Print this help and exit.")
    parser.add_argument(
        "-V", "--version", action="version", version=__version__, help="Print the version and exit."
    )
    commands = parser.add_subparsers(metavar="command", dest="cmd", required=True)
    cli_certdump.add_parser_certdump(commands)
    cli_certgen.add_parser_certgen(commands)
    cli_delete.add_parser_delete(commands)
    cli_hostname.add_parser_hostname(commands)
    cli_keygen.add_parser_keygen(commands)
    cli_start.add_parser_start(commands)
    cli_user.add_parser_user(commands)
    return parser


def main(*args: str) -> None:
    """Run a command, and exit.

    Args:
        args: the words of the command line; those that this process was started with if there are none.

    Raises:
        SystemExit: always. Status 0, but 2 for a command line that makes no sense, and a text, which is
            status 1, if a file, a key or a database is of no use.
    """
    words = args or tuple(sys.argv[1:]) or ("--help",)
    options = configure_parser().parse_args(words)
    try:
        sys.exit(options.func(options))
    except (ArmillaryError, OSError, ValueError, sqlite3.Error) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
