"""The users: their passwords, whether they are administrators, and the name of their role."""

from __future__ import annotations

import logging
import re
import sqlite3
from dataclasses import dataclass

from armillary.errors import ArmillaryError
from armillary.network.protocol.roles import ADMINISTRATOR

from .database import Database, StoreUnusable
from .passwords import ITERATIONS, Hash, hash_password, reject_password, verify_password

__all__ = ["LoginRefused", "UnknownUser", "User", "Users", "WrongPassword"]

_logger = logging.getLogger(__name__)

# A device is asked for the password of a user with the user's name, and for the manager's password with the
# manager's, which ends like this.
_LIKE_A_MANAGER = re.compile(r":\d+\Z")


class LoginRefused(ArmillaryError, ValueError):
    """The name or the password is wrong. The text is what the peer is told."""


class UnknownUser(LoginRefused):
    """There is no such user."""


class WrongPassword(LoginRefused):
    """There is such a user, who has another password."""


@dataclass(frozen=True, slots=True)
class User:
    """What is known of a user, except for the password."""

    name: str
    is_admin: bool
    role: str | None = None
    """What the role is called that says what the user may do; None for whatever role is the default."""


class Users:
    """The table of users.

    Every method blocks; those that take a password do so for about a fifth of a second, without holding the
    database. All may be called from any thread, and raise `StoreUnusable` if the database cannot be used.
    """

    def __init__(self, database: Database, *, iterations: int = ITERATIONS) -> None:
        self._database = database
        self._iterations = iterations

    def add(self, name: str, password: str | None, *, is_admin: bool = False, role: str = "") -> None:
        """Add a user.

        Args:
            name: of the user.
            password: of the user.
            is_admin: whether the user is an administrator, who may do everything.
            role: what the role is called that says what the user may do; the default one if empty.

        Raises:
            ValueError: the name is empty, ends like a manager's or is taken; there is no password; or the
                role is one that is not given by its name.
        """
        if not name:
            raise ValueError("You must specify a username")
        if _LIKE_A_MANAGER.search(name):
            raise ValueError('A username cannot end with ":<integer>"')
        _check_role(role)
        if not password:
            raise _without_password(name)
        if self.get(name) is not None:
            raise _taken(name)  # before the work
        hashed = hash_password(password, iterations=self._iterations)
        with self._database.writing() as connection:
            cursor = connection.execute(
                "INSERT INTO auth_users VALUES (NULL, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (name, *hashed, bool(is_admin)),
            )
            if cursor.rowcount == 0:
                raise _taken(name)  # by somebody else in this moment
            _set_role(connection, cursor.lastrowid, role)

    def update(
        self, name: str, *, password: str | None = None, is_admin: bool | None = None, role: str | None = None
    ) -> None:
        """Change what is not None of a user. An empty `role` is the default one.

        Raises:
            ValueError: there is no such user, nothing is to be changed, the password is empty, or the role is
                one that is not given by its name.
        """
        if self.get(name) is None:
            raise _missing("update", name)
        if password is None and is_admin is None and role is None:
            raise ValueError("Must specify either the password and/or the admin rights when updating")
        _check_role(role)
        if password == "":
            raise _without_password(name)
        hashed = None if password is None else hash_password(password, iterations=self._iterations)
        with self._database.writing() as connection:
            found = connection.execute("SELECT pid FROM auth_users WHERE username = ?", (name,)).fetchone()
            if found is None:
                raise _missing("update", name)  # removed by somebody else in this moment
            (pid,) = found
            if hashed is not None:
                connection.execute("UPDATE auth_users SET key = ?, salt = ? WHERE pid = ?", (*hashed, pid))
            if is_admin is not None:
                connection.execute("UPDATE auth_users SET is_admin = ? WHERE pid = ?", (bool(is_admin), pid))
            if role is not None:
                _set_role(connection, pid, role)

    def remove(self, name: str) -> None:
        """Remove a user.

        Raises:
            ValueError: there is no such user.
        """
        with self._database.writing() as connection:
            connection.execute(
                "DELETE FROM armillary_roles WHERE pid = (SELECT pid FROM auth_users WHERE username = ?)",
                (name,),
            )
            if connection.execute("DELETE FROM auth_users WHERE username = ?", (name,)).rowcount == 0:
                raise _missing("delete", name)

    def get(self, name: str) -> User | None:
        """A user, or None if there is none of that name."""
        found = self._select("WHERE username = ?", name) if _is_text(name) else []
        return found[0] if found else None

    def all(self) -> list[User]:
        """All users, sorted by name."""
        return sorted(self._select(""), key=lambda user: user.name)

    def names(self) -> list[str]:
        """The names of all users, in the order in which they were added."""
        with self._database.reading() as connection:
            return [name for (name,) in connection.execute("SELECT username FROM auth_users ORDER BY pid")]

    def login(self, name: str, password: str) -> User:
        """Check a name and a password; a hash that is too cheap by today's standards is replaced.

        An unknown name takes as long as a wrong password.

        Raises:
            UnknownUser: there is no user of that name.
            WrongPassword: there is, with another password.
        """
        row = None
        if _is_text(name):
            with self._database.reading() as connection:
                row = connection.execute(
                    "SELECT pid, key, salt FROM auth_users WHERE username = ?", (name,)
                ).fetchone()
        if row is None:
            reject_password(password, iterations=self._iterations)
            raise UnknownUser("Unregistered user")
        pid, *stored = row
        verdict = verify_password(password, Hash(*map(_as_bytes, stored)), iterations=self._iterations)
        if not verdict.is_right:
            raise WrongPassword("Wrong login password")
        if verdict.is_outdated:
            self._upgrade(pid, stored[0], password)
        # By number: the name may be somebody else's by now.
        found = self._select("WHERE pid = ?", pid)
        if not found:
            raise UnknownUser("Unregistered user")
        return found[0]

    def _upgrade(self, pid: int, old_key: object, password: str) -> None:
        """Replace a hash, unless it is another one by now."""
        hashed = hash_password(password, iterations=self._iterations)
        try:
            with self._database.writing() as connection:
                connection.execute(
                    "UPDATE auth_users SET key = ?, salt = ? WHERE pid = ? AND key = ?",
                    (*hashed, pid, old_key),
                )
        except StoreUnusable as error:
            # The password was right, and there will be other logins.
            _logger.warning("could not replace the outdated hash of a password: %s", error)

    def _select(self, condition: str, *parameters: object) -> list[User]:
        query = (
            "SELECT username, is_admin, role FROM auth_users LEFT JOIN armillary_roles USING (pid) "
            f"{condition} ORDER BY auth_users.pid"
        )
        with self._database.reading() as connection:
            rows = connection.execute(query, parameters).fetchall()
        return [User(name, bool(is_admin), role) for name, is_admin, role in rows]


def _set_role(connection: sqlite3.Connection, pid: int | None, role: str) -> None:
    connection.execute("DELETE FROM armillary_roles WHERE pid = ?", (pid,))
    if role:
        connection.execute("INSERT INTO armillary_roles VALUES (?, ?)", (pid, role))


def _check_role(role: str | None) -> None:
    if role == ADMINISTRATOR.name:
        # Otherwise nobody who looks at the table with the tools of 1.0 would see that there is one.
        raise ValueError("expected is_admin (--admin) to make an administrator, got a role of that name")


def _is_text(name: str) -> bool:
    """Whether a name could stand in a database: a lone surrogate, which a peer may send, could not."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _as_bytes(value: object) -> bytes:
    """A blob, even if somebody wrote it as text by hand."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8")


def _taken(name: str) -> ValueError:
    return ValueError(f"A user with the name {name!r} already exists")


def _without_password(name: str) -> ValueError:
    return ValueError(f"You must specify a password for {name!r}")


def _missing(what: str, name: str) -> ValueError:
    return ValueError(f"Cannot {what} {name!r}. This user is not in the table.")
