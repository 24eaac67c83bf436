"""``armillary network``: run a lab network from a terminal.

    starting       start
    running        what the commands have in common: errors, passwords, files
    certificates   keygen, certgen, certdump
    database       hostname, user
    deleting       delete

What only one command needs is imported in that command: cryptography and sqlite3 would make the others start
noticeably later.
"""

from __future__ import annotations

import click

from .certificates import certdump, certgen, keygen
from .database import hostname, user
from .deleting import delete
from .starting import start

__all__ = ["main"]


@click.group("network")
def main() -> None:
    """Run a lab network: its keys and certificates, its users, its files.

    Files are kept in ~/.msl/network, or where the environment variable MSL_NETWORK_HOME says. MSL-Network 1.0
    keeps its files there, too.
    """


for _command in (start, keygen, certgen, certdump, hostname, user, delete):
    main.add_command(_command)
