"""``msl-network certgen`` makes a self-signed certificate."""

from __future__ import annotations

import argparse

from ._cli_parser import HOW_PASSWORDS_ARE_GIVEN, Commands, add_command
from ._passwords import given_password
from .constants import DEFAULT_YEARS_VALID

__all__ = ["add_parser_certgen", "execute"]

HELP = "Make a self-signed certificate."

DESCRIPTION = """Make a self-signed certificate from a private key.

It is for this computer, by all of its names and addresses. A certificate that
is there already is replaced, and who trusts that has to be told.
"""

EPILOG = """Examples:

  # from the default key, where the manager looks for it
  msl-network certgen

  # from another key, for half a year
  msl-network certgen lab.crt --key-file lab.key --years-valid 0.5

See also:

  msl-network keygen
  msl-network certdump
"""


def add_parser_certgen(parser: Commands) -> None:
    """Add the command to those of a parser."""
    command = add_command(parser, "certgen", execute, help=HELP, description=DESCRIPTION, epilog=EPILOG)
    command.add_argument("out", nargs="?", help="The file. Default is where the manager looks for it.")
    command.add_argument(
        "-a", "--algorithm", default="SHA256", help="The hash to sign with. Default is SHA256."
    )
    command.add_argument(
        "-k",
        "--key-file",
        help="The private key. Without it, the default one is taken,\n"
        "and made if it is missing. See: msl-network keygen",
    )
    command.add_argument(
        "-p",
        "--key-file-password",
        nargs="+",
        help=f"The password of the private key.\n{HOW_PASSWORDS_ARE_GIVEN}",
    )
    command.add_argument(
        "-y",
        "--years-valid",
        default=DEFAULT_YEARS_VALID,
        help=f"How many years it is valid; 0.25 are three months.\nDefault is {DEFAULT_YEARS_VALID}.",
    )
    command.add_argument("--show", action="store_true", help="Print what is in it.")


def execute(args: argparse.Namespace) -> None:
    """Run the command."""
    from .cryptography import generate_certificate, get_metadata_as_string, load_certificate

    years = _years(args.years_valid)
    if not years > 0:
        print("ValueError: The --years-valid value must be a positive number")
        return
    try:
        password, is_from_file = given_password(args.key_file_password)
        if is_from_file:
            print("Reading the key password from the file")
        path = generate_certificate(
            path=args.out,
            key_path=args.key_file,
            key_password=password,
            algorithm=args.algorithm,
            years_valid=years,
        )
    except (ValueError, TypeError, OSError) as error:
        print(f"{type(error).__name__}: {error}")
        return
    print(f"Created the self-signed certificate {path!r}")
    if args.show:
        print()
        print(get_metadata_as_string(load_certificate(path)))


def _years(given: str | float) -> float:
    """The number that somebody means, 0 if it is none."""
    try:
        return float(given)
    except ValueError:
        return 0
