"""The tables of a manager: who has connected, which hosts are trusted, and who the users are.

They are those of 1.0, in the same file. What is in them besides, armillary's own tables, is not seen here.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from types import TracebackType
from typing import Any, Protocol, Self

from armillary.network.store.audit import Audit, AuditEvent, EventKind
from armillary.network.store.database import Database as _NativeDatabase
from armillary.network.store.database import make_private_file
from armillary.network.store.hostnames import Hostnames
from armillary.network.store.schema import create_tables
from armillary.network.store.users import LoginRefused, Users

from . import constants

__all__ = ["ConnectionsTable", "Database", "HostnamesTable", "UsersTable", "convert_datetime"]

# Seconds to wait while another program writes.
_BUSY_TIMEOUT = 60.0


class _Peer(Protocol):
    """Who is connected."""

    @property
    def ip_address(self) -> str: ...
    @property
    def domain(self) -> str: ...
    @property
    def port(self) -> int: ...


class _Shared(_NativeDatabase):
    """Transactions on a connection that belongs to the caller, who may have begun one.

    Nothing is translated: the errors are those of sqlite3.
    """

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        yield self._connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise


class Database:
    """A database, open until `close` is called or the ``with`` block of it ends.

    Args:
        database: the file, which is made if it is not there, or ``:memory:``; the default one if None.
        **kwargs: for `sqlite3.connect`.

    Raises:
        sqlite3.Error: it cannot be opened.
    """

    _connection: sqlite3.Connection | None = None

    def __init__(self, database: str | None, **kwargs: Any) -> None:
        self._path = constants.DATABASE if database is None else database
        if self._path not in ("", ":memory:"):
            try:
                make_private_file(os.fspath(self._path))
            except OSError:
                pass  # sqlite3 will say so
        self._connection = sqlite3.connect(self._path, **{"timeout": _BUSY_TIMEOUT, **kwargs})
        self._cursor = self._connection.cursor()
        self._shared = _Shared(self._path, self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            self.close()
        except sqlite3.ProgrammingError:
            pass  # collected in another thread: SQLite closes it all the same

    @property
    def path(self) -> str:
        """The file."""
        return self._path

    @property
    def connection(self) -> sqlite3.Connection | None:
        """The connection; None after `close`."""
        return self._connection

    @property
    def cursor(self) -> sqlite3.Cursor:
        """The cursor that `execute` uses."""
        return self._cursor

    def close(self) -> None:
        """Close the database. Once more does nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def execute(self, sql: str, parameters: Any = None) -> None:
        """Execute one statement. What it finds is for `cursor`, what it changes for `connection` to commit.

        Raises:
            sqlite3.Error: it could not be executed.
        """
        self._cursor.execute(sql, () if parameters is None else parameters)

    def tables(self) -> list[str]:
        """The names of the tables, sorted."""
        return [name for name in self._shared.tables() if not name.startswith("armillary_")]

    def table_info(self, name: str) -> list[tuple[int, str, str, int, Any, int]]:
        """The columns of a table: number, name, type, whether never empty, default, place in the key or 0."""
        return self._shared.table_info(name)

    def column_names(self, table_name: str) -> list[str]:
        """The names of a table's columns."""
        return [name for _, name, *_ in self.table_info(table_name)]

    def column_datatypes(self, table_name: str) -> list[str]:
        """The types of a table's columns."""
        return [kind for _, _, kind, *_ in self.table_info(table_name)]


def convert_datetime(value: bytes) -> datetime:
    """A time as it is in the database, as a datetime.

    Raises:
        ValueError: it is none.
    """
    return datetime.fromisoformat(value.decode())


class ConnectionsTable(Database):
    """Who has connected and disconnected, and when.

    Args:
        database: see `Database`.
        as_datetime: whether times are datetimes and not text.
        **kwargs: for `sqlite3.connect`.
    """

    NAME = "connections"

    def __init__(self, *, database: str | None = None, as_datetime: bool = False, **kwargs: Any) -> None:
        if as_datetime:
            sqlite3.register_converter("DATETIME", convert_datetime)
            kwargs["detect_types"] = kwargs.get("detect_types", 0) | sqlite3.PARSE_DECLTYPES
        super().__init__(database, **kwargs)
        create_tables(self._shared, (self.NAME, "armillary_audit"))
        self._audit = Audit(self._shared)

    def insert(self, peer: _Peer, message: str) -> None:
        """Record what happened to a peer, now."""
        event = AuditEvent(
            time.time(), EventKind.CONNECTION, message, peer.ip_address, peer.domain, peer.port
        )
        self._audit.record([event])

    def connections(
        self, *, start: str | date | None = None, end: str | date | None = None
    ) -> list[tuple[int, str | datetime, str, str, int, str]]:
        """What was recorded: number, time, IP address, domain, port and message.

        Args:
            start: from when on, included: a date or a time, as text or as an object; from the beginning if
                None.
            end: until when, included; until now if None.

        Raises:
            ValueError: one of them is no time.
        """
        rows: list[Any] = self._audit.connections(start, end)
        return [tuple(row) for row in rows]


class HostnamesTable(Database):
    """The trusted hosts. If there is none, this computer is.

    Args:
        database: see `Database`.
        **kwargs: for `sqlite3.connect`.
    """

    NAME = "auth_hostnames"

    def __init__(self, *, database: str | None = None, **kwargs: Any) -> None:
        super().__init__(database, **kwargs)
        create_tables(self._shared, (self.NAME,))
        self._hostnames = Hostnames(self._shared)
        self._hostnames.fill(lambda: constants.LOCALHOST_ALIASES)

    def insert(self, hostname: str) -> None:
        """Trust a host.

        Raises:
            ValueError: the name is empty.
        """
        self._hostnames.add(hostname)

    def delete(self, hostname: str) -> None:
        """Trust a host no longer.

        Raises:
            ValueError: it is not in the table.
        """
        self._hostnames.remove(hostname)

    def hostnames(self) -> list[str]:
        """The trusted hosts, sorted."""
        return self._hostnames.names()


class UsersTable(Database):
    """Who may log in, and who is an administrator.

    Args:
        database: see `Database`.
        **kwargs: for `sqlite3.connect`.
    """

    NAME = "auth_users"

    def __init__(self, *, database: str | None = None, **kwargs: Any) -> None:
        super().__init__(database, **kwargs)
        create_tables(self._shared, (self.NAME, "armillary_roles"))
        self._users = Users(self._shared)

    def insert(self, username: str, password: str, is_admin: object) -> None:
        """Add a user, who is an administrator if `is_admin` is true.

        Raises:
            ValueError: the name is empty, taken, or ends like a manager's; or there is no password.
        """
        self._users.add(username, password, is_admin=bool(is_admin))

    def update(self, username: str, *, password: str | None = None, is_admin: object = None) -> None:
        """Change the password of a user, or whether it is an administrator, or both.

        Raises:
            ValueError: there is no such user, nothing is to be changed, or the password is empty.
        """
        self._users.update(username, password=password, is_admin=None if is_admin is None else bool(is_admin))

    def delete(self, username: str) -> None:
        """Remove a user.

        Raises:
            ValueError: there is no such user.
        """
        self._users.remove(username)

    def get_user(self, username: str) -> tuple[int, str, bytes, bytes, int] | None:
        """A user's number, name, hash, salt, and whether it is an administrator; None if there is none."""
        with self._shared.reading() as connection:
            found = connection.execute(f"SELECT * FROM {self.NAME} WHERE username = ?", (username,))
            row: tuple[int, str, bytes, bytes, int] | None = found.fetchone()
        return row

    def records(self) -> list[tuple[int, str, bytes, bytes, int]]:
        """What `get_user` returns, of all users."""
        with self._shared.reading() as connection:
            return connection.execute(f"SELECT * FROM {self.NAME} ORDER BY pid").fetchall()

    def usernames(self) -> list[str]:
        """The names of all users, sorted."""
        return sorted(self._users.names())

    def users(self) -> list[tuple[str, bool]]:
        """The name of every user, and whether it is an administrator, sorted."""
        return [(user.name, user.is_admin) for user in self._users.all()]

    def is_user_registered(self, username: str) -> bool:
        """Whether there is a user of that name."""
        return self.get_user(username) is not None

    def is_password_valid(self, username: str, password: str) -> bool:
        """Whether that is the user's password. A hash of 1.0 is replaced by a safer one if it is."""
        try:
            self._users.login(username, password)
        except LoginRefused:
            return False
        return True

    def is_admin(self, username: str) -> bool:
        """Whether there is a user of that name who is an administrator."""
        user = self._users.get(username)
        return user is not None and user.is_admin
