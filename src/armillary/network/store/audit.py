"""Who did what and when: connections, logins, links, locks, admin requests."""

from __future__ import annotations

import enum
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from .bounds import Bound, local_text, seconds
from .database import Database

__all__ = ["Audit", "AuditEvent", "Connection", "EventKind"]

# Characters kept of each text. With more, a peer can fill the disk by what it calls itself; with fewer, names
# are cut that people use.
_LONGEST_TEXT = 500


class EventKind(enum.StrEnum):
    """What an event is about."""

    CONNECTION = "connection"
    LOGIN = "login"
    LINK = "link"
    LOCK = "lock"
    ADMIN = "admin"
    AUDIT = "audit"
    """The audit itself: what could not be recorded."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that happened."""

    time: float
    """Seconds since 1970."""
    kind: EventKind
    message: str
    """What happened. For connections, the words of MSL-Network 1.0, such as ``connected as a client``."""
    ip_address: str = ""
    domain: str = ""
    """The name of the peer's host, or its address."""
    port: int = 0
    peer: str = ""
    """The peer's name in the lab network, once it has one."""
    user: str = ""
    """Who is logged in, or tries to."""
    subject: str = ""
    """The service or the manager's attribute that it is about."""


class Connection(NamedTuple):
    """A row of the table that MSL-Network 1.0 has."""

    pid: int
    datetime: str
    """Local time, such as ``2024-03-31T12:30:00``."""
    ip_address: str
    domain: str
    port: int
    message: str


class Audit:
    """The events that were recorded, for ever: `forget` the old ones if the database grows too large.

    Those about connections are in the table of MSL-Network 1.0 as well. Every method blocks, may be called
    from any thread, and raises `StoreUnusable` if the database cannot be used.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, events: Iterable[AuditEvent]) -> None:
        """Record events, all of them or none; they are on the disk when this returns.

        It takes as long for one as for a thousand: about as long as the disk needs to write anything.
        """
        events = list(events)
        with self._database.writing() as connection:
            connection.executemany(
                "INSERT INTO armillary_audit VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                map(_audit_row, events),
            )
            connection.executemany(
                "INSERT INTO connections VALUES (NULL, ?, ?, ?, ?, ?)",
                [_connection_row(event) for event in events if event.kind is EventKind.CONNECTION],
            )

    def events(
        self,
        start: Bound = None,
        end: Bound = None,
        *,
        kinds: Collection[EventKind] | None = None,
        user: str | None = None,
        limit: int | None = None,
    ) -> list[AuditEvent]:
        """The events from `start` to `end`, both included, the oldest first.

        Args:
            start: from when; from the beginning if None.
            end: until when; until now if None.
            kinds: what they are about; anything if None.
            user: who was logged in; anybody if None.
            limit: at most so many, the newest ones.

        Raises:
            ValueError: a bound is no time.
        """
        conditions, parameters = ["TRUE"], list[object]()
        for condition, value in (
            ("time >= ?", seconds(start, is_end=False)),
            ("time <= ?", seconds(end, is_end=True)),
            ("user = ?", user),
        ):
            if value is not None:
                conditions.append(condition)
                parameters.append(value)
        if kinds is not None:
            conditions.append(f"kind IN ({', '.join('?' * len(kinds))})")
            parameters += kinds
        query = (
            "SELECT time, kind, message, ip_address, domain, port, peer, user, subject FROM armillary_audit "
            f"WHERE {' AND '.join(conditions)} ORDER BY time DESC, id DESC LIMIT ?"
        )
        with self._database.reading() as connection:
            rows = connection.execute(query, (*parameters, -1 if limit is None else limit)).fetchall()
        return [AuditEvent(time, EventKind(kind), *rest) for time, kind, *rest in reversed(rows)]

    def connections(self, start: Bound = None, end: Bound = None) -> list[Connection]:
        """The rows of the table of MSL-Network 1.0 from `start` to `end`, both included, in its order.

        Raises:
            ValueError: a bound is no time.
        """
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT * FROM connections WHERE datetime >= ? AND datetime <= ? ORDER BY pid",
                # Before and after all that begins with a digit.
                (local_text(start, is_end=False) or "", local_text(end, is_end=True) or ":"),
            ).fetchall()
        return [Connection(*row) for row in rows]

    def forget(self, before: Bound) -> int:
        """Delete the events before a time, in both tables.

        Returns:
            how many there were, in both tables together.

        Raises:
            ValueError: it is no time.
        """
        bounds = (seconds(before, is_end=False), local_text(before, is_end=False))
        with self._database.writing() as connection:
            return _deleted(connection, "armillary_audit WHERE time < ?", bounds[0]) + _deleted(
                connection, "connections WHERE datetime < ?", bounds[1]
            )


def _deleted(connection: sqlite3.Connection, rows: str, bound: object) -> int:
    return connection.execute(f"DELETE FROM {rows}", (bound,)).rowcount


def _audit_row(event: AuditEvent) -> tuple[object, ...]:
    texts = (event.peer, event.user, event.subject)
    return (event.time, event.kind, *_where(event), *map(_kept, texts))


def _connection_row(event: AuditEvent) -> tuple[object, ...]:
    message, *where = _where(event)
    when = datetime.fromtimestamp(event.time).isoformat(timespec="seconds")
    return (when, *where, message)


def _where(event: AuditEvent) -> tuple[str, str, str, int]:
    return (_kept(event.message), _kept(event.ip_address), _kept(event.domain), event.port)


def _kept(text: str) -> str:
    """What a table can hold, and holds, of a text that may have come from a peer."""
    return text[:_LONGEST_TEXT].encode("utf-8", "backslashreplace").decode("utf-8")
