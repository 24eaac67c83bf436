"""What the parsers of all commands have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

__all__ = ["HOW_PASSWORDS_ARE_GIVEN", "Commands", "add_command"]

HOW_PASSWORDS_ARE_GIVEN = """If there is a file of that name, its first
line is the password, which then is in no command
history. WARNING: if there is none, because of a slip
of the pen for example, the name itself is the password."""


def add_command(
    commands: Commands,
    name: str,
    execute: Callable[[argparse.Namespace], None],
    *,
    help: str,  # as argparse calls it
    description: str,
    epilog: str,
) -> argparse.ArgumentParser:
    """Add a command."""
    parser = commands.add_parser(
        name,
        help=help,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawTextHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="help", help="Print this help and exit.")
    parser.set_defaults(func=execute)
    return parser
