"""``msl-network start`` runs a manager."""

from __future__ import annotations

import argparse

from ._cli_parser import HOW_PASSWORDS_ARE_GIVEN, Commands, add_command
from .constants import PORT

__all__ = ["add_parser_start", "execute"]

HELP = "Run a manager."

DESCRIPTION = HELP

EPILOG = """Examples:

  # whoever can reach this computer may connect
  msl-network start

  # on another port
  msl-network start --port 1876

  # only who knows a password, which is two words here
  msl-network start --auth-password open sesame

  # only users, who log in
  msl-network start --auth-login

  # with a certificate of one's own
  msl-network start --cert-file lab.crt --key-file lab.key

See also:

  msl-network certgen
  msl-network keygen
  msl-network hostname
  msl-network user
"""


def add_parser_start(parser: Commands) -> None:
    """Add the command to those of a parser."""
    command = add_command(parser, "start", execute, help=HELP, description=DESCRIPTION, epilog=EPILOG)
    command.add_argument(
        "--auth-hostname",
        action="store_true",
        help="Everybody has to come from a trusted host.\nSee: msl-network hostname",
    )
    command.add_argument(
        "--auth-login",
        action="store_true",
        help="Everybody has to log in as a user.\nSee: msl-network user",
    )
    command.add_argument(
        "-P",
        "--auth-password",
        nargs="+",
        help=f"Everybody has to know this password.\n{HOW_PASSWORDS_ARE_GIVEN}",
    )
    command.add_argument(
        "-c",
        "--cert-file",
        help="The certificate. Without it, a default one is taken,\n"
        "and made if it is missing. See: msl-network certgen",
    )
    command.add_argument(
        "-d", "--database", help="The database with the users, the trusted hosts, and the\nconnections."
    )
    command.add_argument("--disable-tls", action="store_true", help="Encrypt nothing.")
    command.add_argument("-H", "--host", help="The name or address to listen on. Default is all of them.")
    command.add_argument(
        "-k",
        "--key-file",
        help="The private key of the certificate. Without --cert-file,\n"
        "the default certificate is made from it, if it is not yet.\nSee: msl-network keygen",
    )
    command.add_argument(
        "-D",
        "--key-file-password",
        nargs="+",
        help=f"The password of the private key.\n{HOW_PASSWORDS_ARE_GIVEN}",
    )
    command.add_argument("-p", "--port", default=PORT, help=f"The port to listen on. Default is {PORT}.")
    command.add_argument(
        "-G", "--log-level", default="INFO", help="From which level on to log. Default is INFO."
    )
    command.add_argument(
        "-l",
        "--log-file",
        help="Where to log besides this terminal. Default is a new file in\n"
        "the directory logs of the network's home.",
    )


def execute(args: argparse.Namespace) -> None:
    """Run the command."""
    from ._manager_setup import ManagerOptions
    from .manager import run_forever

    run_forever(**{name: value for name, value in vars(args).items() if name in ManagerOptions.names()})
