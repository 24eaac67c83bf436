"""The tables: the three of MSL-Network 1.0 to the letter, and ours beside them.

A database of 1.0 works here and goes on working there, since nothing is added to its tables: 1.0 inserts rows
and reads them by the number of their columns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .database import Database

__all__ = ["create_tables"]

_TABLES = {
    "connections": (
        "pid INTEGER PRIMARY KEY AUTOINCREMENT",
        "datetime DATETIME NOT NULL",
        "ip_address TEXT NOT NULL",
        "domain TEXT NOT NULL",
        "port INTEGER NOT NULL",
        "message TEXT NOT NULL",
    ),
    "auth_hostnames": (
        "hostname TEXT NOT NULL",
        "UNIQUE(hostname)",
    ),
    "auth_users": (
        "pid INTEGER PRIMARY KEY AUTOINCREMENT",
        "username TEXT NOT NULL",
        "key BLOB NOT NULL",
        "salt BLOB NOT NULL",
        "is_admin BOOLEAN NOT NULL",
        "UNIQUE(username)",
    ),
    # By pid, which is never used again: who is removed with 1.0 and added again does not get the old role.
    "armillary_roles": (
        "pid INTEGER NOT NULL",
        "role TEXT NOT NULL",
        "UNIQUE(pid)",
    ),
    "armillary_audit": (
        "id INTEGER PRIMARY KEY AUTOINCREMENT",
        "time REAL NOT NULL",
        "kind TEXT NOT NULL",
        "message TEXT NOT NULL",
        "ip_address TEXT NOT NULL",
        "domain TEXT NOT NULL",
        "port INTEGER NOT NULL",
        "peer TEXT NOT NULL",
        "user TEXT NOT NULL",
        "subject TEXT NOT NULL",
    ),
}
_INDICES = {"armillary_audit_time": "armillary_audit(time)"}


def create_tables(database: Database, tables: Collection[str] = frozenset(_TABLES)) -> None:
    """Make what is missing.

    Args:
        database: where.
        tables: the names of those that are wanted.

    Raises:
        StoreUnusable: it cannot be read or written, or a table is there that has other columns.
    """
    chosen = {name: clauses for name, clauses in _TABLES.items() if name in tables}
    indices = {name: where for name, where in _INDICES.items() if where.partition("(")[0] in tables}
    with database.reading() as connection:
        names = connection.execute("SELECT name FROM sqlite_master").fetchall()
    if not {*chosen, *indices} <= {name for (name,) in names}:
        with database.writing() as connection:
            for name, clauses in chosen.items():
                connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({', '.join(clauses)})")
            for name, where in indices.items():
                connection.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {where}")
    with database.reading() as connection:
        for name, clauses in chosen.items():
            wanted = [clause.split()[0] for clause in clauses if not clause.startswith("UNIQUE")]
            found = [column for _, column, *_ in connection.execute(f"PRAGMA table_info({name})")]
            if found != wanted:
                raise sqlite3.DatabaseError(
                    f"expected a table {name!r} with the columns {', '.join(wanted)}, got {', '.join(found)}"
                )
