"""``msl-network keygen`` makes a private key."""

from __future__ import annotations

import argparse

from ._cli_parser import HOW_PASSWORDS_ARE_GIVEN, Commands, add_command
from ._passwords import given_password

__all__ = ["add_parser_keygen", "execute"]

HELP = "Make a private key."

DESCRIPTION = """Make a private key, from which certificates are made.

A key that is there already is replaced, and the certificates that were made
from it are of no use then.
"""

EPILOG = """Examples:

  # RSA of 2048 bits, where the manager looks for it
  msl-network keygen

  # an encrypted key of an elliptic curve, with a password of two words
  msl-network keygen ecc --password open sesame --out lab.key

See also:

  msl-network certgen
"""


def add_parser_keygen(parser: Commands) -> None:
    """Add the command to those of a parser."""
    command = add_command(parser, "keygen", execute, help=HELP, description=DESCRIPTION, epilog=EPILOG)
    command.add_argument(
        "algorithm",
        nargs="?",
        choices=["rsa", "dsa", "ecc"],
        default="rsa",
        help="What kind of key it is. Default is rsa. Managers need\nrsa or ecc.",
    )
    command.add_argument(
        "-c", "--curve", default="SECP384R1", help="The curve, for ecc. Default is SECP384R1."
    )
    command.add_argument(
        "-p", "--password", nargs="+", help=f"Encrypt the key with this password.\n{HOW_PASSWORDS_ARE_GIVEN}"
    )
    command.add_argument("-o", "--out", help="The file. Default is where the manager looks for it.")
    command.add_argument(
        "-s", "--size", default=2048, help="The size in bits, for rsa and dsa. Default is 2048."
    )


def execute(args: argparse.Namespace) -> None:
    """Run the command."""
    from .cryptography import generate_key

    size = _size(args.size)
    if size <= 0:
        print("ValueError: The --size value must be a positive integer")
        return
    try:
        password, is_from_file = given_password(args.password)
        if is_from_file:
            print("Reading the key password from the file")
        path = generate_key(
            path=args.out, algorithm=args.algorithm, password=password, size=size, curve=args.curve
        )
    except (ValueError, TypeError, OSError) as error:
        print(f"{type(error).__name__}: {error}")
    else:
        print(f"Created private {args.algorithm.upper()} key {path!r}")


def _size(given: str | int) -> int:
    """The number that somebody means, 0 if it is none."""
    try:
        return int(given)
    except ValueError:
        return 0
