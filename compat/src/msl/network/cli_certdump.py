"""``msl-network certdump`` prints what is in a certificate."""

from __future__ import annotations

import argparse
import os

from ._cli_parser import Commands, add_command
from .utils import ensure_root_path

__all__ = ["add_parser_certdump", "execute"]

HELP = "Print what is in a certificate."

DESCRIPTION = HELP

EPILOG = """Examples:

  # in this terminal
  msl-network certdump lab.crt

  # into a file
  msl-network certdump lab.crt --out lab.txt

See also:

  msl-network certgen
"""


def add_parser_certdump(parser: Commands) -> None:
    """Add the command to those of a parser."""
    command = add_command(parser, "certdump", execute, help=HELP, description=DESCRIPTION, epilog=EPILOG)
    command.add_argument("certfile", help="The file with the certificate, in PEM form.")
    command.add_argument("-o", "--out", help="Write it to this file.")


def execute(args: argparse.Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: there is no certificate in the file.
        OSError: a file cannot be read or written.
    """
    from .cryptography import get_metadata_as_string, load_certificate

    if not os.path.isfile(args.certfile):
        print(f"Cannot find {args.certfile}")
        return
    text = get_metadata_as_string(load_certificate(args.certfile))
    if not args.out:
        print(text)
        return
    ensure_root_path(args.out)
    with open(args.out, "w", encoding="utf-8") as file:
        file.write(f"Certificate details for {args.certfile}\n{text}")
    print(f"Dumped the certificate details to {args.out}")
