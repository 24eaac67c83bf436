"""One SQLite file, used from any thread, by one thread at a time.

It is left as MSL-Network 1.0 leaves it: a rollback journal and no write-ahead log, which would stay in the
file's header, put two more files beside it, and does not work on network file systems. A commit has reached
the disk when it returns.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from armillary.errors import ArmillaryError

from .schema import create_tables

__all__ = ["BUSY_TIMEOUT", "Database", "StoreUnusable", "make_private_file", "open_database"]

# Seconds to wait while another program writes. Longer holds up whoever waits for a login, and the end of a
# manager; shorter gives up on a copy or a backup that is about to be done.
BUSY_TIMEOUT = 10.0


class StoreUnusable(ArmillaryError):
    """The database cannot be read or written: no database, another program keeps it, the disk is full.

    The text names the file; `__cause__` is what SQLite said. You do not get this for data that makes no
    sense: that is a ValueError.
    """


class Database:
    """An open database. Made by `open_database`, closed at its end.

    All methods block, and may be called from any thread; each transaction has the database to itself.
    """

    def __init__(self, path: str, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()
        self._is_closed = False

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees one state of the database.

        Raises:
            StoreUnusable: it could not be read.
            trio.ClosedResourceError: the database is closed.
        """
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk at the end of the block, or undone if the block raises.

        Raises:
            StoreUnusable: it could not be written, and nothing of it was.
            trio.ClosedResourceError: the database is closed.
        """
        # Asking for the right to write at once: asked for later, it may be refused without a wait.
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._is_closed:
                raise trio.ClosedResourceError(f"the database {self.path} is closed")
            connection = self._connection
            with _sqlite_errors_translated(self.path):
                try:
                    connection.execute(begin)
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.rollback()
                    raise

    def tables(self) -> list[str]:
        """The names of the tables, sorted."""
        with self.reading() as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
            return [name for (name,) in rows if not name.startswith("sqlite_")]

    def table_info(self, table: str) -> list[tuple[int, str, str, int, object, int]]:
        """The columns of a table, none if there is no such table.

        Of each: number, name, type, whether never empty, its default, its place in the primary key or 0.
        """
        with self.reading() as connection:
            return connection.execute("SELECT * FROM pragma_table_info(?)", (table,)).fetchall()

    def close(self) -> None:
        """Close the database, after the transaction that may be under way in another thread."""
        with self._lock:
            self._is_closed = True
            self._connection.close()


@contextmanager
def open_database(path: str | os.PathLike[str], *, busy_timeout: float = BUSY_TIMEOUT) -> Iterator[Database]:
    """Open a database for a block; it and its tables are made if they are not there.

    Args:
        path: the file, or ``:memory:``. A new file can be read by its owner alone, since it holds the hashes
            of passwords.
        busy_timeout: seconds to wait while another program writes.

    Raises:
        StoreUnusable: it cannot be opened, or something else than a manager's database is there.
        OSError: the directory or the file cannot be made.
    """
    name = os.fspath(path)
    if name != ":memory:":
        make_private_file(name)
    with _sqlite_errors_translated(name):
        connection = sqlite3.connect(
            name, timeout=busy_timeout, isolation_level=None, check_same_thread=False, cached_statements=32
        )
    database = Database(name, connection)
    try:
        with _sqlite_errors_translated(name):
            connection.execute("PRAGMA synchronous = FULL")
        create_tables(database)
        yield database
    finally:
        database.close()


@contextmanager
def _sqlite_errors_translated(path: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnusable(f"cannot use the database {path}: {error}") from error


def make_private_file(name: str) -> None:
    """Make an empty file that its owner alone can read, and its directory; leave one that is there alone.

    Raises:
        OSError: the system did not let us.
    """
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        pass
