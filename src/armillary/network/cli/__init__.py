"""``armillary network``: run a lab network from a terminal.

    starting       start
    running        what commands on this computer have in common: errors, passwords, files
    certificates   keygen, certgen, certdump
    database       hostname, user
    auditing       audit
    deleting       delete

    connecting     what commands that connect to a manager have in common: options, trust, secrets, the end
    terminal       questions at the terminal
    looking        ls
    overview       what it shows
    live_overview  the same in a terminal
    calling        call
    watching       watch
    values         how values are typed and printed
    columns        how tables are printed

What only one command needs is imported in that command: cryptography and sqlite3 would make the others start
noticeably later.
"""

from __future__ import annotations

import click

from .auditing import audit
from .calling import call
from .certificates import certdump, certgen, keygen
from .database import hostname, user
from .deleting import delete
from .looking import ls
from .starting import start
from .watching import watch

__all__ = ["main"]


@click.group("network")
def main() -> None:
    """Run a lab network, look at it, and talk to its services.

    Files are kept in ~/.msl/network, or where the environment variable MSL_NETWORK_HOME says. MSL-Network 1.0
    keeps its files there, too.
    """


for _command in (start, ls, call, watch, keygen, certgen, certdump, hostname, user, audit, delete):
    main.add_command(_command)
