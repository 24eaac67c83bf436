"""What a manager remembers: users, trusted hosts, and who did what when. One SQLite file.

    schema      the tables: those of MSL-Network 1.0, and ours beside them
    database    the file, open: transactions from any thread
    passwords   hashes, ours and those of 1.0
    users       who may log in, and in which role
    hostnames   which hosts are trusted
    bounds      from when until when
    audit       events, by time; the connections of 1.0 among them
    requests    what administrators can ask of it over the network
    recorder    records events in the background of a trio program

All of it blocks, except for the recorder: an asynchronous program calls it in worker threads. Reading a row
or two takes less than a millisecond; writing waits for the disk; what has to do with passwords takes a fifth
of a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from armillary.network.locations import localhost_aliases

from .audit import Audit, AuditEvent, Connection, EventKind
from .bounds import Bound
from .database import BUSY_TIMEOUT, Database, StoreUnusable, open_database
from .hostnames import Hostnames
from .passwords import ITERATIONS
from .recorder import Recorder, RecorderStatistics, open_recorder
from .requests import table_requests
from .users import LoginRefused, UnknownUser, User, Users, WrongPassword

__all__ = [
    "Store",
    "open_store",
    "Users",
    "User",
    "LoginRefused",
    "UnknownUser",
    "WrongPassword",
    "Hostnames",
    "Audit",
    "AuditEvent",
    "EventKind",
    "Connection",
    "Bound",
    "Recorder",
    "RecorderStatistics",
    "open_recorder",
    "table_requests",
    "StoreUnusable",
]


@dataclass(frozen=True, slots=True)
class Store:
    """An open database. Its parts may be used from any thread until the block of `open_store` is left."""

    database: Database
    users: Users
    hostnames: Hostnames
    audit: Audit


@contextmanager
def open_store(
    path: str | os.PathLike[str],
    *,
    busy_timeout: float = BUSY_TIMEOUT,
    iterations: int = ITERATIONS,
    trusted: Callable[[], Iterable[str]] = localhost_aliases,
) -> Iterator[Store]:
    """Open a manager's database for a block; what is missing of it is made.

    Args:
        path: the file, or ``:memory:``.
        busy_timeout: seconds to wait while another program writes.
        iterations: the cost of new password hashes.
        trusted: the hosts that are trusted as long as there is no other. It is called if there is none, and
            asks the resolver, which may take seconds.

    Raises:
        StoreUnusable: it cannot be opened, or something else than a manager's database is there.
        OSError: the directory or the file cannot be made.
    """
    with open_database(path, busy_timeout=busy_timeout) as database:
        hostnames = Hostnames(database)
        hostnames.fill(trusted)
        yield Store(database, Users(database, iterations=iterations), hostnames, Audit(database))
