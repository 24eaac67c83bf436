"""The tables of a manager, as 1.0's users read and change them."""

from __future__ import annotations

import gc
import inspect
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from armillary.network.store import open_store
from msl.network import ConnectionsTable, HostnamesTable, UsersTable, constants, database
from msl.network.database import Database

PEER = SimpleNamespace(ip_address="10.0.0.7", domain="lab7.example.org", port=51022)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where there is nothing yet."""
    return str(tmp_path / "manager.sqlite3")


@pytest.fixture
def users(path: str) -> Iterator[UsersTable]:
    """A table without users."""
    with UsersTable(database=path) as table:
        yield table


# -- any database --------------------------------------------------------------------------------------------


def test_a_database_is_opened_and_closed(path: str) -> None:
    """It has a path, a connection and a cursor, and can be closed more than once."""
    table = Database(path)
    assert table.path == path
    assert isinstance(table.connection, sqlite3.Connection)
    assert isinstance(table.cursor, sqlite3.Cursor)
    assert table.tables() == []
    for _ in range(2):
        table.close()
        assert table.connection is None
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        table.tables()


def test_a_database_is_closed_at_the_end_of_a_block(path: str) -> None:
    """Also if the block raises."""
    with pytest.raises(KeyError), Database(path) as table:
        raise KeyError
    assert table.connection is None


def test_a_database_is_closed_when_it_is_forgotten(path: str) -> None:
    """Nothing is left open, and nothing is said about it."""
    table = Database(path)
    connection = table.connection
    assert connection is not None
    del table
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_a_database_in_memory() -> None:
    """It has no file."""
    with UsersTable(database=":memory:") as table:
        assert table.path == ":memory:"
        assert table.tables() == ["auth_users"]
        assert table.users() == []


def test_the_default_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the manager's, whose directory is made if it is not there."""
    monkeypatch.setattr(constants, "DATABASE", str(tmp_path / "home" / "manager.sqlite3"))
    for table in (Database(None), ConnectionsTable(), HostnamesTable(), UsersTable()):
        with table:
            assert table.path == constants.DATABASE
    assert stat.S_IMODE(Path(constants.DATABASE).stat().st_mode) == 0o600


def test_what_cannot_be_opened(tmp_path: Path, path: str) -> None:
    """It is an error of sqlite3, and so is a file that is no database."""
    with pytest.raises(sqlite3.OperationalError):
        Database(str(tmp_path))
    Path(path).write_text("something else" * 100)
    with pytest.raises(sqlite3.DatabaseError):
        UsersTable(database=path)
    with pytest.raises(TypeError, match="no_such"):
        UsersTable(database=":memory:", no_such=1)


def test_keywords_are_for_sqlite3(path: str) -> None:
    """Such as whether other threads may use the connection."""
    found: list[object] = []

    def look(table: HostnamesTable) -> None:
        try:
            found.append(table.hostnames() == table.hostnames())
        except sqlite3.ProgrammingError:
            found.append("other thread")

    for options in ({}, {"check_same_thread": False}):
        with HostnamesTable(database=path, **options) as table:
            thread = threading.Thread(target=look, args=[table])
            thread.start()
            thread.join()
    assert found == ["other thread", True]


def test_tables_and_columns(path: str) -> None:
    """The tables of 1.0 are there to be looked at, each once somebody has opened it, and no others."""
    with ConnectionsTable(database=path) as table:
        assert table.tables() == ["connections"]
    with HostnamesTable(database=path) as hostnames, UsersTable(database=path) as users:
        assert users.tables() == ["auth_hostnames", "auth_users", "connections"]
        assert hostnames.column_names("auth_users") == ["pid", "username", "key", "salt", "is_admin"]
        assert users.column_datatypes("auth_users") == ["INTEGER", "TEXT", "BLOB", "BLOB", "BOOLEAN"]
        assert users.table_info("auth_hostnames") == [(0, "hostname", "TEXT", 1, None, 0)]
        assert users.column_names("connections") == [
            "pid", "datetime", "ip_address", "domain", "port", "message",
        ]  # fmt: skip
        assert users.column_datatypes("connections") == [
            "INTEGER", "DATETIME", "TEXT", "TEXT", "INTEGER", "TEXT",
        ]  # fmt: skip
        assert (users.table_info("no_such"), users.column_names("no_such")) == ([], [])
    assert (ConnectionsTable.NAME, HostnamesTable.NAME, UsersTable.NAME) == (
        "connections",
        "auth_hostnames",
        "auth_users",
    )


def test_statements_of_ones_own(path: str) -> None:
    """What is executed is seen at the cursor, and is on the disk when the connection commits it."""
    with Database(path) as table, Database(path, timeout=0) as other:
        table.execute("CREATE TABLE a (x INTEGER, y TEXT)")
        table.execute("INSERT INTO a VALUES (?, ?)", (1, "b"))
        table.execute("SELECT * FROM a")
        assert table.cursor.fetchall() == [(1, "b")]
        other.execute("SELECT * FROM a")
        assert other.cursor.fetchall() == []
        assert table.connection is not None
        table.connection.commit()
        other.execute("SELECT * FROM a WHERE x = :x", {"x": 1})
        assert other.cursor.fetchall() == [(1, "b")]
        with pytest.raises(sqlite3.OperationalError, match="syntax error"):
            table.execute("SELEC")


def test_a_table_commits_what_was_executed_before(path: str) -> None:
    """Its methods work while somebody's own transaction is open; the ones that change something end it."""
    with HostnamesTable(database=path) as table, HostnamesTable(database=path, timeout=0) as other:
        table.execute("INSERT INTO auth_hostnames VALUES ('first')")
        assert "first" in table.hostnames()
        assert "first" not in other.hostnames()
        table.insert("second")
        assert {"first", "second"} <= set(other.hostnames())


def test_a_table_undoes_what_fails(path: str) -> None:
    """It can be used afterwards, also by others."""
    with HostnamesTable(database=path) as table:
        with pytest.raises(ValueError, match="not in the table"):
            table.delete("no_such")
        assert table.connection is not None
        assert not table.connection.in_transaction
        with closing(sqlite3.connect(path, timeout=0)) as other, other:
            other.execute("INSERT INTO auth_hostnames VALUES ('other')")
        assert "other" in table.hostnames()


# -- connections ---------------------------------------------------------------------------------------------


def test_connections_are_recorded(path: str) -> None:
    """Each is a row: number, local time to the second, address, domain, port and message."""
    before = datetime.now().replace(microsecond=0)
    with ConnectionsTable(database=path) as table:
        assert table.connections() == []
        table.insert(PEER, "connected as a client")
        table.insert(PEER, "disconnected")
        rows = table.connections()
    assert [type(row) for row in rows] == [tuple, tuple]
    assert [(row[0], *row[2:]) for row in rows] == [
        (1, "10.0.0.7", "lab7.example.org", 51022, "connected as a client"),
        (2, "10.0.0.7", "lab7.example.org", 51022, "disconnected"),
    ]
    for row in rows:
        assert isinstance(row[1], str)
        assert len(row[1]) == len("2024-03-31T12:30:00")
        assert before <= datetime.fromisoformat(row[1]) <= datetime.now()


def test_times_may_be_datetimes(path: str) -> None:
    """In what the table returns, and at its cursor."""
    with ConnectionsTable(database=path, as_datetime=True) as table:
        table.insert(PEER, "x")
        [row] = table.connections()
        assert isinstance(row[1], datetime)
        assert abs(row[1] - datetime.now()) < timedelta(minutes=1)
        table.execute("SELECT datetime FROM connections")
        assert table.cursor.fetchone() == (row[1],)
    with ConnectionsTable(database=path) as table:
        assert table.connections()[0][1] == row[1].isoformat()


def test_text_of_a_database_becomes_a_datetime() -> None:
    """With a T or a blank before the time; anything else is a ValueError."""
    expected = datetime(2024, 3, 31, 12, 30, 15)
    assert database.convert_datetime(b"2024-03-31T12:30:15") == expected
    assert database.convert_datetime(b"2024-03-31 12:30:15") == expected
    with pytest.raises(ValueError, match="x"):
        database.convert_datetime(b"x")


@pytest.fixture
def three_days(path: str) -> str:
    """A database with noon and midnight of three days."""
    with ConnectionsTable(database=path) as table:
        for day in (1, 2, 3):
            for clock in ("00:00:00", "12:00:00"):
                when = f"2024-03-0{day}T{clock}"
                table.execute(
                    "INSERT INTO connections VALUES (NULL, ?, '', '', 0, ?)", (when, f"{day}/{clock[:2]}")
                )
        assert table.connection is not None
        table.connection.commit()
    return path


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({}, ["1/00", "1/12", "2/00", "2/12", "3/00", "3/12"]),
        ({"start": "2024-03-02"}, ["2/00", "2/12", "3/00", "3/12"]),
        ({"start": "2024-03-02T12:00:00"}, ["2/12", "3/00", "3/12"]),
        ({"start": "2024-03-02T12:00:01"}, ["3/00", "3/12"]),
        ({"end": "2024-03-02"}, ["1/00", "1/12", "2/00", "2/12"]),
        ({"end": "2024-03-02T00:00:00"}, ["1/00", "1/12", "2/00"]),
        ({"start": "2024-03-01T12:00:00", "end": "2024-03-02"}, ["1/12", "2/00", "2/12"]),
        ({"start": datetime(2024, 3, 1, 12), "end": datetime(2024, 3, 2)}, ["1/12", "2/00"]),
        ({"start": "2025-01-01"}, []),
        ({"end": "2023-01-01"}, []),
    ],
    ids=str,
)
def test_connections_from_when_until_when(bounds: dict[str, Any], found: list[str], three_days: str) -> None:
    """Both included; a date alone is the whole day, and datetimes are as good as text."""
    for as_datetime in (False, True):
        with ConnectionsTable(database=three_days, as_datetime=as_datetime) as table:
            assert [row[-1] for row in table.connections(**bounds)] == found


def test_what_is_no_time(three_days: str) -> None:
    """It is a ValueError and not everything."""
    with ConnectionsTable(database=three_days) as table, pytest.raises(ValueError, match="yesterday"):
        table.connections(start="yesterday")


# -- hostnames -----------------------------------------------------------------------------------------------


def test_this_computer_is_trusted_if_nobody_else_is(path: str) -> None:
    """An empty table is filled when it is opened, and any other is left alone."""
    with HostnamesTable(database=path) as table:
        assert table.hostnames() == sorted(constants.LOCALHOST_ALIASES)
        for name in table.hostnames():
            table.delete(name)
        table.insert("lab7")
    with HostnamesTable(database=path) as table:
        assert table.hostnames() == ["lab7"]
        table.delete("lab7")
    with HostnamesTable(database=path) as table:
        assert table.hostnames() == sorted(constants.LOCALHOST_ALIASES)


def test_hosts_come_and_go(path: str) -> None:
    """Twice is as good as once, and who is not there cannot be removed."""
    with HostnamesTable(database=path) as table:
        before = table.hostnames()
        for name in ("zoo", "Lab 7", "zoo"):
            table.insert(name)
        assert table.hostnames() == sorted([*before, "zoo", "Lab 7"])
        table.delete("zoo")
        with pytest.raises(ValueError, match=r"^Cannot delete 'zoo'\. This hostname is not in the table\.$"):
            table.delete("zoo")


# -- users ---------------------------------------------------------------------------------------------------


def test_users_are_added_changed_and_removed(users: UsersTable) -> None:
    """Whether one is an administrator goes by the truth of what is given."""
    users.insert("n.bohr", "atom", True)
    users.insert("marie", "polonium", "")
    assert users.usernames() == ["marie", "n.bohr"]
    assert users.users() == [("marie", False), ("n.bohr", True)]
    assert users.is_admin("n.bohr")
    assert not users.is_admin("marie")
    assert not users.is_admin("nobody")
    assert users.is_user_registered("marie")
    assert not users.is_user_registered("nobody")
    assert not users.is_user_registered("Marie")

    users.update("marie", is_admin=[1])
    users.update("n.bohr", is_admin=0)
    assert users.users() == [("marie", True), ("n.bohr", False)]
    users.delete("marie")
    assert users.users() == [("n.bohr", False)]


def test_passwords(users: UsersTable) -> None:
    """They are what was set last."""
    users.insert("marie", "pöl onium", True)
    assert users.is_password_valid("marie", "pöl onium")
    assert not users.is_password_valid("marie", "")
    assert not users.is_password_valid("nobody", "pöl onium")
    users.update("marie", password="radium")
    assert not users.is_password_valid("marie", "pöl onium")
    assert users.is_password_valid("marie", "radium")
    assert users.is_admin("marie")
    users.update("marie", password="x", is_admin=False)
    assert users.is_password_valid("marie", "x")
    assert not users.is_admin("marie")


def test_all_that_is_known_of_a_user(users: UsersTable) -> None:
    """Number, name, hash, salt, and 1 or 0, and never the password."""
    users.insert("marie", "polonium", True)
    users.insert("ada", "engine", False)
    marie, ada = users.records()
    assert users.get_user("ada") == ada
    assert users.get_user("nobody") is None
    assert (marie[:2], marie[4]) == ((1, "marie"), 1)
    assert (ada[:2], ada[4]) == ((2, "ada"), 0)
    for _, _, key, salt, _ in (marie, ada):
        assert isinstance(key, bytes)
        assert isinstance(salt, bytes)
        assert len(salt) == 16
        assert b"polonium" not in key
    assert marie[2] != ada[2]
    assert marie[3] != ada[3]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("new:1", "x", False), r'^A username cannot end with ":<integer>"$'),
        (("new:1", "", False), r'^A username cannot end with ":<integer>"$'),
        (("new", "", False), r"^You must specify a password for 'new'$"),
        (("new", None, False), r"^You must specify a password for 'new'$"),
        (("marie", "", False), r"^You must specify a password for 'marie'$"),
        (("marie", "x", False), r"^A user with the name 'marie' already exists$"),
    ],
)
def test_users_that_cannot_be_added(arguments: tuple[Any, ...], text: str, users: UsersTable) -> None:
    """It says why, and nothing has changed."""
    users.insert("marie", "polonium", True)
    before = users.records()
    with pytest.raises(ValueError, match=text):
        users.insert(*arguments)
    assert users.records() == before


@pytest.mark.parametrize(
    ("name", "changes", "text"),
    [
        ("nobody", {}, r"^Cannot update 'nobody'\. This user is not in the table\.$"),
        ("nobody", {"password": "x"}, r"^Cannot update 'nobody'\. This user is not in the table\.$"),
        ("marie", {}, r"^Must specify either the password and/or the admin rights when updating$"),
        ("marie", {"password": ""}, r"^You must specify a password for 'marie'$"),
        ("marie", {"password": "", "is_admin": False}, r"^You must specify a password for 'marie'$"),
    ],
)
def test_users_that_cannot_be_changed(
    name: str, changes: dict[str, Any], text: str, users: UsersTable
) -> None:
    """It says why, and nothing has changed."""
    users.insert("marie", "polonium", True)
    before = users.records()
    with pytest.raises(ValueError, match=text):
        users.update(name, **changes)
    with pytest.raises(ValueError, match=r"^Cannot delete 'nobody'\. This user is not in the table\.$"):
        users.delete("nobody")
    assert users.records() == before


@pytest.mark.parametrize("name", ["marie:", "marie:1a", ":1 ", "a b", "é"])
def test_other_names_are_as_good(name: str, users: UsersTable) -> None:
    """Only what could be a manager's name is not a user's."""
    users.insert(name, "x", False)
    assert users.usernames() == [name]


# -- with armillary ------------------------------------------------------------------------------------------


def test_armillary_and_the_tables_share_a_database(path: str) -> None:
    """What is written here is read there, and the reverse."""
    with UsersTable(database=path) as users, ConnectionsTable(database=path) as connections:
        users.insert("marie", "polonium", True)
        connections.insert(PEER, "connected as a client")
        with open_store(path) as store:
            assert store.users.login("marie", "polonium").is_admin
            assert [row.message for row in store.audit.connections()] == ["connected as a client"]
            assert [event.message for event in store.audit.events()] == ["connected as a client"]
            store.users.add("ada", "engine", role="observer")
            assert users.users() == [("ada", False), ("marie", True)]
            assert users.is_password_valid("ada", "engine")
            users.delete("ada")
            users.insert("ada", "engine", False)
            ada = store.users.get("ada")
            assert ada is not None
            assert ada.role is None
        assert users.tables() == ["auth_hostnames", "auth_users", "connections"]


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("Database.__init__", "(self, database, **kwargs)"),
        ("Database.execute", "(self, sql, parameters=None)"),
        ("Database.table_info", "(self, name)"),
        ("Database.column_names", "(self, table_name)"),
        ("Database.column_datatypes", "(self, table_name)"),
        ("ConnectionsTable.__init__", "(self, *, database=None, as_datetime=False, **kwargs)"),
        ("ConnectionsTable.insert", "(self, peer, message)"),
        ("ConnectionsTable.connections", "(self, *, start=None, end=None)"),
        ("HostnamesTable.__init__", "(self, *, database=None, **kwargs)"),
        ("HostnamesTable.insert", "(self, hostname)"),
        ("HostnamesTable.delete", "(self, hostname)"),
        ("UsersTable.__init__", "(self, *, database=None, **kwargs)"),
        ("UsersTable.insert", "(self, username, password, is_admin)"),
        ("UsersTable.update", "(self, username, *, password=None, is_admin=None)"),
        ("UsersTable.is_password_valid", "(self, username, password)"),
    ],
)
def test_the_methods_take_what_they_took(name: str, signature: str) -> None:
    """Names, kinds and defaults of all parameters are those of 1.0."""
    class_name, _, method = name.partition(".")
    function = inspect.signature(getattr(getattr(database, class_name), method))
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in function.parameters.values()]
    assert str(inspect.Signature(bare)) == signature
