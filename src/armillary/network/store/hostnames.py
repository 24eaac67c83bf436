"""The trusted hosts, which may connect without a password when the manager goes by hostnames."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .database import Database

__all__ = ["Hostnames"]


class Hostnames:
    """The table of trusted hosts.

    Every method blocks, may be called from any thread, and raises `StoreUnusable` if the database cannot be
    used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def fill(self, aliases: Callable[[], Iterable[str]]) -> None:
        """Add `aliases()` to an empty table: otherwise nobody could connect, not even from this computer."""
        with self._database.reading() as connection:
            if connection.execute("SELECT 1 FROM auth_hostnames LIMIT 1").fetchone():
                return
        names = sorted(aliases())
        with self._database.writing() as connection:
            connection.executemany(
                "INSERT INTO auth_hostnames VALUES (?) ON CONFLICT DO NOTHING", [(name,) for name in names]
            )

    def add(self, name: str) -> None:
        """Trust a host: the first part of its name, or its address if it has no name.

        Raises:
            ValueError: the name is empty.
        """
        if not name:
            raise ValueError("You must specify a hostname")
        with self._database.writing() as connection:
            connection.execute("INSERT INTO auth_hostnames VALUES (?) ON CONFLICT DO NOTHING", (name,))

    def remove(self, name: str) -> None:
        """Trust a host no longer.

        Raises:
            ValueError: it is not in the table.
        """
        with self._database.writing() as connection:
            if connection.execute("DELETE FROM auth_hostnames WHERE hostname = ?", (name,)).rowcount == 0:
                raise ValueError(f"Cannot delete {name!r}. This hostname is not in the table.")

    def names(self) -> list[str]:
        """The trusted hosts, sorted."""
        with self._database.reading() as connection:
            return sorted(name for (name,) in connection.execute("SELECT hostname FROM auth_hostnames"))
